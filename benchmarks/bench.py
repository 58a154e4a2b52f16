"""What everything costs, in one run: against the plain loop of reference.py, and against what the machine can do.

Alternatives are timed in turns, so that a slow minute of the machine hits all of them. Writes results.csv, scaling.csv
and numerics.csv; page.py makes RESULTS.md of them. `bench.py --only NAME …` runs some parts, and is for trying things.
"""
import argparse
import ctypes
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from av.video.reformatter import VideoReformatter
from prism_nb.condensation import BLOCK, Condenser
from prism_nb.condensed import condensed_from
from prism_nb.core.paths import data_dir
from prism_nb.core.process import cpu_name, get_device, malloc_keep_freed, malloc_trim, peak_memory_mb, reset_peak_memory
from prism_nb.core.rng import fork_rng_at, seeded_generator
from prism_nb.data import annotations, motionshapes, verify
from prism_nb.data.cache import decode_all
from prism_nb.data.clips import Clips, from_array
from prism_nb.data.datasets import load
from prism_nb.data.video import ClipSampling, ResizeCrop, write_video
from prism_nb.evaluation import TrainConfig, evaluate, predict, shuffled_batches, train_epoch
from prism_nb.networks import MiniC3D, autocast_precision, build, reset_parameters
from prism_nb.recipe import make_recipe
from prism_nb.study import profiles, runner, runs, statistics
from reference import Judge, Loop, embed, features_of
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import conv3d as conv3d_of
from torch.nn.functional import cross_entropy, pad
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

HERE, ROUNDS = Path(__file__).parent, 5
GPU = get_device().type == "cuda"
CLASSES = {"16x112": 50 if GPU else 2, "8x64": 50 if GPU else 8}   # of an iteration; the paper's miniUCF has 50
SIZES = {"16x112": (16, 112), "8x64": (8, 64)}
BATCH = 64   # real clips a class
ROWS, LINES, NUMERICS = [], [], []
CEILING = {}   # dtype → FLOP a second of a matrix product


def seconds(call):
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


LIBRARYS_OWN = {-1: 128 * 1024, -4: 65536}   # what glibc does with freed memory, unless it is told otherwise


def own_memory():
    """Treat freed memory as glibc does by itself, as the plain loop runs."""
    malloc_trim()
    if hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        for option, value in LIBRARYS_OWN.items():
            libc.mallopt(option, value)


def in_turns(calls, rounds=ROUNDS, desc=""):
    """Seconds of every alternative, `rounds` times each after one that does not count; freed memory is treated as each runs by itself."""
    times = {name: [] for name in calls}
    for i in tqdm(range(rounds + 1), desc, leave=False):
        for name, call in calls.items():
            own_memory() if "reference" in name else malloc_keep_freed()
            taken = seconds(call)
            if i:
                times[name].append(taken)
    return times


def row(name, dtype, times, reference=None, flop=0, peak=None, where=None):
    """Add a line to results.csv."""
    middle, quarters = statistics.median(times), np.percentile(times, [25, 75])
    ROWS.append(dict(name=name, device=where or get_device().type, dtype=dtype, seconds_median=middle, seconds_iqr=quarters[1] - quarters[0],
                     ratio_to_reference=statistics.median(reference) / middle if reference else None,
                     share_of_ceiling=flop / middle / CEILING[dtype] if flop else None, peak_mb=peak))
    print(f"{name:34s} {dtype:9s} {middle:9.4f} s", *[f"{k} {ROWS[-1][k]:.2f}" for k in ("ratio_to_reference", "share_of_ceiling") if ROWS[-1][k]], flush=True)


def dtypes():
    """What is compared on this device."""
    return ("float32", "tf32", "bfloat16") if GPU else ("float32", "bfloat16")


def ceilings():
    """A matrix product, the fastest of four shapes, and a copy."""
    shapes = [(n, n, n) for n in ((4096, 8192) if GPU else (1024, 2048))] + [(8192, 2048, 512), (65536, 1024, 128)]
    for dtype in dtypes():
        best = 0
        for m, k, n in shapes:
            a, b = (torch.randn(s, device=get_device(), dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32) for s in ((m, k), (k, n)))
            torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
            times = in_turns({"": lambda: a @ b}, 9)[""]
            if (rate := 2 * m * k * n / statistics.median(times)) > best:
                best, kept, shape = rate, times, (m, k, n)
        CEILING[dtype] = best
        row(f"ceiling-matmul-{'x'.join(map(str, shape))}", dtype, kept, flop=2 * np.prod(shape, dtype=float))
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.ones(2**28 if GPU else 2**26, device=get_device())
    target = torch.empty_like(source)
    times = in_turns({"": lambda: target.copy_(source)}, 9)[""]
    row("ceiling-copy-of-%d-MB" % (source.nbytes // 2**20), "float32", times)


def made_up(classes, clips, frames, size):
    """Clips of noise: an iteration costs the same whatever they show."""
    array = torch.randint(0, 256, (2 * classes * clips, frames, size, size, 3), dtype=torch.uint8, generator=seeded_generator("made up")).numpy()
    return from_array(array, np.repeat(np.arange(classes), 2 * clips).tolist(), [f"c{i:02d}" for i in range(classes)])   # every second is for testing


def iteration(run):
    """One iteration, its real side computed and not read."""
    reset_parameters(run.network, run.rng("network"))
    wanted = torch.stack([run.compute_target(run.iteration, label) for label in run.labels])
    run._target_block = run.iteration // BLOCK, wanted[None].expand(BLOCK, *wanted.shape)
    run.step()


def work(clips, method, within, vpc=1, width=1.0, batch=BATCH):
    return Condenser(clips, make_recipe(method, vpc=vpc, iterations=10**6, batch_real=batch, width=width, warmup=0.0, lr=1e-3, precision=within), 0)


def flop_of_clip(frames, size):
    """Of a clip through miniC3D forward; elementwise work is not counted."""
    with torch.device("meta"):
        network, videos = MiniC3D(2, frames, size), torch.empty(1, frames, 3, size, size)
        with FlopCounterMode(display=False) as counted:
            network.embed(videos)
    return counted.get_total_flops()


def flop_of_iteration(classes, frames, size, vpc=1):
    """Of the real clips forward, of the videos forward and back to their pixels."""
    return classes * (BATCH + 2 * vpc) * flop_of_clip(frames, size)


def iterations():
    """One iteration of DM and of PRISM, the plain loop's and ours."""
    for size, (frames, side) in SIZES.items():
        clips = made_up(CLASSES[size], BATCH, frames, side)
        preloaded = [clips.train.videos(clips.train.indices_of_class(c)) for c in range(CLASSES[size])]
        calls, runs = {}, {}
        for method in ("dm", "prism"):
            plain = Loop(preloaded, 1, method == "prism", BATCH, 1.0, get_device())
            calls[method, "reference"] = plain.step
            for within in dtypes():
                run = runs[method, within] = work(clips, method, within)
                calls[method, within] = lambda run=run: iteration(run)
        times = in_turns(calls, desc=f"iterations {size}")
        for (method, what), taken in times.items():
            name = f"{method}-iteration-{size}"
            if what == "reference":
                row(f"{name}-reference", "float32", taken)
            else:
                row(name, what, taken, times[method, "reference"], flop_of_iteration(CLASSES[size], frames, side))
        only_prism(clips, size)


def only_prism(clips, size):
    """What PRISM adds: interpolation with its way back, and insertion, from two key frames a video on."""
    run = work(clips, "prism", "float32")
    start = {name: getattr(run.parameters, name).detach().clone() for name in run.parameters.STATE}
    gradient = torch.randn(start["frames"].shape, device=get_device())
    def added():
        for name, value in start.items():
            getattr(run.parameters, name).data.copy_(value)
        run.parameters.sample(None).backward(gradient)
        for label in run.labels:
            run.parameters.insert_frames(run.rows(label), gradient[run.rows(label)], seeded_generator(label))
        run.optimizer.zero_grad()
    row(f"interpolation-and-insertion-{size}", "float32", in_turns({"": added})[""])


def real_forward():
    """The real clips of a class through the network, without a way back: most of an iteration."""
    frames, side = SIZES["16x112"]
    clips = made_up(1, BATCH, frames, side)
    plain = Loop([clips.train.videos()], 1, False, BATCH, 1.0, get_device())
    features, stacked = features_of(1.0).to(get_device()), plain.real(0)
    with torch.no_grad():
        calls = {"reference": lambda: embed(features, stacked)}
        for within in dtypes():
            network = build("minic3d", 2, frames, side).to(get_device()).requires_grad_(False)
            def call(network=network, within=within):
                with autocast_precision(within):
                    for part in clips.train.batch(range(BATCH)).split(16):
                        network.embed(part)
            calls[within] = call
        times = in_turns(calls, desc="real forward")
    flop = BATCH * flop_of_clip(frames, side)
    row("real-forward-16x112-reference", "float32", times.pop("reference"), flop=flop)
    for within, taken in times.items():
        row("real-forward-16x112", within, taken, times_of("real-forward-16x112-reference"), flop)


def times_of(name):
    return [r["seconds_median"] for r in ROWS if r["name"] == name]


def trials():
    """What was tried and is not used: the first layer on 2×2 pixels as channels, and networks trained as one batched computation."""
    frames, side = SIZES["16x112"]
    for within in dtypes():
        dtype = torch.bfloat16 if within == "bfloat16" else torch.float32
        x = torch.randn(16, 3, frames, side, side, device=get_device(), dtype=dtype).to(memory_format=torch.channels_last_3d)
        weight = torch.randn(64, 3, 3, 7, 7, device=get_device(), dtype=dtype).to(memory_format=torch.channels_last_3d)
        folded = pad(weight, (0, 1, 0, 1)).unflatten(4, (4, 2)).unflatten(3, (4, 2)).permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)
        def plain():
            return conv3d_of(x, weight, stride=(1, 2, 2), padding=(1, 3, 3))
        def deep():
            pixels = pad(x, (3, 3, 3, 3)).unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)
            return conv3d_of(pixels, folded, padding=(1, 0, 0))
        assert (plain() - deep()).abs().max() < 0.02 * plain().abs().max()
        times = in_turns(dict(plain=plain, deep=deep), desc="first layer")
        row("first-layer-16x112", within, times["plain"])
        row("first-layer-16x112-space-to-depth", within, times["deep"], times["plain"])
    videos, labels = torch.randn(10, 8, 3, 48, 48, device=get_device()), torch.arange(10, device=get_device())
    models = [build("minic3d", 10, 8, 48, 0.25, seeded_generator(i)).to(get_device()).eval() for i in range(4)]
    weights, _ = stack_module_state(models)
    gradient = vmap(grad(lambda w: cross_entropy(functional_call(models[0], w, (videos,)), labels)))
    def one_by_one():
        for model in models:
            torch.autograd.grad(cross_entropy(model(videos), labels), [*model.parameters()])
    times = in_turns(dict(one=one_by_one, together=lambda: gradient(weights)), desc="networks together")
    row("train-4-networks-one-by-one", "float32", times["one"])
    row("train-4-networks-together", "float32", times["together"], times["one"])


def shapes(geometry):
    """MotionShapes, made if it is missing, at 8 frames."""
    motionshapes.generate(data_dir() / "motionshapes", **motionshapes.PRESETS["motionshapes"])
    return load("motionshapes", sampling=ClipSampling(8, 4), geometry=geometry)


def evaluations():
    """A network trained for 500 epochs at full width on 8×64×64, and tested: an epoch and a test are timed, the sum is 500 and one."""
    clips = shapes(ResizeCrop((64, 64), 64))
    for vpc in (1, 10):
        chosen = np.concatenate([clips.train.indices_of_class(c)[:vpc] for c in range(10)])
        videos, labels = clips.train.videos(chosen), torch.from_numpy(clips.train.labels[chosen])
        condensed = condensed_from(videos, torch.ones(len(videos), 8, dtype=torch.bool), labels, clips.class_names)
        judge = Judge(videos, labels, clips.test.videos(), torch.from_numpy(clips.test.labels), 256, 1.0, get_device())
        calls = {("reference", "epoch"): judge.epoch, ("reference", "test"): judge.test}
        for within in dtypes():
            model = build("minic3d", 10, 8, 64).to(get_device()).train()
            optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
            batches = shuffled_batches(condensed, 256)
            calls[within, "epoch"] = lambda m=model, o=optimizer, b=batches, w=within: train_epoch(m.train(), o, b(seeded_generator(0)), w)
            calls[within, "test"] = lambda m=model, w=within: predict(m, clips.test, precision=w)
        times = in_turns(calls, desc=f"evaluation vpc {vpc}")
        whole = {what: [500 * e + t for e, t in zip(times[what, "epoch"], times[what, "test"])] for what in ("reference", *dtypes())}
        row(f"evaluate-vpc{vpc}-reference", "float32", whole["reference"])
        for within in dtypes():
            row(f"evaluate-vpc{vpc}", within, whole[within], whole["reference"])


def plain_loop(paths, sampling, geometry):
    """One process, one thread, one reformatter that resizes as it converts."""
    convert, (height, width), out = VideoReformatter(), geometry.resize, []
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            packets = list(container.demux(stream))
            wanted, kept = sampling.indices(sum(packet.size > 0 for packet in packets))[0].tolist(), []
            for t, frame in enumerate(frame for packet in packets for frame in packet.decode()):
                if t == wanted[len(kept)]:
                    kept.append(convert.reformat(frame, width=width, height=height, format="rgb24").to_ndarray())
                if len(kept) == len(wanted):
                    break
        out.append(np.stack(kept)[:, 4:116, 24:136])
    return out


def film(path, seed, frames=180, height=240, width=320):
    """A made-up film of UCF101's size and usual length: a texture that moves, with noise."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 256, (height // 8 + 60, width // 8 + 60, 3)).repeat(8, 0).repeat(8, 1)
    write_video(path, np.stack([np.clip(ground[t:t + height, 2 * t:2 * t + width] + draw.integers(-6, 7, (height, width, 1)), 0, 255).astype(np.uint8) for t in range(frames)]))


def decoding():
    """Files of 320×240 into the cache, which writes to disk, and the plain loop, which does not."""
    sampling, geometry, files = ClipSampling(16, 4), ResizeCrop(), 32
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("avi", "mp4"):
            paths = [Path(folder) / f"{i}.{suffix}" for i in range(files)]
            for i, path in enumerate(tqdm(paths, f"films {suffix}", leave=False)):
                film(path, i)
            index = pd.DataFrame(dict(path=[p.name for p in paths], split="test"))
            def cached(decoder, threads):
                with tempfile.TemporaryDirectory() as out:
                    assert not any(decode_all(index, Path(folder), sampling, geometry, decoder, threads, Path(out)))
            calls = {"reference": lambda: plain_loop(paths, sampling, geometry), "": lambda: cached("pyav", os.cpu_count()),
                     "-one-thread": lambda: cached("pyav", 1), "-decord": lambda: cached("decord", os.cpu_count())}
            times = {what: [t / files for t in taken] for what, taken in in_turns(calls, desc=f"decode {suffix}").items()}
            row(f"decode-{suffix}-reference", "uint8", times.pop("reference"), where="cpu")
            for what, taken in times.items():
                row(f"decode-{suffix}{what}", "uint8", taken, times_of(f"decode-{suffix}-reference"), where="cpu")


BASE = dict(classes=4, vpc=1, frames=8, size=64)
ALONG = dict(classes=(2, 4, 8, 16), vpc=(1, 2, 4, 8), frames=(8, 16, 32), size=(48, 64, 96, 128))


def scaling():
    """One PRISM iteration with one thing changed at a time, its real side and the rest; half the width, 16 real clips."""
    for along, values in ALONG.items():
        for value in values:
            at = BASE | {along: value}
            run = work(made_up(at["classes"], 16, at["frames"], at["size"]), "prism", "float32", at["vpc"], 0.5, 16)
            before, taken, real = 0.0, [], []
            for i in range(ROUNDS + 1):
                before = run.target_seconds
                taken.append(seconds(lambda: iteration(run)))
                real.append(run.target_seconds - before)
            LINES.append(dict(along=along, value=value, seconds=statistics.median(taken[1:]), real_side=statistics.median(real[1:])))
            print(f"{along} {value}: {LINES[-1]['seconds']:.3f} s, real side {LINES[-1]['real_side']:.3f} s", flush=True)


def numerics():
    """What fewer bits change: what the real clips want, the gradient of the pixels, and accuracy over many networks."""
    clips = shapes(ResizeCrop((48, 64), 48))
    off = lambda a, b: ((a - b).norm() / b.norm()).item()
    for within in dtypes()[1:]:
        means, gradients, both = [], [], []
        for seed in range(5):
            runs = [Condenser(clips, make_recipe("dm", batch_real=BATCH, precision=p), seed) for p in ("float32", within)]
            for run in runs:
                reset_parameters(run.network, run.rng("network"))
                run._target_block = 0, torch.stack([run.compute_target(0, label) for label in run.labels])[None]
            means.append(off(runs[1]._target_block[1], runs[0]._target_block[1]))
            fewer, true = (run.video_gradient(run.parameters.sample(None))[1] for run in runs[::-1])
            gradients.append(off(fewer, true))
            videos = runs[1].parameters.sample(None).detach().requires_grad_()
            with autocast_precision(within):
                embedded = runs[1].network.embed(videos)
            both.append(off(torch.autograd.grad((embedded.float() - runs[1]._target_block[1][0].flatten(0, 1)).square().sum(), videos)[0], true))
        for what, found in (("class means, relative error", means), ("gradient of the pixels, relative error", gradients), ("the same with the synthetic side in fewer bits too, which is not done", both)):
            NUMERICS.append(dict(what=what, dtype=within, mean=statistics.mean(found), sd=statistics.stdev(found), n=len(found)))
    chosen = {seed: [int(clips.train.indices_of_class(c)[seed]) for c in range(10)] for seed in range(8)}
    for within in ("reference", *dtypes()):
        scores = []
        for seed, rows in tqdm(chosen.items(), f"accuracy {within}", leave=False):
            videos, labels = clips.train.videos(rows), torch.arange(10)
            if within == "reference":
                with fork_rng_at(seed):
                    judge = Judge(videos, labels, clips.test.videos(), torch.from_numpy(clips.test.labels), 256, 0.25, get_device())
                    for i in range(100):
                        for group in judge.optimizer.param_groups:
                            group["lr"] = 0.01 if i < 50 else 0.001
                        judge.epoch()
                    scores.append(judge.test())
            else:
                condensed = condensed_from(videos, torch.ones(10, 8, dtype=torch.bool), labels, clips.class_names)
                scores.append(evaluate(condensed, clips, seed=seed, training=TrainConfig(100, width=0.25, precision=within)).top1)
        NUMERICS.append(dict(what="top-1 after 100 epochs on one real clip a class, MotionShapes, quarter width", dtype=within, mean=statistics.mean(scores), sd=statistics.stdev(scores), n=len(scores)))
        print(NUMERICS[-1], flush=True)


def condensed_in_fewer_bits():
    """What PRISM's sets teach when the real side was in bfloat16: the quick profile's cells of Table 1, over its seeds, in processes of one thread."""
    plan = profiles.get_config("quick", "motionshapes")
    wanted = {within: runs.make_runs(plan, ["prism"], precision=within) for within in ("float32", "bfloat16")}
    records = runner.get_records_by_row(wanted)
    for within, found in records.items():
        scores = [score["top1"] for record in found for score in record["scores"]]
        NUMERICS.append(dict(what="top-1 of PRISM's sets, VPC 1, MotionShapes, quick profile (3 seeds x 2 networks)", dtype=within, mean=statistics.mean(scores), sd=statistics.stdev(scores), n=len(scores)))
    apart = statistics.paired_interval(records["bfloat16"], records["float32"])
    NUMERICS.append(dict(what=f"the same, bfloat16 less float32, paired over seeds, 95 % interval {apart['low']:.1f} to {apart['high']:.1f}", dtype="", mean=apart["difference"], sd=None, n=apart["seeds"]))


def peak_of(call):
    """Peak memory of a call in a process of its own, and its seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


def peak_reference():
    torch.set_num_threads(os.cpu_count())
    clips = [torch.randn(100, 16, 3, 112, 112) for _ in range(2)]   # of miniUCF's 93 a class
    loop = Loop(clips, 1, True, BATCH, 1.0)
    return seconds(loop.step), peak_memory_mb()


def peak_miniucf():
    """miniUCF's size, made up, mapped from disk: one iteration of PRISM in bfloat16, all classes at full width, after every clip has been read."""
    torch.set_num_threads(os.cpu_count())
    malloc_keep_freed()
    train, classes = 4662, 50
    with tempfile.TemporaryDirectory() as folder:
        array = np.lib.format.open_memmap(f"{folder}/clips.npy", "w+", np.uint8, (train, 16, 112, 112, 3))
        for i in range(0, train, 100):
            array[i:i + 100] = np.random.default_rng(i).integers(0, 256, (min(100, train - i), 1, 112, 112, 3), dtype=np.uint8)
        array.flush()
        del array
        reset_peak_memory()
        labels = np.sort(np.arange(train) % classes)
        clips = Clips(np.load(f"{folder}/clips.npy", mmap_mode="r"), np.arange(train), np.ones(train, int), labels, np.full(train, "train"), np.arange(train).astype(str), [f"c{i:02d}" for i in range(classes)], None, "made up")
        run = work(clips, "prism", "bfloat16")
        for label in range(classes):
            for some in np.array_split(clips.indices_of_class(label), 2):
                clips.batch(some)
        return seconds(lambda: iteration(run)), peak_memory_mb()


def memory():
    taken, peak = peak_of(peak_reference)
    row("peak-two-classes-reference", "float32", [taken], peak=peak, where="cpu")
    taken, peak = peak_of(peak_miniucf)
    row("prism-iteration-16x112-50-classes", "bfloat16", [taken], peak=peak, flop=flop_of_iteration(50, *SIZES["16x112"]))


def peak_cache():
    """A cache of 3,000 videos of 320×240 with three clips each, 5.4 GB."""
    malloc_keep_freed()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(8):
            film(Path(folder) / f"{i}.avi", i)
        index = pd.DataFrame(dict(path=[f"{i % 8}.avi" for i in range(3000)], split="train"))
        reset_peak_memory()
        return seconds(lambda: decode_all(index, Path(folder), ClipSampling(16, 4, num_clips=3), ResizeCrop(), "pyav", os.cpu_count(), Path(folder))), peak_memory_mb()


def big_data_sets():
    """The names of 100,000 files, which are empty, and their headers; and the memory that decoding takes."""
    with tempfile.TemporaryDirectory() as folder:
        for c in range(100):
            (Path(folder) / f"class {c}").mkdir()
            for i in range(1000):
                (Path(folder) / f"class {c}" / f"{i}.mp4").touch()
        times = in_turns({"layout": lambda: annotations.from_folder(folder), "headers": lambda: verify.probe_index(annotations.from_folder(folder)[["path"]], Path(folder))}, 3, "index")
    row("index-100000-names", "uint8", times["layout"], where="cpu")
    row("index-100000-names-and-headers", "uint8", times["headers"], where="cpu")
    taken, peak = peak_of(peak_cache)
    row("cache-of-3000-videos", "uint8", [taken], peak=peak, where="cpu")


def save(started):
    """What has been measured so far."""
    name = torch.cuda.get_device_name() if GPU else f"{cpu_name()}, {os.cpu_count()} cores"
    about = dict(machine=name, torch=torch.__version__, minutes=round((time.time() - started) / 60, 1))
    for file, rows in (("results", ROWS), ("scaling", LINES), ("numerics", NUMERICS), ("machine", [about])):
        pd.DataFrame(rows).to_csv(HERE / f"{file}.csv", index=False, float_format="%.5g")


PARTS = [ceilings, real_forward, iterations, trials, evaluations, decoding, scaling, numerics, condensed_in_fewer_bits, memory, big_data_sets]

if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS])
    only = asked.parse_args().only
    torch.set_num_threads(os.cpu_count())
    started = time.time()
    for part in PARTS:
        if not only or part.__name__ in only or part is ceilings:
            print(f"[{time.time() - started:5.0f} s] {part.__name__}", flush=True)
            part()
            if not only:
                save(started)
