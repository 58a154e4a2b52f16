"""Verify and measure everything that depends on a GPU, in one command and within a budget of time.

    python benchmarks/gpu.py --budget 25m --out FOLDER --clips FILE

runs the parts in the order below and writes the record of each into FOLDER as soon as it is there: eight small files.
It needs no network, no display and no installation of this package; PyAV may be missing. FILE holds J-HMDB, decoded:
`python benchmarks/gpu.py --prepare FILE --root FOLDER_OF_JHMDB` writes it on a machine that has PyAV. What the budget
does not allow is skipped, a part that fails is recorded as failed and the next one runs, and the rows of the headline
that a folder has are not computed again. `python benchmarks/gpu.py --add FOLDER` adds the records to this repository.
"""
import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]   # the package need not be installed

import psutil  # noqa: E402
import torch  # noqa: E402
import without_pyav  # noqa: E402, F401  before prism_nb
from gpu_added import add_records  # noqa: E402
from gpu_checks import (  # noqa: E402
    check_determinism,
    check_resume,
    combinations,
    compare_insertions,
    compare_iteration,
)
from gpu_clips import load_prepared, prepare  # noqa: E402
from gpu_headline import compute_headline  # noqa: E402
from gpu_session import Budget, Scale, Session, Skip, SmallScale, parse_budget  # noqa: E402
from loops import (  # noqa: E402
    accuracy_on_real_clips,
    class_videos,
    make_condenser,
    make_reference,
    measure_evaluation,
    measure_insertion,
    measure_iterations,
    measure_real_forward,
    pack_dense,
    random_clips,
    reference_evaluator,
    run_iteration,
)
from timing import (  # noqa: E402
    GPU_SHAPES,
    Results,
    compute_in_float32,
    measure_ceilings,
    measure_seconds,
    on_gpu,
    precisions,
)

from prism_nb.core.errors import PrismError  # noqa: E402
from prism_nb.core.process import cpu_name, environment, get_device, peak_memory_mb, reset_peak_memory  # noqa: E402
from prism_nb.core.registry import part_modules  # noqa: E402
from prism_nb.core.source import source_hash  # noqa: E402
from prism_nb.evaluation import TrainConfig, evaluate  # noqa: E402
from prism_nb.recipe import make_recipe  # noqa: E402
from prism_nb.study.estimate import DatasetStats, peak_bytes  # noqa: E402
from prism_nb.study.precision import Workload, measure_choice  # noqa: E402
from prism_nb.study.profiles import get_config  # noqa: E402
from prism_nb.study.runs import Run  # noqa: E402

# What the device is

def output_of(*command):
    """Return what a program prints; '' if it is missing or fails."""
    try:
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return finished.stdout.strip() if finished.returncode == 0 else ""


def describe_device():
    """Describe the device, the machine and the code."""
    about = dict(
        device=get_device().type, name=f"{cpu_name()}, {os.cpu_count()} cores", cpu=cpu_name(), cores=os.cpu_count(),
        host_memory_gb=round(psutil.virtual_memory().total / 1e9, 1), python=platform.python_version(),
        torch=torch.__version__, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
        commit=output_of("git", "rev-parse", "HEAD"), changed=bool(output_of("git", "status", "--porcelain")),
        code=source_hash("prism_nb.condensation", "prism_nb.evaluation", *part_modules()))
    if not on_gpu():
        return about
    gpu = torch.cuda.get_device_properties(0)
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return about | dict(
        name=gpu.name, memory_gb=round(gpu.total_memory / 1e9, 1), multiprocessors=gpu.multi_processor_count,
        capability=".".join(map(str, torch.cuda.get_device_capability())), driver=driver)


# The package's tests that have a GPU in them

TESTS = ROOT / "tests" / "test_device.py"


def read_junit(path):
    """Read the counts of a run of pytest, and its failures: name, first line of the message."""
    suites = [*ElementTree.parse(path).getroot().iter("testsuite")]
    names = ("tests", "failures", "errors", "skipped")
    counts = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}
    failed = [(case, problem) for suite in suites for case in suite.iter("testcase")
              for problem in [*case.iter("failure"), *case.iter("error")]]
    return dict(counts, failed={case.get("name"): (problem.get("message") or "")[:300] for case, problem in failed})


def run_tests(session):
    """Run the tests by pytest, in a process of their own."""
    if not find_spec("pytest"):
        raise Skip("pytest is not installed")
    if not TESTS.exists():
        raise Skip(f"there is no tests/{TESTS.name}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "without_pyav", "-p", "no:cacheprovider", "--noconftest",
                   f"--junitxml={report}", "-k", session.scale.tests, str(TESTS)]
        path = os.pathsep.join(map(str, (ROOT, HERE, ROOT / "tests")))
        limit = max(60, session.budget.left() / 4)
        finished = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, timeout=limit,
                                  capture_output=True, text=True)
        if not report.exists():
            raise PrismError(f"pytest ended with code {finished.returncode}: {finished.stderr.strip()[-300:]}")
        return read_junit(report)


def tests(session):
    """Run the package's tests that have a GPU in them."""
    if found := session.attempt("pytest", 60, partial(run_tests, session)):
        session.write_json("tests", found)
        session.say(", ".join(f"{found[name]} {name}" for name in ("tests", "failures", "errors", "skipped")))


# What `auto` chooses

def precision(session):
    """Let `auto` choose a precision for clips of both sizes: the speeds and the errors that it is chosen by."""
    found = session.device.setdefault("auto_precision", {})
    for size in (session.scale.large, session.scale.small):
        workload = Workload("minic3d", size.frames, size.pixels, size.width)
        if choice := session.attempt(size.name, 15, partial(measure_choice, workload)):
            found[size.name] = asdict(choice)
            session.say(f"{size.name}: {choice}")


# The GPU compared with the CPU, and with itself

def agreement(session):
    """Compare an iteration of every objective and parameterization with the CPU, and insertions."""
    size, rows = session.scale.agreement, []
    clips = random_clips(size.classes, size.batch, size.frames, size.pixels)
    for objective, parameterization in combinations(session.scale):
        for dtype in ("float64", "float32"):
            call = partial(compare_iteration, clips, objective, parameterization, size, dtype)
            row = session.attempt(f"{objective}, {parameterization}, {dtype}", 15, call)
            rows += [row] if row else []
            session.write_csv("agreement", rows)
    rows += session.attempt("insertions", 5, compare_insertions) or []
    session.write_csv("agreement", rows)
    session.say(f"{sum(row['agrees'] for row in rows)} of {len(rows)} agree")


def determinism(session):
    """Condense twice with one seed."""
    found = {}
    for method in ("dm", "prism"):
        result = session.attempt(method, 20, partial(check_determinism, session.scale.check, method))
        if result:
            found[method] = result
            session.write_json("determinism", found)
            session.say(f"{method}: " + ("equal bits" if result["bits_equal"] else str(result)))


# Speed

PROBE_ROUNDS = 2
SHARE = 0.25   # of what is left of the budget, that the iterations of one size may take


def class_bytes(size):
    """Bytes of host memory of a class: clips of both splits as bytes, training clips in float32."""
    return 6 * size.batch * size.frames * size.pixels**2 * 3


def seconds_per_class(size, rounds):
    """Measure what a class takes: its clips, and all the iterations that are compared."""
    two = size.with_classes(2)
    started = time.perf_counter()
    clips = random_clips(two.classes, two.batch, two.frames, two.pixels)
    preloaded = class_videos(clips)
    built = time.perf_counter() - started
    reference = make_reference(preloaded, "prism", two).step
    ours = partial(run_iteration, make_condenser(clips, "prism", "float32", width=two.width, batch=two.batch))
    plain, own = [[measure_seconds(call) for _ in range(PROBE_ROUNDS)][-1] for call in (reference, ours)]
    methods = 2
    return (built + (rounds + 1) * methods * (plain + len(precisions()) * own)) / two.classes


def largest_size(session, size):
    """Reduce the number of classes to what the host's memory holds and the budget allows."""
    seconds = seconds_per_class(size, session.scale.rounds)
    by_time = int(SHARE * session.budget.left() / seconds)
    by_memory = int(psutil.virtual_memory().available / 2 / class_bytes(size))
    classes = min(size.classes, by_time, by_memory)
    if classes < 2:
        raise Skip(f"a class takes {seconds:.0f} s and {class_bytes(size) / 1e9:.1f} GB of host memory")
    return size.with_classes(classes)


def iterations_of(session, results, size):
    """Measure the iterations of a size, with as many classes as fit; the rows say how many."""
    chosen, before = largest_size(session, size), len(results.rows)
    clips = measure_iterations(results, chosen, session.scale.rounds)
    measure_insertion(results, clips, chosen, session.scale.rounds)
    for row in results.rows[before:]:
        row["classes"] = chosen.classes


def evaluation_clips(session):
    """Return the prepared clips, or as many of noise."""
    if session.clips:
        return session.clips.split(1)
    size = session.scale.small
    return random_clips(min(size.classes, 20), 12, size.frames, size.pixels)


def accuracies_of(session, clips, vpc):
    """Train briefly on real clips, by the reference and in every precision, with several seeds: accuracies."""
    scale, found = session.scale, {}
    for who in ("reference", *precisions()):
        call = partial(accuracy_on_real_clips, clips, who, epochs=scale.accuracy_epochs[vpc], vpc=vpc,
                       width=scale.small.width)
        values = torch.tensor([call(seed=seed) for seed in range(scale.accuracy_seeds)])
        found[who] = dict(accuracy_mean=values.mean().item(), accuracy_sd=values.std().item(),
                          accuracy_seeds=len(values), accuracy_epochs=scale.accuracy_epochs[vpc],
                          accuracy_data="J-HMDB" if session.clips else "noise")
    return found


def evaluation_seconds(session, clips, vpc):
    """Estimate what the evaluations of all precisions take, each at most as long as that of the reference."""
    scale = session.scale
    chosen = [i for c in range(len(clips.class_names)) for i in clips.train.indices_of_class(c)[:vpc]]
    labels = torch.from_numpy(clips.train.labels[chosen])
    reference = reference_evaluator(clips.train.videos(chosen), labels, clips, scale.small.width)
    calls = (reference.epoch, reference.test)
    epoch, test = [[measure_seconds(call) for _ in range(PROBE_ROUNDS)][-1] for call in calls]
    trainings, rounds = scale.accuracy_seeds, scale.rounds + 1
    each = epoch * (trainings * scale.accuracy_epochs[vpc] + rounds) + test * (trainings + rounds)
    return (1 + len(precisions())) * each


def evaluation_of(session, results, vpc):
    """Measure an evaluation, and the accuracies after the same short training."""
    clips = evaluation_clips(session)
    session.budget.need(evaluation_seconds(session, clips, vpc))
    accuracies = accuracies_of(session, clips, vpc)
    measure_evaluation(results, clips, vpc, session.scale.small.width, session.scale.rounds, accuracies)


def speed(session):
    """Measure the plain loop and ours, in alternation."""
    scale, results = session.scale, Results()
    steps = {
        "ceilings": (15, lambda: measure_ceilings(results, scale.shapes or GPU_SHAPES, scale.copied)),
        "real forward": (20, lambda: measure_real_forward(results, scale.large, scale.rounds)),
        **{f"iterations {size.name}": (30, partial(iterations_of, session, results, size))
           for size in (scale.large, scale.small)},
        **{f"evaluation at VPC {vpc}": (10, partial(evaluation_of, session, results, vpc)) for vpc in (1, 10)},
    }
    for what, (seconds, call) in steps.items():
        session.attempt(what, seconds, call)
        session.write_csv("results", results.rows)


# Memory

MEMORY_CLASSES = 10


def measure_peak(call):
    """Measure the peak memory of a call in MB: allocated and reserved on a GPU, the whole process on a CPU."""
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return dict(allocated_mb=allocated / 1e6, reserved_mb=reserved / 1e6)
    reset_peak_memory()
    call()
    return dict(allocated_mb=peak_memory_mb(), reserved_mb=peak_memory_mb())


def memory_rows(size, vpc):
    """Compare the peak of an iteration and of an evaluation with the estimate."""
    clips = random_clips(size.classes, max(size.batch, vpc), size.frames, size.pixels)
    recipe = make_recipe("prism", vpc=vpc, batch_real=size.batch, width=size.width, iterations=10**6)
    config = get_config("quick", "jhmdb")
    training = TrainConfig(epochs=1, width=size.width)
    run = Run(replace(config, training=training), "prism", recipe, 0)
    stats = DatasetStats(size.classes, len(clips.train), len(clips.test), size.frames, size.pixels, clips.pixels.nbytes)
    estimated = (peak_bytes(run, stats) + clips.pixels.nbytes) / 1e6
    condenser = make_condenser(clips, "prism", "float32", vpc, size.width, size.batch)
    chosen = [i for c in range(size.classes) for i in clips.train.indices_of_class(c)[:vpc]]
    real = pack_dense(clips.train.videos(chosen), torch.from_numpy(clips.train.labels[chosen]), clips.class_names)
    calls = dict(
        iteration=partial(run_iteration, condenser),
        evaluation=partial(evaluate, real, clips, config=training))
    rows = []
    for what, call in calls.items():
        peak = measure_peak(call)
        rows.append(dict(size=size.name, classes=size.classes, vpc=vpc, what=what, **peak, estimated_mb=estimated,
                         ratio=peak["reserved_mb"] / estimated))
    return rows


def memory(session):
    """Compare peak memory with the estimate, at both sizes and at VPC 1 and 10."""
    rows = []
    for size in (session.scale.large, session.scale.small):
        for vpc in (1, 10):
            fewer = size.with_classes(min(size.classes, MEMORY_CLASSES))
            rows += session.attempt(f"{size.name}, VPC {vpc}", 15, partial(memory_rows, fewer, vpc)) or []
            session.write_csv("memory", rows)
    if rows:
        ratios = [row["ratio"] for row in rows]
        session.say(f"measured over estimated: {min(ratios):.2f} to {max(ratios):.2f}")


# Resume, and the headline

def resume_seconds(session):
    """Estimate what three processes take: their start, which is that of this one, and two condensations."""
    determinism = session.read_json("determinism").get("prism", {})
    return 3 * session.startup + 2 * session.scale.resume_iterations * determinism.get("seconds_per_iteration", 0.1)


def resume(session):
    """Stop a condensation by SIGTERM and resume it."""
    call = partial(check_resume, session.scale.check, session.scale.resume_iterations)
    if found := session.attempt("SIGTERM in the middle", resume_seconds(session), call):
        session.write_json("resume", found)
        session.say(f"resumed at iteration {found['resumed_at']}; "
                    + ("equal bits" if found["bits_equal"] else f"differs by {found['largest_difference']:.3g}"))


def headline(session):
    """Compute the headline on J-HMDB until the budget ends."""
    session.attempt("J-HMDB", 1, partial(compute_headline, session))


PARTS = dict(tests=tests, precision=precision, agreement=agreement, determinism=determinism, speed=speed,
             memory=memory, resume=resume, headline=headline)   # after the device, which every run describes


# The command line

def check_device(name):
    """Raise `PrismError` if a device cannot be used."""
    if name not in ("cuda", "cpu"):
        raise PrismError(f"device is {name!r}, but must be cuda or cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise PrismError("PyTorch finds no GPU here; --device cpu --small tries the script without one")


def measure(arguments):
    """Run the parts within the budget."""
    check_device(arguments.device)
    names = arguments.parts.split(",") if arguments.parts else [*PARTS]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise PrismError(f"parts is {unknown[0]!r}, but must be of: {', '.join(PARTS)}")
    budget = Budget(parse_budget(arguments.budget))
    settings = dict(PRISM_DEVICE=arguments.device, PRISM_PROGRESS="text")
    with tempfile.TemporaryDirectory() as data, environment(PRISM_DATA=data, **settings):
        compute_in_float32()
        if on_gpu():
            torch.set_num_threads(os.cpu_count())   # the plain loop stacks its clips on the host
        clips = load_prepared(arguments.clips) if arguments.clips else None
        scale = SmallScale if arguments.small else Scale
        session = Session(arguments.out, budget, scale, describe_device(), clips)
        session.part = "device"
        session.write_device()
        session.say(f"{session.device['name']}, torch {torch.__version__}")
        for name in names:
            session.run(name, PARTS[name])


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="25m", help="time that it may take, such as 25m")
    parser.add_argument("--out", default="build/gpu", help="folder of the records")
    parser.add_argument("--clips", default="", help="J-HMDB, decoded, as --prepare writes it")
    parser.add_argument("--device", default="cuda", help="cuda; or cpu, to try the script")
    parser.add_argument("--parts", default="", help=f"some of: {','.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--prepare", default="", metavar="FILE", help="decode J-HMDB into a file, and nothing else")
    parser.add_argument("--root", default="", help="folder of J-HMDB, for --prepare")
    parser.add_argument("--add", default="", metavar="FOLDER", help="add a folder's records to this repository")
    return parser.parse_args()


def main():
    """Measure, prepare the clips, or add records."""
    arguments = parse_arguments()
    try:
        if arguments.prepare:
            prepare(arguments.prepare, arguments.root)
            print(f"{arguments.prepare}: {Path(arguments.prepare).stat().st_size / 1e6:.1f} MB")
        elif arguments.add:
            add_records(arguments.add)
        else:
            measure(arguments)
    except PrismError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
