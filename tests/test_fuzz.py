"""Damaged files of every kind: refused by name or read as they were, never a crash, a hang or a wrong number. PRISM_LONG=1 tries more."""
import os
import random
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from prism_nb.condensed import CondensedSet, condensed_from
from prism_nb.core.errors import PrismError
from prism_nb.core.files import load_tensors, save_tensors
from prism_nb.data.video import ClipSampling, ResizeCrop, decode_clips
from prism_nb.study.records import read_record, write_record

MANY = 300 if os.environ.get("PRISM_LONG") else 40
SECONDS, MEGABYTES = 10, 2000   # a file may take, at most


def cut(data, draw): return data[:draw.randrange(len(data))]
def flip(data, draw): return bytes(b ^ (1 << draw.randrange(8)) if i in where else b for where in [{draw.randrange(len(data)) for _ in range(draw.choice((1, 3, 30)))}] for i, b in enumerate(data))
def spoil_header(data, draw): at = draw.randrange(min(200, len(data))); return data[:at] + draw.randbytes(8) + data[at + 8:]
def zeros(data, draw): at = draw.randrange(len(data)); return data[:at] + bytes(min(len(data) - at, draw.choice((16, 4096)))) + data[at + 4096:]
def twice(data, draw): at = draw.randrange(len(data)); return data[:at] + data
def huge_length(data, draw): return (2**draw.randrange(20, 63)).to_bytes(8, "little") + data[8:]


def mutants(data, kinds, seed=0):
    """MANY damaged versions of a file's bytes."""
    draw = random.Random(seed)
    return [draw.choice(kinds)(data, draw) for _ in range(MANY)]


def example():
    frames = torch.randn(4, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return condensed_from(frames, torch.rand(4, 8) < .5, torch.arange(4), list("abcd"), recipe=dict(lr=1.5, memory="key-frames"), seed=3)


def same(one, other):
    return one.metadata == other.metadata and one.class_names == other.class_names and all(torch.equal(t, other.tensors()[k]) for k, t in one.tensors().items())


@pytest.mark.parametrize("kinds", [(cut, flip, zeros, twice), (spoil_header, huge_length)], ids=["body", "header"])
def test_a_damaged_condensed_set_is_refused_or_read_equal(tmp_path, kinds):
    made, path = example(), tmp_path / "set.safetensors"
    made.save(path)
    good, refused = path.read_bytes(), 0
    for data in mutants(good, kinds):
        path.write_bytes(data)
        try:
            assert same(CondensedSet.load(path), made)
        except PrismError as e:
            refused += 1
            assert str(path) in str(e) and "\n" not in str(e)
    assert refused > .9 * MANY


def test_a_damaged_checkpoint_is_refused_or_read_equal(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    state = dict(frames=torch.randn(2, 8, 3, 16, 16), is_key=torch.rand(2, 8) < .5, losses=torch.rand(9, dtype=torch.double))
    save_tensors(path, state, iteration=9, recipe=dict(lr=2.5))
    for data in mutants(path.read_bytes(), (cut, flip, zeros, twice, spoil_header, huge_length), 1):
        path.write_bytes(data)
        try:
            tensors, said = load_tensors(path)
            assert said == dict(iteration=9, recipe=dict(lr=2.5)) and all(torch.equal(tensors[k], v) for k, v in state.items())
        except PrismError as e:
            assert str(path) in str(e)


def test_a_damaged_record_is_as_good_as_none(tmp_path):
    path = tmp_path / "record.json"
    record = dict(method="dm", scores=[dict(top1=12.5, per_class=[1.0, 24.0])] * 3, losses=[.5, .25, 1e-9], seed=0)
    write_record(path, record)
    for data in mutants(path.read_bytes(), (cut, flip, zeros, twice, spoil_header), 2):
        path.write_bytes(data)
        assert read_record(path) in (None, record)


READ_ALL = """
import resource, sys, time
from pathlib import Path
for path in map(Path, sys.argv[1:]):
    started = time.monotonic()
    try: said = 'read ' + str(read_clips(path, Sampling(8, 4), Geometry((48, 64), 48)).shape)
    except PrismError as e: said = 'refused' if str(e).startswith(str(path)) and '\\n' not in str(e) else 'badly said'
    print(path.name, f'{time.monotonic() - started:.2f}', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, said, flush=True)
"""


def video(path, codec, size=(64, 48), frames=40):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 12
        for t in range(frames):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[10:30, t % size[0]:t % size[0] + 12] = (200, 40 + t, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def absurd(data, draw):
    """Sizes of the picture written over: width and height of an AVI's or MP4's header, wherever they are."""
    sizes = [(64).to_bytes(n, order) for n in (2, 4) for order in ("little", "big")]
    wanted = draw.choice(sizes)
    at = [i for i in range(min(len(data), 4000)) if data[i:i + len(wanted)] == wanted]
    return data if not at else data[:(i := draw.choice(at))] + draw.choice((0, 1, 65535, 2**31 - 1)).to_bytes(4, "little")[:len(wanted)] + data[i + len(wanted):]


def test_damaged_videos_are_read_or_refused_by_name(tmp_path):
    files = []
    for suffix, codec in (("mp4", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")):
        video(tmp_path / f"good.{suffix}", codec)
        good = (tmp_path / f"good.{suffix}").read_bytes()
        for i, data in enumerate(mutants(good, (cut, flip, spoil_header, zeros, twice, absurd), suffix)[:MANY // 3]):
            files.append(tmp_path / f"{i}.{random.Random(i).choice((suffix, suffix, 'mp4', 'avi', 'txt'))}.{suffix}")
            files[-1].write_bytes(data)
    files.append(tmp_path / "none.mp4")
    files[-1].write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, files)], capture_output=True, text=True, timeout=SECONDS * len(files), stdin=subprocess.DEVNULL)
    told = [line.split(" ", 3) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [name for name, *_ in told] == [f.name for f in files], (done.returncode, done.stderr[-1000:])
    for name, seconds, megabytes, said in told:
        assert float(seconds) < SECONDS and int(megabytes) < MEGABYTES and (said == "refused" or said == "read (1, 8, 48, 48, 3)"), (name, seconds, megabytes, said)
    assert sum(said == "refused" for *_, said in told) > len(files) // 5
