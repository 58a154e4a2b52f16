"""A condensed set is a data set of PyTorch: items, devices, types of pixels, workers; its card and its exports."""
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from torch.utils.data import DataLoader

from prism_nb.condensed import DTYPES, CondensedSet, SyntheticDataset, concatenate
from prism_nb.core.errors import PrismError
from prism_nb.core.files import load_tensors
from prism_nb.core.registry import SET_TYPES, temporary_parts
from prism_nb.core.rng import seeded_generator
from prism_nb.evaluation import TrainConfig, train
from prism_nb.methods.static_dynamic import StaticDynamicSet
from prism_nb.report.card import card_path
from prism_nb.report.export import FORMATS, export

CLASSES = ["run", "walk"]
COMPACT = [torch.float16, torch.uint8]


def randn(name, *shape):
    return torch.randn(*shape, generator=seeded_generator("test", name))


def key_frame_set():
    """Three videos of two, three and four key frames."""
    is_key = torch.tensor([[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]).bool()
    return CondensedSet.from_frames(randn("frames", 3, 4, 3, 8, 8), is_key, torch.tensor([0, 0, 1]), CLASSES, seed=1)


def static_dynamic_set():
    """Two videos of four variants."""
    tensors = randn("s", 2, 2, 3, 8, 8), randn("d", 2, 2, 4, 8, 8), randn("w", 3, 4, 3, 3, 3) / 10, randn("b", 3)
    return StaticDynamicSet(*tensors, torch.tensor([0, 1]), 4, CLASSES, {"seed": 1})


@pytest.fixture(params=[key_frame_set, static_dynamic_set])
def condensed(request):
    return request.param()


@pytest.fixture
def default_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(item, expected):
    assert torch.equal(item[0], expected[0])
    assert item[1] == expected[1] and type(item[1]) is int


INTEGERS = [int, np.int64, np.int32, np.uint8, torch.tensor, np.array, lambda i: torch.tensor([i])]


@pytest.mark.parametrize("kind", INTEGERS)
def test_an_item_is_the_same_by_every_kind_of_integer(condensed, kind):
    for i in range(len(condensed)):
        assert_same(condensed[kind(i)], condensed[i])
        torch.testing.assert_close(condensed[i][0], condensed.videos()[i])
        assert condensed[i][1] == condensed.labels[i]


def test_negative_items_count_from_the_end_and_others_are_out_of_range(condensed):
    length = len(condensed)
    for i in range(1, length + 1):
        assert_same(condensed[-i], condensed[length - i])
        assert_same(condensed[torch.tensor(-i)], condensed[length - i])
    for i in (length, -length - 1, torch.tensor(length), np.int64(length)):
        with pytest.raises(IndexError):
            condensed[i]
    for i in (0.5, torch.tensor(1.0), slice(2), [0, 1], None):
        with pytest.raises(TypeError):
            condensed[i]
    assert [label for _, label in condensed] == condensed.labels.tolist()


def test_several_videos_are_selected_as_from_a_tensor(condensed):
    every, length = condensed.videos(), len(condensed)
    mask = torch.arange(length) % 2 == 0
    selections = [slice(1, None), slice(None, None, 2), slice(-1, 0), [0, -1], [1, 1, 0], range(2), (0, 1), mask,
                  torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int32), torch.tensor([], dtype=torch.long)]
    for selection in selections:
        expected = every[[*selection]] if isinstance(selection, range | tuple) else every[selection]
        torch.testing.assert_close(condensed.videos(selection), expected)
    torch.testing.assert_close(condensed.videos(mask.tolist()), every[mask])
    torch.testing.assert_close(condensed.videos(mask.numpy()), every[mask])
    assert condensed.videos([]).shape == (0, *every.shape[1:])
    for outside in ([length], [-length - 1], mask[:-1]):
        with pytest.raises(IndexError):
            condensed.videos(outside)


def test_the_default_type_of_pytorch_changes_nothing(condensed, default_float64):
    for each in (condensed, *(condensed.to(dtype) for dtype in COMPACT)):
        assert each.videos().dtype == torch.float32
        assert each[1][0].dtype == torch.float32


def test_frames_cast_or_moved_by_hand_work(condensed):
    name = condensed.PIXEL_FIELDS[0]
    for cast in (torch.Tensor.half, torch.Tensor.bfloat16, torch.Tensor.double):
        by_hand = replace(condensed, **{name: cast(getattr(condensed, name))})
        assert by_hand.videos().dtype == (torch.float64 if cast is torch.Tensor.double else torch.float32)
        torch.testing.assert_close(by_hand.videos().float(), condensed.videos(), atol=.05, rtol=0)


def test_a_set_moves_with_all_its_tensors(condensed):
    for each in (condensed, condensed.to(torch.uint8)):
        moved = each.to("meta")   # a device that every machine has, without values
        assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}
        assert {tensor.device.type for tensor in each.tensors().values()} == {"cpu"}
        assert len(moved) == len(each)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=[*DTYPES])
def test_videos_are_computed_where_the_set_is(condensed, dtype):
    here = condensed.to(dtype)
    there = here.to("cuda")
    assert there[1][0].device.type == "cuda"
    for selection in (slice(None), [1], torch.tensor([1]), torch.tensor([1], device="cuda")):
        torch.testing.assert_close(there.videos(selection).cpu(), here.videos(selection), atol=1e-3, rtol=1e-3)
    frames_alone = replace(key_frame_set(), frames=key_frame_set().frames.cuda())
    torch.testing.assert_close(frames_alone.videos().cpu(), key_frame_set().videos())


def test_casting_keeps_values_within_the_rounding_and_everything_else(condensed):
    before = {name: tensor.clone() for name, tensor in condensed.tensors().items()}
    as_bytes, halves = condensed.to(torch.uint8), condensed.to("cpu", torch.float16)
    for name in condensed.PIXEL_FIELDS:
        pixels = getattr(condensed, name)
        step = as_bytes.ranges[name][..., 1, None, None, None]
        assert ((as_bytes.pixels(name) - pixels).abs() <= .501 * step).all()
        assert ((as_bytes.pixels(name).amin((-3, -2, -1)) - pixels.amin((-3, -2, -1))).abs() < 1e-5).all()
        assert torch.equal(halves.pixels(name), pixels.half().float())
    for cast in (as_bytes, halves):
        assert torch.equal(cast.labels, condensed.labels)
        assert torch.equal(cast.key_frames, condensed.key_frames)
        assert cast.frames_per_video() == condensed.frames_per_video()
    assert as_bytes.to(torch.float32).ranges == {}
    for name, tensor in condensed.tensors().items():
        assert torch.equal(tensor, before[name]), name
    for dtype in (torch.int32, torch.bool):
        with pytest.raises(PrismError, match="dtype is torch"):
            condensed.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=[*DTYPES])
def test_a_file_keeps_the_type_of_pixels_and_counts_it(condensed, dtype, tmp_path):
    path, again = tmp_path / "set.safetensors", tmp_path / "again.safetensors"
    each = condensed.to(dtype)
    each.save(path)
    loaded = CondensedSet.load(path)
    assert type(loaded) is type(condensed)
    assert loaded.dtype == dtype
    assert torch.equal(loaded.videos(), each.videos())
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    tensors, header = load_tensors(path)
    assert header["version"] == (1 if dtype == torch.float32 else 2)   # 0.1 reads version 1 alone
    assert loaded.storage() == sum(tensor.nbytes for tensor in tensors.values())
    pixels = sum(getattr(condensed, name).numel() for name in condensed.PIXEL_FIELDS)
    ranges = sum(tensor.nbytes for tensor in each.ranges.values())
    assert condensed.storage() - each.storage() == pixels * (4 - dtype.itemsize) - ranges


def test_what_no_file_holds_is_refused_before_anything_is_written(condensed, tmp_path):
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(PrismError, match="a file holds one of: float32, float16, uint8"):
            condensed.to(dtype).save(tmp_path / "set.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_shards_of_bytes_are_concatenated_with_their_ranges():
    whole = key_frame_set()
    first = CondensedSet.from_frames(whole.videos([0, 1]), whole.key_frames[:2], whole.labels[:2], CLASSES)
    second = CondensedSet.from_frames(whole.videos([2]), whole.key_frames[2:], whole.labels[2:], CLASSES)
    both = concatenate([first.to(torch.uint8), second.to(torch.uint8)])
    assert torch.equal(both.videos(), whole.to(torch.uint8).videos())


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=[*DTYPES])
def test_a_set_can_be_pickled(condensed, dtype):
    each = condensed.to(dtype)
    assert torch.equal(pickle.loads(pickle.dumps(each)).videos(), each.videos())


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_load_batches(context):
    for condensed in (key_frame_set().to(torch.uint8), static_dynamic_set()):
        loader = DataLoader(condensed, batch_size=2, num_workers=1, multiprocessing_context=context)
        batches = [*loader]
        torch.testing.assert_close(torch.cat([videos for videos, _ in batches]), condensed.videos())
        assert torch.cat([labels for _, labels in batches]).tolist() == condensed.labels.tolist()
        assert batches[0][1].dtype == torch.int64


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=[*DTYPES])
def test_a_network_is_trained_on_every_type_of_pixels(dtype):
    frames = randn("large", 2, 8, 3, 48, 48)
    condensed = CondensedSet.from_frames(frames, torch.ones(2, 8).bool(), torch.tensor([0, 1]), CLASSES).to(dtype)
    model, losses = train(condensed, "minic3d", 0, TrainConfig(epochs=1, width=.125))
    assert np.isfinite(losses[0])
    assert next(model.parameters()).dtype == torch.float32


def test_a_set_type_that_computes_its_videos_itself_is_still_one(tmp_path):
    @dataclass
    class PlainSet(SyntheticDataset):
        "Frames, all of them."
        frames: torch.Tensor
        labels: torch.Tensor
        num_frames: int
        class_names: list
        metadata: dict
        TENSOR_FIELDS = {"frames": "frames", "labels": "labels"}

        def videos(self, indices=slice(None)):
            return self.frames[indices]

    with temporary_parts(SET_TYPES):
        SET_TYPES.register("PlainSet")(PlainSet)
        plain = PlainSet(randn("plain", 2, 4, 3, 8, 8), torch.tensor([0, 1]), 4, CLASSES, {})
        assert_same(plain[torch.tensor(-1)], (plain.frames[1], 1))
        plain.save(tmp_path / "plain.safetensors")
        assert load_tensors(tmp_path / "plain.safetensors")[1]["version"] == 1
        assert torch.equal(CondensedSet.load(tmp_path / "plain.safetensors").videos(), plain.videos())
        assert plain.to(torch.float32) is not plain
        with pytest.raises(PrismError, match="PlainSet cannot be stored as torch.uint8"):
            plain.to(torch.uint8)


@pytest.fixture
def written(decoded_data):
    """A set that the command line has written."""
    return decoded_data / "random.safetensors"


def test_a_card_says_what_the_hub_reads_and_no_path_of_this_machine(written):
    text = card_path(written).read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert {"pretty_name", "license", "task_categories", "size_categories", "tags"} <= head.keys()
    assert head["task_categories"] == ["video-classification"]
    assert str(written.parent) not in text and str(ROOT) not in text
    for fact in ("| seed | 0 |", "| init | random |", "Licence of the source", "0  CrossBounce"):
        assert fact in text


def test_the_five_lines_of_a_card_load_the_set(written):
    code = re.search(r"```python\n(.*?)```", card_path(written).read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(code.splitlines()) == 5
    code += "\nprint(*videos.shape, len(condensed))"
    done = subprocess.run([sys.executable, "-c", code], cwd=written.parent, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "8", "3", "48", "48", "10"], done.stderr   # the last batch of ten videos


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_fails_leaves_nothing(to, tmp_path, monkeypatch):
    condensed = key_frame_set()
    dense = CondensedSet.dense
    calls = []

    def fail_later(self, indices):
        calls.append(indices)
        if len(calls) == (1 if to == "pt" else 3):
            raise KeyboardInterrupt
        return dense(self, indices)
    monkeypatch.setattr(CondensedSet, "dense", fail_later)
    with pytest.raises(KeyboardInterrupt):
        export(condensed, to, tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("to", FORMATS)
def test_every_type_of_set_is_exported_in_every_form(condensed, to, tmp_path):
    export(condensed.to(torch.uint8), to, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    frames = len(condensed) * condensed.num_frames
    assert len(files) == {"frames": frames + 1, "pt": 3}.get(to, len(condensed))
    assert all(path.stat().st_size > 0 for path in files)


def test_bad_options_of_an_export_are_one_line(written, expect_error, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "to is 'avi'" in expect_error("export", written, "--to", "avi", "--out", tmp_path / "x")
    assert "is there already" in expect_error("export", written, "--to", "gif", "--out", tmp_path / "full")
    assert "cannot write" in expect_error("export", written, "--to", "gif", "--out", tmp_path / "full" / "file" / "x")
    assert "no such file" in expect_error("export", tmp_path / "none", "--to", "gif", "--out", tmp_path / "x")
    assert "dtype is 'int8'" in expect_error("condense", "--dtype", "int8", "--out", tmp_path / "x")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert not (tmp_path / "x").exists()
