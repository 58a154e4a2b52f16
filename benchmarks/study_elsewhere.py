"""Compute the runs that a study misses on a machine where nothing can be installed, such as a GPU without a network.

    python benchmarks/study_elsewhere.py --prepare FILE --dataset motionshapes --tables steps

writes the missing runs of some tables, and the decoded clips of the data set, into one file, on a machine where this
project is installed. There, where PyTorch, pandas, SciPy, OpenCV and safetensors are,

    python benchmarks/study_elsewhere.py FILE --out FOLDER --workers 16 --budget 9m

computes them in the order of the tables and leaves them in FOLDER/records.parquet, also when the budget ends; with the
same FOLDER it goes on. Back here, `prism-nb records merge FOLDER/records.parquet --dataset motionshapes` adds them to
the study. Runs that store H.264 need PyAV there, too. Several processes share a GPU well under NVIDIA's MPS.
"""
import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]   # the package need not be installed

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import without_pyav  # noqa: E402, F401  before prism_nb
from gpu_clips import pack, unpack  # noqa: E402
from gpu_session import Budget, parse_budget  # noqa: E402

from prism_nb.core.errors import PrismError  # noqa: E402
from prism_nb.core.files import atomic_write, load_tensors, save_tensors, write_json  # noqa: E402
from prism_nb.core.process import environment  # noqa: E402
from prism_nb.data.clips import Clips  # noqa: E402
from prism_nb.study import runs as study_runs  # noqa: E402
from prism_nb.study.archive import FILE_NAME, add_records  # noqa: E402
from prism_nb.study.executor import LocalExecutor  # noqa: E402
from prism_nb.study.records import completed_record  # noqa: E402
from prism_nb.study.runner import execute_if_missing  # noqa: E402
from prism_nb.study.runs import load_clips, num_steps, run_from_dict  # noqa: E402

PIXELS = "PRISM_ELSEWHERE"   # environment variable: the decoded clips, for the worker processes
PER_VIDEO = ("offsets", "num_clips", "labels")
RESERVE = 10.   # seconds of the budget in which workers leave checkpoints, and records are written


# Here: what travels

def missing_runs(profile, dataset, tables):
    """List the runs of some tables whose records are neither here nor committed; no tables: all of the profile."""
    from prism_nb.report.front import plan_page, study_pages  # here, since it needs papermill
    planned = [plan_page(page) for page in study_pages(profile, dataset, tables, "", [])]
    runs = {run.record_path(): run for plan in planned if plan for run in plan.missing}
    if not runs:
        raise PrismError(f"no run of {', '.join(tables) or profile} is missing")
    if len({repr((run.config.sampling, run.config.crop, run.config.split_ids)) for run in runs.values()}) > 1:
        raise PrismError("runs with several kinds of clips do not fit into one file")
    return [*runs.values()]


def prepare(path, profile, dataset, tables):
    """Write runs and clips into one file."""
    runs = missing_runs(profile, dataset, tables)
    if len(runs[0].config.split_ids) > 1:
        raise PrismError(f"{dataset} has several official splits, which do not fit into one file")
    clips = load_clips(runs[0].config)
    packed, hashed = pack(clips.pixels)
    packed |= {name: getattr(clips, name) for name in PER_VIDEO}
    about = dict(runs=[asdict(run) for run in runs], shape=clips.pixels.shape, pixel_hash=hashed, flips=clips.flips,
                 split=clips.split.tolist(), source_videos=clips.source_videos.tolist(), class_names=clips.class_names,
                 content_hash=clips.content_hash, geometry=clips.geometry)
    save_tensors(path, {name: torch.from_numpy(value) for name, value in packed.items()}, **about)
    print(f"{path}: {len(runs)} runs, {path.stat().st_size / 1e6:.1f} MB")


# There: runs without the folder of a data set

def decode(path, pixels):
    """Decode the clips of a file to an array that all processes map, with what else is known of them beside it."""
    tensors, about = load_tensors(path)
    if "runs" not in about:
        raise PrismError(f"{path} holds no runs; write such a file with --prepare")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    decoded = unpack(arrays, about["shape"], about["pixel_hash"], path)
    with atomic_write(pixels) as temporary, open(temporary, "wb") as file:
        np.save(file, decoded)
    write_json(pixels.with_suffix(".json"), about | {name: arrays[name].tolist() for name in PER_VIDEO})
    return [run_from_dict(fields) for fields in about["runs"]]


@cache
def decoded_clips():
    """Load what `decode` wrote; one object in a process, so that a GPU keeps its pixels."""
    pixels = Path(os.environ[PIXELS])
    about = json.loads(pixels.with_suffix(".json").read_text())
    columns = {name: np.array(about[name]) for name in (*PER_VIDEO, "split", "source_videos")}
    same = {name: about[name] for name in ("class_names", "content_hash", "geometry", "flips")}
    return Clips(np.load(pixels, mmap_mode="r"), **columns, **same, skipped=pd.DataFrame(columns=["path", "reason"]))


def use_decoded_clips():
    """Let runs load the decoded clips in place of those of a folder."""
    study_runs.load_clips = lambda *_, **__: decoded_clips()


def execute_elsewhere(run, gpu_share):
    """Execute a run in a worker process."""
    use_decoded_clips()
    return execute_if_missing(run, gpu_share)


class OutOfTime(Exception):
    """The budget has ended."""


def end(*_):
    """Handle SIGALRM."""
    raise OutOfTime


def compute(runs, workers, seconds):
    """Execute the runs whose records are missing, in their order, for some seconds at most."""
    missing = [run for run in runs if completed_record(run.record_path()) is None]
    steps, function = sum(map(num_steps, missing)), partial(execute_elsewhere, gpu_share=1 / max(1, workers))
    if not missing:
        return
    signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
        LocalExecutor(workers).map(function, missing, f"{len(missing)} runs", steps)
    except OutOfTime:
        print("the budget has ended", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_elsewhere(path, out, workers, budget):
    """Compute the runs of a file, and leave their records in one archive."""
    data = out / "data"
    with environment(PRISM_DATA=str(data), **{PIXELS: str(data / "clips.npy")}):
        data.mkdir(parents=True, exist_ok=True)
        runs = decode(path, data / "clips.npy")
        use_decoded_clips()
        compute(runs, workers, budget.left() - RESERVE)
        found = [record for run in runs if (record := completed_record(run.record_path()))]
        add_records(out / FILE_NAME, found)
    print(f"{out / FILE_NAME}: {len(found)} of {len(runs)} runs")


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="runs and clips, as --prepare writes them")
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="write missing runs and clips, and end")
    parser.add_argument("--profile", default="quick", help="profile of the runs that --prepare writes")
    parser.add_argument("--dataset", default="motionshapes", help="data set of the runs that --prepare writes")
    parser.add_argument("--tables", default="", help="tables whose runs --prepare writes, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("build/elsewhere"), help="folder of the records")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: as many as cores, or one for a GPU")
    parser.add_argument("--budget", default="24h", help="how long it may take: 90s, 9m, 24h")
    arguments = parser.parse_args()
    if bool(arguments.file) == bool(arguments.prepare):
        parser.error("give either a FILE or --prepare FILE")
    return arguments


def main():
    """Prepare runs, or compute them."""
    arguments = parse_arguments()
    try:
        if arguments.prepare:
            tables = [name for name in arguments.tables.split(",") if name]
            prepare(arguments.prepare, arguments.profile, arguments.dataset, tables)
        else:
            run_elsewhere(arguments.file, arguments.out, arguments.workers, Budget(parse_budget(arguments.budget)))
    except PrismError as error:
        print(f"study_elsewhere.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
