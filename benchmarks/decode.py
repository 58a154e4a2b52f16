"""Decoding into the clip cache against a plain loop, on the same files, interleaved in one run; medians.

The plain loop is one process with PyAV, one thread and one shared reformatter that resizes as it converts; it opens a file
once and stops at the last frame it needs. The cache decodes with as many threads as there are cores and writes to disk.
"""
import csv
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from prism_nb import motionshapes
from prism_nb.datasets import decode_all, hmdb51, ucf101
from prism_nb.rules import data_folder, home
from prism_nb.video import Geometry, Sampling

ROUNDS, SAMPLING = 5, Sampling(8, 4)


def plain_loop(paths, geometry):
    convert, (height, width), out = VideoReformatter(), geometry.resize, []
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            packets = list(container.demux(stream))
            wanted, kept = SAMPLING.indices(sum(packet.size > 0 for packet in packets)).tolist(), []
            for t, frame in enumerate(frame for packet in packets for frame in packet.decode()):
                if t == wanted[len(kept)]:
                    kept.append(convert.reformat(frame, width=width, height=height, format="rgb24").to_ndarray())
                if len(kept) == len(wanted):
                    break
        top, left = (height - geometry.crop) // 2, (width - geometry.crop) // 2
        out.append(np.stack(kept)[:, top:top + geometry.crop, left:left + geometry.crop])
    return out


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name, index, root, geometry):
    paths = [root / p for p in index.path]

    def cached(decoder):
        with tempfile.TemporaryDirectory() as folder:
            assert not any(decode_all(index, root, SAMPLING, geometry, decoder, os.cpu_count(), Path(folder)))

    calls = {"plain loop": lambda: plain_loop(paths, geometry), "cache, pyav": lambda: cached("pyav"), "cache, decord": lambda: cached("decord")}
    times = {what: [] for what in calls}
    for _ in range(ROUNDS):
        for what, call in calls.items():
            times[what].append(seconds(call))
    medians = {what: statistics.median(t) for what, t in times.items()}
    return [dict(files=name, what=what, clips=len(index), ms_a_clip=round(1e3 * m / len(index), 2), times_plain_loop=round(medians["plain loop"] / m, 2))
            for what, m in medians.items()]


if __name__ == "__main__":
    shapes = motionshapes.make(data_folder() / "motionshapes", **motionshapes.SIZES["motionshapes"])
    index = ucf101(shapes)
    rows = [row for suffix in (".mp4", ".avi")
            for row in measure(f"MotionShapes {suffix}", index[index.path.str.endswith(suffix)].reset_index(drop=True)[:300], shapes, Geometry((48, 64), 48))]
    real = Path(os.environ.get("PRISM_REAL", home().parent / "shared" / "real")) / "jhmdb"
    if real.is_dir():
        rows += measure("J-HMDB .avi", hmdb51(real)[::4].reset_index(drop=True), real, Geometry((64, 64), 64))
    for out in (sys.stdout, (Path(__file__).parent / "decode.csv").open("w", newline="")):
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
