"""Measure what everything costs, compared with the plain loop of reference.py and with the limits of the machine.

Alternatives are timed in alternation, so that a slow minute of the machine affects all of them. The parts write
results.csv, scaling.csv and numerics.csv, from which page.py writes RESULTS.md. `bench.py --only NAME …` runs some
parts and writes nothing.
"""
import argparse
import ctypes
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from av.video.reformatter import VideoReformatter
from reference import ReferenceCondenser, ReferenceEvaluator, build_features, embed
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import conv3d, cross_entropy, pad
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from prism_nb.condensation import Condenser, video_gradient
from prism_nb.condensed import CondensedSet
from prism_nb.core.process import (
    cpu_name,
    get_device,
    malloc_keep_freed,
    malloc_trim,
    peak_memory_mb,
    reset_peak_memory,
)
from prism_nb.core.rng import fork_rng_at, seeded_generator
from prism_nb.data.cache import decode_all
from prism_nb.data.clips import Clips, from_array
from prism_nb.data.datasets import load
from prism_nb.data.folders import from_folder
from prism_nb.data.verify import probe_index
from prism_nb.data.video import ClipSampling, ResizeCrop, write_video
from prism_nb.evaluation import TrainConfig, evaluate, predict, shuffled_batches, train_epoch
from prism_nb.networks import MiniC3D, autocast_precision, build, reset_parameters
from prism_nb.recipe import make_recipe
from prism_nb.study.profiles import get_config
from prism_nb.study.runner import get_records_by_row
from prism_nb.study.runs import make_runs
from prism_nb.study.statistics import paired_interval

HERE = Path(__file__).parent
ROUNDS = 5
GPU = get_device().type == "cuda"
CORES = os.cpu_count()
CLASSES = {"16x112": 50 if GPU else 2, "8x64": 50 if GPU else 8}   # of an iteration; the paper's miniUCF has 50
SIZES = {"16x112": (16, 112), "8x64": (8, 64)}                     # frames, pixels
BATCH = 64                                                         # real clips per class
RESULTS, SCALING, NUMERICS = [], [], []                            # rows of the CSV files
CEILING = {}                                                       # dtype → FLOP per second of a matrix product


# Timing

def measure_seconds(call):
    """Measure the seconds of one call."""
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


GLIBC_DEFAULTS = {-1: 128 * 1024, -4: 65536}   # M_TRIM_THRESHOLD, M_MMAP_MAX


def reset_malloc():
    """Return freed memory to the system and restore glibc's defaults, under which the reference runs."""
    malloc_trim()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for option, value in GLIBC_DEFAULTS.items():
            libc.mallopt(option, value)


def interleave(calls, rounds=ROUNDS, desc=""):
    """Measure the seconds of every alternative, `rounds` times each after a warm-up, in alternation."""
    times = {name: [] for name in calls}
    for i in tqdm(range(rounds + 1), desc, leave=False):
        for name, call in calls.items():
            if "reference" in name:
                reset_malloc()
            else:
                malloc_keep_freed()
            seconds = measure_seconds(call)
            if i:
                times[name].append(seconds)
    return times


def record(name, dtype, times, reference=None, flop=0, peak=None, device=None):
    """Add a row to results.csv."""
    median = statistics.median(times)
    low, high = np.percentile(times, [25, 75])
    row = dict(
        name=name,
        device=device or get_device().type,
        dtype=dtype,
        seconds_median=median,
        seconds_iqr=high - low,
        ratio_to_reference=statistics.median(reference) / median if reference else None,
        share_of_ceiling=flop / median / CEILING[dtype] if flop else None,
        peak_mb=peak,
    )
    RESULTS.append(row)
    ratios = [f"{key} {row[key]:.2f}" for key in ("ratio_to_reference", "share_of_ceiling") if row[key]]
    print(f"{name:34s} {dtype:9s} {median:9.4f} s", *ratios, flush=True)


def dtypes():
    """List the precisions that this device compares."""
    return ("float32", "tf32", "bfloat16") if GPU else ("float32", "bfloat16")


# The limits of the machine

def matmul_times(dtype, m, k, n):
    """Measure the seconds of a matrix product (m,k) × (k,n)."""
    element = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a, b = (torch.randn(shape, device=get_device(), dtype=element) for shape in ((m, k), (k, n)))
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    times = interleave({"": lambda: a @ b}, 9)[""]
    torch.backends.cuda.matmul.allow_tf32 = False
    return times


def ceilings():
    """Measure a matrix product, the fastest of four shapes, and a copy."""
    squares = [(n, n, n) for n in ((4096, 8192) if GPU else (1024, 2048))]
    for dtype in dtypes():
        times = {shape: matmul_times(dtype, *shape) for shape in [*squares, (8192, 2048, 512), (65536, 1024, 128)]}
        rates = {(m, k, n): 2 * m * k * n / statistics.median(taken) for (m, k, n), taken in times.items()}
        best = max(rates, key=rates.get)
        CEILING[dtype] = rates[best]
        record(f"ceiling-matmul-{'x'.join(map(str, best))}", dtype, times[best], flop=2 * np.prod(best, dtype=float))
    source = torch.ones(2**28 if GPU else 2**26, device=get_device())
    target = torch.empty_like(source)
    times = interleave({"": lambda: target.copy_(source)}, 9)[""]
    record(f"ceiling-copy-of-{source.nbytes // 2**20}-MB", "float32", times)


# Iterations

def random_clips(classes, clips, frames, size):
    """Make clips of noise, as many in training as in test: an iteration costs the same whatever they show."""
    shape = (2 * classes * clips, frames, size, size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded_generator("made up"))
    labels = np.repeat(np.arange(classes), 2 * clips).tolist()
    return from_array(pixels.numpy(), labels, [f"c{i:02d}" for i in range(classes)])


def make_condenser(clips, method, precision, vpc=1, width=1.0, batch=BATCH):
    """Make a condenser whose every iteration may insert frames."""
    settings = dict(iterations=10**6, warmup=0.0, lr=1e-3)
    recipe = make_recipe(method, vpc=vpc, batch_real=batch, width=width, precision=precision, **settings)
    return Condenser(clips, recipe, 0)


def run_iteration(condenser):
    """Do one iteration whose targets are computed instead of read from the cache."""
    targets = condenser.targets
    reset_parameters(condenser.network, condenser.rng("network"))
    computed = torch.stack([targets.compute(condenser.iteration, label) for label in condenser.labels])
    targets._block = condenser.iteration // targets.BLOCK, computed[None].expand(targets.BLOCK, *computed.shape)
    condenser.step()


def clip_flop(frames, size):
    """Count the FLOP of a clip's forward pass through miniC3D; elementwise operations are not counted."""
    with torch.device("meta"):
        network, videos = MiniC3D(2, frames, size), torch.empty(1, frames, 3, size, size)
        with FlopCounterMode(display=False) as counter:
            network.embed(videos)
    return counter.get_total_flops()


def iteration_flop(classes, frames, size, vpc=1):
    """Count the FLOP of an iteration: real clips forward, videos forward and backward to their pixels."""
    return classes * (BATCH + 2 * vpc) * clip_flop(frames, size)


def iterations():
    """Measure one iteration of DM and of PRISM, of the reference and of this package."""
    for size, (frames, pixels) in SIZES.items():
        classes = CLASSES[size]
        clips = random_clips(classes, BATCH, frames, pixels)
        preloaded = [clips.train.videos(clips.train.indices_of_class(c)) for c in range(classes)]
        calls = {}
        for method in ("dm", "prism"):
            reference = ReferenceCondenser(preloaded, 1, method == "prism", BATCH, 1.0, get_device())
            calls[method, "reference"] = reference.step
            for dtype in dtypes():
                calls[method, dtype] = partial(run_iteration, make_condenser(clips, method, dtype))
        times = interleave(calls, desc=f"iterations {size}")
        for (method, what), taken in times.items():
            name = f"{method}-iteration-{size}"
            if what == "reference":
                record(f"{name}-reference", "float32", taken)
            else:
                record(name, what, taken, times[method, "reference"], iteration_flop(classes, frames, pixels))
        interpolation_and_insertion(clips, size)


def interpolation_and_insertion(clips, size):
    """Measure what PRISM adds: interpolation, its backward pass, and insertion, from two key frames per video."""
    condenser = make_condenser(clips, "prism", "float32")
    parameters = condenser.parameters
    start = {name: value.clone() for name, value in parameters.state_dict().items()}
    gradient = torch.randn(start["frames"].shape, device=get_device())
    def call():
        parameters.load_state_dict(start)
        parameters.sample(None).backward(gradient)
        for label in condenser.labels:
            rows = condenser.class_slice(label)
            parameters.insert_frames(rows, gradient[rows], seeded_generator(label))
        condenser.optimizer.zero_grad()
    record(f"interpolation-and-insertion-{size}", "float32", interleave({"": call})[""])


def embed_in_precision(network, clips, precision):
    """Embed the first `BATCH` clips, 16 at a time."""
    with autocast_precision(precision):
        for chunk in clips.batch(range(BATCH)).split(16):
            network.embed(chunk)


def real_forward():
    """Measure the forward pass of the real clips of a class, which is most of an iteration."""
    frames, size = SIZES["16x112"]
    clips = random_clips(1, BATCH, frames, size).train
    features = build_features(1.0).to(get_device())
    stacked = ReferenceCondenser([clips.videos()], 1, False, BATCH, 1.0, get_device()).sample_real(0)
    calls = {"reference": lambda: embed(features, stacked)}
    for dtype in dtypes():
        network = build("minic3d", 2, frames, size).to(get_device()).requires_grad_(False)
        calls[dtype] = partial(embed_in_precision, network, clips, dtype)
    with torch.no_grad():
        times = interleave(calls, desc="real forward")
    flop = BATCH * clip_flop(frames, size)
    reference = times.pop("reference")
    record("real-forward-16x112-reference", "float32", reference, flop=flop)
    for dtype, taken in times.items():
        record("real-forward-16x112", dtype, taken, reference, flop)


# Variants that were tried and are not used

def space_to_depth(x):
    """Fold blocks of 2×2 pixels into channels: (B,C,T,H,W) → (B,4·C,T,H/2,W/2)."""
    blocks = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))
    return blocks.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)


def first_layer(dtype):
    """Compare the first layer with one whose channels are blocks of 2×2 pixels."""
    frames, size = SIZES["16x112"]
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
    record("first-layer-16x112", dtype, times["plain"])
    record("first-layer-16x112-space-to-depth", dtype, times["folded"], times["plain"])


def batched_networks():
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
    record("train-4-networks-one-by-one", "float32", times["one"])
    record("train-4-networks-together", "float32", times["together"], times["one"])


def rejected_variants():
    """Measure what was tried and is not used."""
    for dtype in dtypes():
        first_layer(dtype)
    batched_networks()


# Evaluation

def load_motionshapes(crop):
    """Load MotionShapes at 8 frames."""
    return load("motionshapes", sampling=ClipSampling(8, 4), crop=crop)


def pack_dense(videos, labels, class_names):
    """Pack dense videos as a condensed set."""
    is_key = torch.ones(videos.shape[:2], dtype=torch.bool)
    return CondensedSet.from_frames(videos, is_key, labels, class_names)


def reference_evaluator(videos, labels, clips, width):
    """Make the reference for training on videos and testing on clips."""
    test_labels = torch.from_numpy(clips.test.labels)
    return ReferenceEvaluator(videos, labels, clips.test.videos(), test_labels, 256, width, get_device())


def evaluation_calls(videos, labels, clips):
    """List the calls that train for one epoch and that test: (who, what) → call."""
    reference = reference_evaluator(videos, labels, clips, 1.0)
    calls = {("reference", "epoch"): reference.epoch, ("reference", "test"): reference.test}
    condensed = pack_dense(videos, labels, clips.class_names)
    for dtype in dtypes():
        model = build("minic3d", 10, 8, 64).to(get_device())
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
        batches = shuffled_batches(condensed, 256)
        def epoch(model=model, optimizer=optimizer, batches=batches, dtype=dtype):
            train_epoch(model.train(), optimizer, batches(seeded_generator(0)), dtype)
        calls[dtype, "epoch"] = epoch
        calls[dtype, "test"] = partial(predict, model, clips.test, precision=dtype)
    return calls


def evaluations():
    """Measure an evaluation at full width on 8×64×64: 500 epochs and one test, of which one each is timed."""
    clips = load_motionshapes(ResizeCrop((64, 64), 64))
    for vpc in (1, 10):
        chosen = np.concatenate([clips.train.indices_of_class(c)[:vpc] for c in range(10)])
        videos, labels = clips.train.videos(chosen), torch.from_numpy(clips.train.labels[chosen])
        times = interleave(evaluation_calls(videos, labels, clips), desc=f"evaluation vpc {vpc}")
        def total(who, times=times):
            return [500 * epoch + test for epoch, test in zip(times[who, "epoch"], times[who, "test"])]
        record(f"evaluate-vpc{vpc}-reference", "float32", total("reference"))
        for dtype in dtypes():
            record(f"evaluate-vpc{vpc}", dtype, total(dtype), total("reference"))


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


def decoding():
    """Measure decoding of 320×240 files into the cache, on disk; the reference does not write."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("avi", "mp4"):
            paths = [Path(folder) / f"{i}.{suffix}" for i in range(NUM_FILMS)]
            for i, path in enumerate(tqdm(paths, f"films {suffix}", leave=False)):
                write_film(path, i)
            decode_films(paths, suffix)


def decode_films(paths, suffix):
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
    record(f"decode-{suffix}-reference", "uint8", reference, device="cpu")
    for name, taken in times.items():
        record(f"decode-{suffix}{name}", "uint8", taken, reference, device="cpu")


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


def scaling():
    """Measure a PRISM iteration while one quantity is changed at a time."""
    for axis, values in AXES.items():
        for value in values:
            total, targets = scale_iteration(**BASE | {axis: value})
            SCALING.append(dict(along=axis, value=value, seconds=total, real_side=targets))
            print(f"{axis} {value}: {total:.3f} s, targets {targets:.3f} s", flush=True)


# Lower precision

def add_numerics(what, dtype, values):
    """Add a row to numerics.csv."""
    mean, sd = statistics.mean(values), statistics.stdev(values)
    NUMERICS.append(dict(what=what, dtype=dtype, mean=mean, sd=sd, n=len(values)))
    print(NUMERICS[-1], flush=True)


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


def gradients_in_lower_precision(clips):
    """Measure what lower precision changes in the targets and in the gradient of the pixels."""
    names = (
        "class means, relative error",
        "gradient of the pixels, relative error",
        "the same with the synthetic side in fewer bits too, which is not done",
    )
    for dtype in dtypes()[1:]:
        errors = [precision_errors(clips, dtype, seed) for seed in range(5)]
        for name, values in zip(names, zip(*errors)):
            add_numerics(name, dtype, values)


def reference_accuracy(videos, labels, clips, seed, epochs=100):
    """Train the reference's network on videos and test it; the learning rate falls half-way."""
    with fork_rng_at(seed):
        evaluator = reference_evaluator(videos, labels, clips, 0.25)
        for epoch in range(epochs):
            for group in evaluator.optimizer.param_groups:
                group["lr"] = 0.01 if epoch < epochs // 2 else 0.001
            evaluator.epoch()
        return evaluator.test()


def accuracy_on_real_clips(clips, name, seed):
    """Train on one real clip per class, in the reference or in a precision, and test."""
    chosen = [int(clips.train.indices_of_class(c)[seed]) for c in range(10)]
    videos, labels = clips.train.videos(chosen), torch.arange(10)
    if name == "reference":
        return reference_accuracy(videos, labels, clips, seed)
    config = TrainConfig(100, width=0.25, precision=name)
    return evaluate(pack_dense(videos, labels, clips.class_names), clips, seed=seed, config=config).top1


def numerics():
    """Measure what lower precision changes: targets, the gradient of the pixels, accuracy over many networks."""
    clips = load_motionshapes(ResizeCrop((48, 64), 48))
    gradients_in_lower_precision(clips)
    what = "top-1 after 100 epochs on one real clip a class, MotionShapes, quarter width"
    for name in ("reference", *dtypes()):
        seeds = tqdm(range(8), f"accuracy {name}", leave=False)
        add_numerics(what, name, [accuracy_on_real_clips(clips, name, seed) for seed in seeds])


def condensed_in_lower_precision():
    """Evaluate PRISM's sets whose targets were computed in bfloat16: runs of Table 1 in the quick profile."""
    config = get_config("quick", "motionshapes")
    rows = {dtype: make_runs(config, ["prism"], precision=dtype) for dtype in ("float32", "bfloat16")}
    records = get_records_by_row(rows)
    what = "top-1 of PRISM's sets, VPC 1, MotionShapes, quick profile (3 seeds x 2 networks)"
    for dtype, found in records.items():
        add_numerics(what, dtype, [score["top1"] for run in found for score in run["scores"]])
    paired = paired_interval(records["bfloat16"], records["float32"])
    interval = f"95 % interval {paired['low']:.1f} to {paired['high']:.1f}"
    what = f"the same, bfloat16 less float32, paired over seeds, {interval}"
    NUMERICS.append(dict(what=what, dtype="", mean=paired["difference"], sd=None, n=paired["seeds"]))


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


def memory():
    """Measure peak memory of the reference and of an iteration of PRISM at miniUCF's size."""
    seconds, peak = in_own_process(peak_reference)
    record("peak-two-classes-reference", "float32", [seconds], peak=peak, device="cpu")
    seconds, peak = in_own_process(peak_miniucf)
    flop = iteration_flop(50, *SIZES["16x112"])
    record("prism-iteration-16x112-50-classes", "bfloat16", [seconds], peak=peak, flop=flop)


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


def large_data_sets():
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
    record("index-100000-names", "uint8", times["names"], device="cpu")
    record("index-100000-names-and-headers", "uint8", times["headers"], device="cpu")
    seconds, peak = in_own_process(peak_cache)
    record("cache-of-3000-videos", "uint8", [seconds], peak=peak, device="cpu")


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


def save(started):
    """Write what has been measured so far."""
    machine = torch.cuda.get_device_name() if GPU else f"{cpu_name()}, {CORES} cores"
    minutes = round((time.time() - started) / 60, 1)
    about = dict(machine=machine, torch=torch.__version__, minutes=minutes)
    for name, rows in dict(results=RESULTS, scaling=SCALING, numerics=NUMERICS, machine=[about]).items():
        pd.DataFrame(rows).to_csv(HERE / f"{name}.csv", index=False, float_format="%.5g")


def main():
    """Run all parts and save their results after each, or run some parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS])
    only = parser.parse_args().only
    torch.set_num_threads(CORES)
    started = time.time()
    for part in PARTS:
        if only and part.__name__ not in only and part is not ceilings:
            continue
        print(f"[{time.time() - started:5.0f} s] {part.__name__}", flush=True)
        part()
        if not only:
            save(started)


if __name__ == "__main__":
    main()
