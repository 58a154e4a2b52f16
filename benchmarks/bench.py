"""Measure what everything costs on the CPU, compared with the plain loop of reference.py and with its limits.

Alternatives are timed in alternation, so that a slow minute of the machine affects all of them. The parts write
results.csv, scaling.csv, numerics.csv and a line of machine.csv, from which page.py writes RESULTS.md; rows of a GPU,
which gpu.py has measured, are kept. `bench.py --only NAME …` runs some parts and writes nothing.
"""
import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from av.video.reformatter import VideoReformatter
from csv_files import replace_device, write_table
from loops import (
    BATCH,
    Size,
    accuracy_on_real_clips,
    iteration_flop,
    make_condenser,
    measure_evaluation,
    measure_insertion,
    measure_iterations,
    measure_real_forward,
    random_clips,
    run_iteration,
)
from reference import ReferenceCondenser
from timing import (
    CPU_SHAPES,
    ROUNDS,
    Results,
    compute_in_float32,
    interleave,
    measure_ceilings,
    measure_seconds,
    precisions,
)
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import conv3d, cross_entropy, pad
from tqdm import tqdm

from prism_nb.condensation import Condenser, video_gradient
from prism_nb.core.process import cpu_name, get_device, malloc_keep_freed, peak_memory_mb, reset_peak_memory
from prism_nb.core.rng import seeded_generator
from prism_nb.data.cache import decode_all
from prism_nb.data.clips import Clips
from prism_nb.data.datasets import load
from prism_nb.data.folders import from_folder
from prism_nb.data.verify import probe_index
from prism_nb.data.video import ClipSampling, ResizeCrop, write_video
from prism_nb.networks import autocast_precision, build, reset_parameters
from prism_nb.recipe import make_recipe
from prism_nb.study.profiles import get_config
from prism_nb.study.runner import get_records_by_row
from prism_nb.study.runs import make_runs
from prism_nb.study.statistics import paired_interval

CORES = os.cpu_count()
LARGE, SMALL = Size(16, 112, classes=2), Size(8, 64, classes=8)   # the paper's miniUCF has 50 classes


@dataclass
class Measurements(Results):
    """Rows of the CSV files."""

    scaling: list = field(default_factory=list)
    numerics: list = field(default_factory=list)


def ceilings(results):
    """Measure the limits of the machine."""
    measure_ceilings(results, CPU_SHAPES, 2**26)


def iterations(results):
    """Measure iterations of both sizes, and what PRISM adds to them."""
    for size in (LARGE, SMALL):
        measure_insertion(results, measure_iterations(results, size), size)


def real_forward(results):
    """Measure the forward pass of the real clips of a class."""
    measure_real_forward(results, LARGE)


# Variants that were tried and are not used

def space_to_depth(x):
    """Fold blocks of 2×2 pixels into channels: (B,C,T,H,W) → (B,4·C,T,H/2,W/2)."""
    blocks = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))
    return blocks.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)


def first_layer(results, dtype):
    """Compare the first layer with one whose channels are blocks of 2×2 pixels."""
    frames, size = LARGE.frames, LARGE.pixels
    options = dict(device=get_device(), dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    x = torch.randn(16, 3, frames, size, size, **options).to(memory_format=torch.channels_last_3d)
    weight = torch.randn(64, 3, 3, 7, 7, **options).to(memory_format=torch.channels_last_3d)
    folded_weight = space_to_depth(pad(weight, (0, 1, 0, 1)))
    def plain():
        return conv3d(x, weight, stride=(1, 2, 2), padding=(1, 3, 3))
    def folded():
        return conv3d(space_to_depth(pad(x, (3, 3, 3, 3))), folded_weight, padding=(1, 0, 0))
    assert (plain() - folded()).abs().max() < 0.02 * plain().abs().max()
    times = interleave(dict(plain=plain, folded=folded), desc="first layer")
    results.add("first-layer-16x112", dtype, times["plain"])
    results.add("first-layer-16x112-space-to-depth", dtype, times["folded"], times["plain"])


def batched_networks(results):
    """Compare the gradients of four networks one by one with one batched computation."""
    device = get_device()
    videos, labels = torch.randn(10, 8, 3, 48, 48, device=device), torch.arange(10, device=device)
    models = [build("minic3d", 10, 8, 48, 0.25, seeded_generator(i)).to(device).eval() for i in range(4)]
    weights, _ = stack_module_state(models)
    gradient = vmap(grad(lambda w: cross_entropy(functional_call(models[0], w, (videos,)), labels)))
    def one_by_one():
        for model in models:
            torch.autograd.grad(cross_entropy(model(videos), labels), [*model.parameters()])
    times = interleave(dict(one=one_by_one, together=lambda: gradient(weights)), desc="networks together")
    results.add("train-4-networks-one-by-one", "float32", times["one"])
    results.add("train-4-networks-together", "float32", times["together"], times["one"])


def rejected_variants(results):
    """Measure what was tried and is not used."""
    for dtype in precisions():
        first_layer(results, dtype)
    batched_networks(results)


# Evaluation

def load_motionshapes(crop):
    """Load MotionShapes at 8 frames."""
    return load("motionshapes", sampling=ClipSampling(8, 4), crop=crop)


def evaluations(results):
    """Measure an evaluation at full width on 8×64×64: 500 epochs and one test, of which one each is timed."""
    clips = load_motionshapes(ResizeCrop((64, 64), 64))
    for vpc in (1, 10):
        measure_evaluation(results, clips, vpc)


# Decoding

def decode_plainly(path, sampling, crop, convert):
    """Decode the centre clip of a video in one thread; one reformatter resizes as it converts."""
    height, width = crop.resize
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        packets = list(container.demux(stream))
        indices = sampling.indices(sum(packet.size > 0 for packet in packets))[0].tolist()
        frames = []
        for t, frame in enumerate(frame for packet in packets for frame in packet.decode()):
            if t == indices[len(frames)]:
                frames.append(convert.reformat(frame, width=width, height=height, format="rgb24").to_ndarray())
            if len(frames) == len(indices):
                break
    return np.stack(frames)[:, 4:116, 24:136]


def decode_reference(paths, sampling, crop):
    """Decode videos one after the other."""
    convert = VideoReformatter()
    return [decode_plainly(path, sampling, crop, convert) for path in paths]


def decode_to_cache(index, folder, sampling, crop, decoder, threads):
    """Decode videos as the cache does, to disk."""
    with tempfile.TemporaryDirectory() as out:
        assert not any(decode_all(index, folder, sampling, crop, decoder, threads, Path(out)))


def write_film(path, seed, frames=180, height=240, width=320):
    """Write a film of UCF101's size and usual length: a texture that moves, with noise."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 256, (height // 8 + 60, width // 8 + 60, 3)).repeat(8, 0).repeat(8, 1)
    film = []
    for t in range(frames):
        picture = texture[t : t + height, 2 * t : 2 * t + width] + rng.integers(-6, 7, (height, width, 1))
        film.append(np.clip(picture, 0, 255).astype(np.uint8))
    write_video(path, np.stack(film))


NUM_FILMS = 32   # that are decoded


def decoding(results):
    """Measure decoding of 320×240 files into the cache, on disk; the reference does not write."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("avi", "mp4"):
            paths = [Path(folder) / f"{i}.{suffix}" for i in range(NUM_FILMS)]
            for i, path in enumerate(tqdm(paths, f"films {suffix}", leave=False)):
                write_film(path, i)
            decode_films(results, paths, suffix)


def decode_films(results, paths, suffix):
    """Measure decoding of films, per film."""
    sampling, crop = ClipSampling(16, 4), ResizeCrop()
    index = pd.DataFrame(dict(path=[path.name for path in paths], split="test"))
    cached = partial(decode_to_cache, index, paths[0].parent, sampling, crop)
    calls = {
        "-reference": lambda: decode_reference(paths, sampling, crop),
        "": lambda: cached("pyav", CORES),
        "-one-thread": lambda: cached("pyav", 1),
        "-decord": lambda: cached("decord", CORES),
    }
    measured = interleave(calls, desc=f"decode {suffix}")
    times = {name: [seconds / len(paths) for seconds in taken] for name, taken in measured.items()}
    reference = times.pop("-reference")
    results.add(f"decode-{suffix}-reference", "uint8", reference, device="cpu")
    for name, taken in times.items():
        results.add(f"decode-{suffix}{name}", "uint8", taken, reference, device="cpu")


# Scaling

BASE = dict(classes=4, vpc=1, frames=8, size=64)
AXES = dict(classes=(2, 4, 8, 16), vpc=(1, 2, 4, 8), frames=(8, 16, 32), size=(48, 64, 96, 128))


def scale_iteration(classes, vpc, frames, size):
    """Measure a PRISM iteration at half the width with 16 real clips: median seconds, and those of the targets."""
    clips = random_clips(classes, 16, frames, size)
    condenser = make_condenser(clips, "prism", "float32", vpc, 0.5, 16)
    total, targets = [], []
    for _ in range(ROUNDS + 1):
        before = condenser.targets.seconds
        total.append(measure_seconds(lambda: run_iteration(condenser)))
        targets.append(condenser.targets.seconds - before)
    return statistics.median(total[1:]), statistics.median(targets[1:])


def scaling(results):
    """Measure a PRISM iteration while one quantity is changed at a time."""
    for axis, values in AXES.items():
        for value in values:
            total, targets = scale_iteration(**BASE | {axis: value})
            results.scaling.append(dict(along=axis, value=value, seconds=total, real_side=targets))
            print(f"{axis} {value}: {total:.3f} s, targets {targets:.3f} s", flush=True)


# Lower precision

def add_numerics(results, what, dtype, values):
    """Add a row to numerics.csv."""
    mean, sd = statistics.mean(values), statistics.stdev(values)
    results.numerics.append(dict(what=what, dtype=dtype, mean=mean, sd=sd, n=len(values)))
    print(results.numerics[-1], flush=True)


def relative_error(a, b):
    """Compute ‖a − b‖ / ‖b‖."""
    return ((a - b).norm() / b.norm()).item()


def first_condenser(clips, precision, seed):
    """Make a condenser of DM at its first iteration, with the targets computed."""
    condenser = Condenser(clips, make_recipe("dm", batch_real=BATCH, precision=precision), seed)
    targets = condenser.targets
    reset_parameters(condenser.network, condenser.rng("network"))
    targets._block = 0, torch.stack([targets.compute(0, label) for label in condenser.labels])[None]
    return condenser


def precision_errors(clips, dtype, seed):
    """Compute relative errors: of the targets, of the pixels' gradient, and of it with the videos in `dtype`, too."""
    full, half = (first_condenser(clips, precision, seed) for precision in ("float32", dtype))
    full_targets, half_targets = (condenser.targets._block[1] for condenser in (full, half))
    full_gradient, half_gradient = (video_gradient(c, c.parameters.sample(None))[1] for c in (full, half))
    videos = half.parameters.sample(None).detach().requires_grad_()
    with autocast_precision(dtype):
        embedded = half.network.embed(videos)
    loss = (embedded.float() - half_targets[0].flatten(0, 1)).square().sum()
    gradient, = torch.autograd.grad(loss, videos)
    return (
        relative_error(half_targets, full_targets),
        relative_error(half_gradient, full_gradient),
        relative_error(gradient, full_gradient),
    )


def gradients_in_lower_precision(results, clips):
    """Measure what lower precision changes in the targets and in the gradient of the pixels."""
    names = (
        "class means, relative error",
        "gradient of the pixels, relative error",
        "the same with the synthetic side in fewer bits too, which is not done",
    )
    for dtype in precisions()[1:]:
        errors = [precision_errors(clips, dtype, seed) for seed in range(5)]
        for name, values in zip(names, zip(*errors)):
            add_numerics(results, name, dtype, values)


def numerics(results):
    """Measure what lower precision changes: targets, the gradient of the pixels, accuracy over many networks."""
    clips = load_motionshapes(ResizeCrop((48, 64), 48))
    gradients_in_lower_precision(results, clips)
    what = "top-1 after 100 epochs on one real clip a class, MotionShapes, quarter width"
    for name in ("reference", *precisions()):
        seeds = tqdm(range(8), f"accuracy {name}", leave=False)
        add_numerics(results, what, name, [accuracy_on_real_clips(clips, name, seed) for seed in seeds])


def condensed_in_lower_precision(results):
    """Evaluate PRISM's sets whose targets were computed in bfloat16: runs of Table 1 in the quick profile."""
    config = get_config("quick", "motionshapes")
    rows = {dtype: make_runs(config, ["prism"], precision=dtype) for dtype in ("float32", "bfloat16")}
    records = get_records_by_row(rows)
    what = "top-1 of PRISM's sets, VPC 1, MotionShapes, quick profile (3 seeds x 2 networks)"
    for dtype, found in records.items():
        add_numerics(results, what, dtype, [score["top1"] for run in found for score in run["scores"]])
    paired = paired_interval(records["bfloat16"], records["float32"])
    interval = f"95 % interval {paired['low']:.1f} to {paired['high']:.1f}"
    what = f"the same, bfloat16 less float32, paired over seeds, {interval}"
    results.numerics.append(dict(what=what, dtype="", mean=paired["difference"], sd=None, n=paired["seeds"]))


# Memory

def in_own_process(call):
    """Run a call in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


def peak_reference():
    """Measure seconds and peak memory of an iteration of the reference, with two classes."""
    torch.set_num_threads(CORES)
    clips = [torch.randn(100, 16, 3, 112, 112) for _ in range(2)]   # miniUCF has 93 per class
    condenser = ReferenceCondenser(clips, 1, True, BATCH, 1.0)
    return measure_seconds(condenser.step), peak_memory_mb()


TRAIN_CLIPS, TRAIN_CLASSES = 4662, 50   # of miniUCF


def write_random_pixels(path):
    """Write as many pixels as miniUCF's training clips have."""
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (TRAIN_CLIPS, 16, 112, 112, 3))
    for i in range(0, TRAIN_CLIPS, 100):
        shape = (min(100, TRAIN_CLIPS - i), 1, 112, 112, 3)
        pixels[i : i + 100] = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
    pixels.flush()


def map_random_clips(path):
    """Map the pixels as training clips."""
    rows = np.arange(TRAIN_CLIPS)
    return Clips(
        pixels=np.load(path, mmap_mode="r"),
        offsets=rows,
        num_clips=np.ones(TRAIN_CLIPS, int),
        labels=np.sort(rows % TRAIN_CLASSES),
        split=np.full(TRAIN_CLIPS, "train"),
        source_videos=rows.astype(str),
        class_names=[f"c{i:02d}" for i in range(TRAIN_CLASSES)],
        skipped=pd.DataFrame(columns=["path", "reason"]),
        content_hash="made up",
    )


def peak_miniucf():
    """Measure one iteration of PRISM in bfloat16 at miniUCF's size, after every clip has been read."""
    torch.set_num_threads(CORES)
    malloc_keep_freed()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.npy"
        write_random_pixels(path)
        reset_peak_memory()
        clips = map_random_clips(path)
        condenser = make_condenser(clips, "prism", "bfloat16")
        for label in range(TRAIN_CLASSES):
            for indices in np.array_split(clips.indices_of_class(label), 2):
                clips.batch(indices)
        return measure_seconds(lambda: run_iteration(condenser)), peak_memory_mb()


def memory(results):
    """Measure peak memory of the reference and of an iteration of PRISM at miniUCF's size."""
    seconds, peak = in_own_process(peak_reference)
    results.add("peak-two-classes-reference", "float32", [seconds], peak=peak, device="cpu")
    seconds, peak = in_own_process(peak_miniucf)
    flop = iteration_flop(LARGE.with_classes(50))
    results.add("prism-iteration-16x112-50-classes", "bfloat16", [seconds], peak=peak, flop=flop)


# Large data sets

def peak_cache():
    """Measure decoding of 3,000 videos of 320×240 with three clips each, 5.4 GB."""
    malloc_keep_freed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(8):
            write_film(folder / f"{i}.avi", i)
        index = pd.DataFrame(dict(path=[f"{i % 8}.avi" for i in range(3000)], split="train"))
        sampling = ClipSampling(16, 4, num_clips=3)
        reset_peak_memory()
        seconds = measure_seconds(lambda: decode_all(index, folder, sampling, ResizeCrop(), "pyav", CORES, folder))
        return seconds, peak_memory_mb()


def large_data_sets(results):
    """Measure listing 100,000 empty files, reading their headers, and the memory that decoding takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for c in range(100):
            (folder / f"class {c}").mkdir()
            for i in range(1000):
                (folder / f"class {c}" / f"{i}.mp4").touch()
        calls = {
            "names": lambda: from_folder(folder),
            "headers": lambda: probe_index(from_folder(folder)[["path"]], folder),
        }
        times = interleave(calls, 3, "index")
    results.add("index-100000-names", "uint8", times["names"], device="cpu")
    results.add("index-100000-names-and-headers", "uint8", times["headers"], device="cpu")
    seconds, peak = in_own_process(peak_cache)
    results.add("cache-of-3000-videos", "uint8", [seconds], peak=peak, device="cpu")


# All parts

PARTS = [
    ceilings,
    real_forward,
    iterations,
    rejected_variants,
    evaluations,
    decoding,
    scaling,
    numerics,
    condensed_in_lower_precision,
    memory,
    large_data_sets,
]


def save(results, started):
    """Write what has been measured so far."""
    minutes = round((time.time() - started) / 60, 1)
    machine = dict(device="cpu", machine=f"{cpu_name()}, {CORES} cores", torch=torch.__version__, minutes=minutes)
    replace_device("results", "cpu", results.rows)
    replace_device("machine", "cpu", [machine])
    for name in ("scaling", "numerics"):
        write_table(name, pd.DataFrame(getattr(results, name)))


def main():
    """Run all parts and save their results after each, or run some parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS])
    only = parser.parse_args().only
    os.environ["PRISM_DEVICE"] = "cpu"
    torch.set_num_threads(CORES)
    compute_in_float32()
    results, started = Measurements(), time.time()
    for part in PARTS:
        if only and part.__name__ not in only and part is not ceilings:
            continue
        print(f"[{time.time() - started:5.0f} s] {part.__name__}", flush=True)
        part(results)
        if not only:
            save(results, started)


if __name__ == "__main__":
    main()
