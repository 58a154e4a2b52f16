"""Condensed sets that version 0.1 wrote are still read, with the same content.

The files in `tests/data` hold two classes with one video each, of four frames of 6×6 pixels; every pixel is a short
binary fraction, so that the values stated here are exact.
"""
from pathlib import Path

import pytest
import torch

from prism_nb.condensed import CondensedSet
from prism_nb.core.errors import PrismError
from prism_nb.core.files import save_tensors
from prism_nb.methods.static_dynamic import StaticDynamicSet

DATA = Path(__file__).resolve().parent / "data"
CLASSES, FRAMES, SIZE = ["run", "walk"], 4, 6


@pytest.fixture
def key_frame_set():
    return CondensedSet.load(DATA / "condensed_set_0.1.safetensors")


@pytest.fixture
def static_dynamic_set():
    return CondensedSet.load(DATA / "static_dynamic_set_0.1.safetensors")


def ramp(*shape, period, step, first):
    """Values first, first + step, … in a tensor of this shape, starting again after `period` values."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) % period).float().view(shape) * step + first


def metadata(parameterization, lr):
    recipe = {"memory": parameterization, "lr": lr, "vpc": 1}
    return {"recipe": recipe, "seed": 3, "iteration": 50, "data": "0123456789abcdef", "run": "example"}


def assert_saving_again_gives_equal_tensors(condensed, path):
    condensed.save(path)
    again = CondensedSet.load(path)
    assert type(again) is type(condensed)
    assert again.metadata == condensed.metadata
    assert again.tensors().keys() == condensed.tensors().keys()
    for name, tensor in condensed.tensors().items():
        assert again.tensors()[name].dtype == tensor.dtype, name
        assert torch.equal(again.tensors()[name], tensor), name


def test_key_frames_are_read(key_frame_set):
    assert type(key_frame_set) is CondensedSet
    assert key_frame_set.labels.tolist() == [0, 1]
    assert key_frame_set.class_names == CLASSES
    assert key_frame_set.num_frames == FRAMES
    assert key_frame_set.metadata == metadata("key-frames", 20.0)
    assert key_frame_set.key_frames.int().tolist() == [[1, 0, 0, 1], [1, 0, 1, 1]]
    assert key_frame_set.video_index.tolist() == [0, 0, 1, 1, 1]
    assert key_frame_set.frame_index.tolist() == [0, 3, 0, 2, 3]
    assert key_frame_set.inserted_at.tolist() == [-1, -1, -1, 30, -1]
    assert key_frame_set.frames_per_video() == [2, 3]
    assert key_frame_set.storage() == 5 * (3 * SIZE * SIZE * 4 + 3 * 4) + 2 * 8


def test_key_frames_give_the_same_dense_videos(key_frame_set):
    frames = ramp(2, FRAMES, 3, SIZE, SIZE, period=97, step=1 / 8, first=-5.0)
    videos = key_frame_set.videos()
    assert videos.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert videos[0, 0, 0, 0].tolist() == [-5.0, -4.875, -4.75, -4.625, -4.5, -4.375]
    assert torch.equal(videos[key_frame_set.key_frames], frames[key_frame_set.key_frames])
    torch.testing.assert_close(videos[0, 1], (2 * frames[0, 0] + frames[0, 3]) / 3)
    torch.testing.assert_close(videos[0, 2], (frames[0, 0] + 2 * frames[0, 3]) / 3)
    torch.testing.assert_close(videos[1, 1], (frames[1, 0] + frames[1, 2]) / 2)


def test_static_and_dynamic_memories_are_read(static_dynamic_set):
    assert type(static_dynamic_set) is StaticDynamicSet
    assert static_dynamic_set.labels.tolist() == [0] * 4 + [1] * 4
    assert static_dynamic_set.class_names == CLASSES
    assert static_dynamic_set.num_frames == FRAMES
    assert static_dynamic_set.metadata == metadata("static-dynamic", 1.0)
    assert static_dynamic_set.frames_per_video() == [2 + 2 * FRAMES / 3] * 2
    pixels = 2 * (2 * 3 + 2 * FRAMES) * SIZE * SIZE
    assert static_dynamic_set.storage() == 4 * (pixels + 327) + 2 * 8


def test_static_and_dynamic_memories_give_the_same_dense_videos(static_dynamic_set):
    # the hallucinator of this file adds half the dynamic memory, and a bias, to the static frame
    static = ramp(2, 2, 3, SIZE, SIZE, period=89, step=1 / 8, first=-5.0)
    dynamic = ramp(2, 2, FRAMES, SIZE, SIZE, period=83, step=1 / 16, first=-2.0)
    bias = torch.tensor([0.25, 0.0, -0.25])[:, None, None]
    videos = static_dynamic_set.videos()
    assert videos.shape == (8, FRAMES, 3, SIZE, SIZE)
    assert videos[0, 0, 0, 0, 0].item() == -5.0 + 0.5 * -2.0 + 0.25
    for video in range(2):
        for s in range(2):
            for d in range(2):
                expected = static[video, s] + dynamic[video, d][:, None] / 2 + bias
                assert torch.equal(videos[4 * video + 2 * s + d], expected), (video, s, d)


@pytest.mark.parametrize("name", ["key_frame_set", "static_dynamic_set"])
def test_saving_again_gives_equal_tensors(name, request, tmp_path):
    assert_saving_again_gives_equal_tensors(request.getfixturevalue(name), tmp_path / "again.safetensors")


@pytest.mark.parametrize("name", ["condensed_set_0.1", "static_dynamic_set_0.1"])
def test_pixels_as_float32_are_written_as_version_0_1_wrote_them(name, tmp_path):
    CondensedSet.load(DATA / f"{name}.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (DATA / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["key_frame_set", "static_dynamic_set"])
def test_a_version_that_is_not_known_is_refused(name, request, tmp_path):
    condensed, path = request.getfixturevalue(name), tmp_path / "later.safetensors"
    for version in (0, 4, "2", None):
        save_tensors(path, condensed.tensors(), kind=type(condensed).__name__, version=version)
        with pytest.raises(PrismError, match="this code reads versions 1, 2, 3"):
            CondensedSet.load(path)
