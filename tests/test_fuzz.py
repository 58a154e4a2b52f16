"""Damaged files of every kind: refused by name or read as they were; no crash, no hang, no wrong number.

With --slow more of them are tried.
"""
import random
import subprocess
import sys

import av
import numpy as np
import pytest
import torch

from prism_nb.condensed import CondensedSet
from prism_nb.core.errors import PrismError
from prism_nb.core.files import load_tensors, save_tensors
from prism_nb.study.records import read_record, write_record

SECONDS, MEGABYTES = 10, 2000   # limits for one file


@pytest.fixture
def count(slow):
    """How many damaged versions of a file are tried."""
    return 300 if slow else 40


def cut(data, rng):
    return data[:rng.randrange(len(data))]


def flip(data, rng):
    where = {rng.randrange(len(data)) for _ in range(rng.choice((1, 3, 30)))}
    return bytes(b ^ (1 << rng.randrange(8)) if i in where else b for i, b in enumerate(data))


def spoil_header(data, rng):
    at = rng.randrange(min(200, len(data)))
    return data[:at] + rng.randbytes(8) + data[at + 8:]


def zeros(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes(min(len(data) - at, rng.choice((16, 4096)))) + data[at + 4096:]


def repeat(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data


def huge_length(data, rng):
    return (2**rng.randrange(20, 63)).to_bytes(8, "little") + data[8:]


def absurd_size(data, rng):
    """Overwrite the width or height in an AVI's or MP4's header, wherever it is."""
    size = rng.choice([(64).to_bytes(n, order) for n in (2, 4) for order in ("little", "big")])
    places = [i for i in range(min(len(data), 4000)) if data[i:i + len(size)] == size]
    if not places:
        return data
    at = rng.choice(places)
    return data[:at] + rng.choice((0, 1, 65535, 2**31 - 1)).to_bytes(4, "little")[:len(size)] + data[at + len(size):]


def mutants(data, kinds, count, seed=0):
    """Damaged versions of a file's bytes."""
    rng = random.Random(seed)
    return [rng.choice(kinds)(data, rng) for _ in range(count)]


def example_set():
    frames = torch.randn(4, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    is_key = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)) < .5
    return CondensedSet.from_frames(frames, is_key, torch.arange(4), list("abcd"), recipe=dict(lr=1.5), seed=3)


def assert_equal_sets(one, other):
    assert one.metadata == other.metadata
    assert one.class_names == other.class_names
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name])


@pytest.mark.parametrize("kinds", [(cut, flip, zeros, repeat), (spoil_header, huge_length)], ids=["body", "header"])
def test_a_damaged_condensed_set_is_refused_or_read_equal(tmp_path, kinds, count):
    condensed, path = example_set(), tmp_path / "set.safetensors"
    condensed.save(path)
    refused = 0
    for data in mutants(path.read_bytes(), kinds, count):
        path.write_bytes(data)
        try:
            assert_equal_sets(CondensedSet.load(path), condensed)
        except PrismError as e:
            refused += 1
            assert str(path) in str(e)
            assert "\n" not in str(e)
    assert refused > .9 * count


def test_a_damaged_checkpoint_is_refused_or_read_equal(tmp_path, count):
    path = tmp_path / "checkpoint.safetensors"
    state = dict(frames=torch.randn(2, 8, 3, 16, 16), is_key=torch.rand(2, 8) < .5,
                 losses=torch.rand(9, dtype=torch.double))
    metadata = dict(iteration=9, recipe=dict(lr=2.5))
    save_tensors(path, state, **metadata)
    for data in mutants(path.read_bytes(), (cut, flip, zeros, repeat, spoil_header, huge_length), count, 1):
        path.write_bytes(data)
        try:
            tensors, found = load_tensors(path)
        except PrismError as e:
            assert str(path) in str(e)
            continue
        assert found == metadata
        for name, value in state.items():
            assert torch.equal(tensors[name], value)


def test_a_damaged_record_is_as_good_as_none(tmp_path, count):
    path = tmp_path / "record.json"
    scores = [dict(top1=12.5, per_class=[1.0, 24.0])] * 3
    record = dict(method="dm", scores=scores, losses=[.5, .25, 1e-9], seed=0)
    write_record(path, record)
    for data in mutants(path.read_bytes(), (cut, flip, zeros, repeat, spoil_header), count, 2):
        path.write_bytes(data)
        assert read_record(path) in (None, record)


READ_ALL = """
import resource, sys, time
from pathlib import Path
from prism_nb.core.errors import PrismError
from prism_nb.data.video import ClipSampling, ResizeCrop, decode_clips
for path in map(Path, sys.argv[1:]):
    started = time.monotonic()
    try:
        result = f'read {decode_clips(path, ClipSampling(8, 4), ResizeCrop((48, 64), 48)).shape}'
    except PrismError as e:
        one_line = str(e).startswith(str(path)) and '\\n' not in str(e)
        result = 'refused' if one_line else 'unclear message'
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
    print(path.name, f'{time.monotonic() - started:.2f}', megabytes, result, flush=True)
"""


def write_film(path, codec, size=(64, 48), frames=40):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 12
        for t in range(frames):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[10:30, t % size[0]:t % size[0] + 12] = (200, 40 + t, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_damaged_videos_are_read_or_refused_by_name(tmp_path, count):
    files = []
    kinds = (cut, flip, spoil_header, zeros, repeat, absurd_size)
    for suffix, codec in (("mp4", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")):
        write_film(tmp_path / f"good.{suffix}", codec)
        good = (tmp_path / f"good.{suffix}").read_bytes()
        for i, data in enumerate(mutants(good, kinds, count // 3, suffix)):
            other = random.Random(i).choice((suffix, suffix, "mp4", "avi", "txt"))
            files.append(tmp_path / f"{i}.{other}.{suffix}")
            files[-1].write_bytes(data)
    files.append(tmp_path / "none.mp4")
    files[-1].write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, files)], capture_output=True, text=True,
                          timeout=SECONDS * len(files), stdin=subprocess.DEVNULL)
    lines = [line.split(" ", 3) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-1000:]
    assert [name for name, *_ in lines] == [file.name for file in files]
    for name, seconds, megabytes, result in lines:
        assert float(seconds) < SECONDS, name
        assert int(megabytes) < MEGABYTES, name
        assert result in ("refused", "read (1, 8, 48, 48, 3)"), name
    assert sum(result == "refused" for *_, result in lines) > len(files) // 5
