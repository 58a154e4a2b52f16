"""Write RESULTS.md from the CSV files of bench.py and the records of gpu.py."""
import numpy as np
import pandas as pd
from csv_files import HERE, read_table
from gpu_page import gpu_section
from page_tables import markdown_table, round_columns


class Goals:
    """Goals and what was measured, row by row."""

    def __init__(self, results):
        self.by_name = {(r.benchmark, r.dtype): r for r in results.rename(columns={"name": "benchmark"}).itertuples()}
        self.rows = []

    def add(self, what, value, goal, at_least=True):
        """Add a row."""
        bound = "at least" if at_least else "at most"
        verdict = "reached" if (value >= goal) == at_least else "missed"
        self.rows.append({"what": what, "goal": f"{bound} {goal:g}", "measured": f"{value:.2f}", "": verdict})

    def iterations(self):
        """Add the goals for an iteration of PRISM."""
        for size in ("16x112", "8x64"):
            for dtype, speedup in (("bfloat16", 1.8), ("float32", 1.2)):
                prism = self.by_name[f"prism-iteration-{size}", dtype]
                dm = self.by_name[f"dm-iteration-{size}", dtype]
                what = f"PRISM's iteration at {size} in {dtype}"
                self.add(f"{what}, speed relative to the reference", prism.ratio_to_reference, speedup)
                self.add(f"{what}, time relative to DM's", prism.seconds_median / dm.seconds_median, 1.1, False)

    def forward_pass(self):
        """Add the goals for the forward pass of the real clips."""
        full = self.by_name["real-forward-16x112", "float32"]
        half = self.by_name["real-forward-16x112", "bfloat16"]
        what = "forward pass of real clips in bfloat16"
        self.add(f"{what}, share of the matrix product's rate", half.share_of_ceiling, 0.6)
        self.add(f"{what}, speed relative to float32", full.seconds_median / half.seconds_median, 1)

    def evaluation(self):
        """Add the goals for evaluation."""
        for vpc in (1, 10):
            for dtype in ("bfloat16", "float32"):
                ratio = self.by_name[f"evaluate-vpc{vpc}", dtype].ratio_to_reference
                what = f"evaluation at VPC {vpc} in {dtype}, speed relative to the reference"
                self.add(what, ratio, 2)

    def decoding(self):
        """Add the goals for decoding."""
        for suffix in ("avi", "mp4"):
            ratio = self.by_name[f"decode-{suffix}", "uint8"].ratio_to_reference
            self.add(f"decoding {suffix}, speed relative to the reference", ratio, 1.5)

    def memory(self):
        """Add the goals for memory and for large data sets."""
        iteration = self.by_name["prism-iteration-16x112-50-classes", "bfloat16"]
        self.add("peak host memory of a run of miniUCF's size, GB", iteration.peak_mb / 1000, 4, False)
        if ("index-100000-names", "uint8") not in self.by_name:   # results from before it was measured
            return
        names = self.by_name["index-100000-names", "uint8"]
        cache = self.by_name["cache-of-3000-videos", "uint8"]
        self.add("listing 100,000 files, seconds", names.seconds_median, 5, False)
        what = "peak host memory of decoding 3,000 videos with three clips each, GB"
        self.add(what, cache.peak_mb / 1000, 1, False)


def goals_table(results):
    """Compare what was measured with the goals."""
    goals = Goals(results)
    for section in (goals.iterations, goals.forward_pass, goals.evaluation, goals.decoding, goals.memory):
        section()
    return pd.DataFrame(goals.rows)


def fit_exponent(values, seconds):
    """Fit seconds ∝ values^exponent by least squares of the logarithms."""
    return f"{np.polyfit(np.log(values), np.log(seconds), 1)[0]:.2f}"


def scaling_table(scaling):
    """Tabulate seconds and their exponent along each axis."""
    rows = []
    for axis, part in scaling.groupby("along", sort=False):
        rows.append({
            "axis": axis,
            "values": ", ".join(map(str, part.value)),
            "seconds": ", ".join(f"{s:.3g}" for s in part.seconds),
            "exponent": fit_exponent(part.value, part.seconds),
            "exponent of the targets": fit_exponent(part.value, part.real_side),
        })
    return pd.DataFrame(rows)


PAGE = """# Benchmarks

Written by `make bench` ({minutes} min on {machine}, PyTorch {torch}); every measured number is read from the CSV
files next to this page. Alternatives are timed in alternation within one run. A time is the median of five
measurements after one warm-up, except in the rows with a memory peak: each of those is a single call in a process
of its own. Freed memory stays with the process (`core.process.malloc_keep_freed`), except in the reference, which
runs with glibc's defaults. Machines differ, and the speed of a shared one changes by the hour: compare ratios
rather than seconds.

The *reference* is the plain loop of `reference.py`, written from the published algorithm as its authors run it.
Iterations use miniC3D at full width with 64 real clips per class, on 2 classes at 16×112×112 and 8 at 8×64×64, since
an iteration with the paper's 50 classes would take more than a minute. The cost is linear in the number of classes,
see [Scaling](#scaling), and one iteration with 50 classes has a row of its own. Only the targets are computed in
bfloat16, because the gradient of the pixels does not tolerate it, see [Lower
precision](#lower-precision). Decoding uses as many threads as there are cores and the reference uses one;
`-one-thread` shows the difference. An evaluation is 500 epochs and one test (three in the reference) on
MotionShapes at 8×64×64; one epoch and one test are timed. A share of the ceiling is the number of floating-point
operations per second relative to the fastest matrix product in the same precision. Convolutions in float32 can
exceed it, because the library skips products with padding.

## Goals

{goals}

## All measurements

{results}

`-space-to-depth` and `-together` were tried and are not used; their ratio is to the row above them.

## Scaling

One PRISM iteration at half the width with 16 real clips per class, in float32. Starting from 4 classes, VPC 1 and 8
frames of 64×64, one quantity is changed at a time. An exponent of 1 is linear.

{scaling}

## Lower precision

{numerics}

## GPU

{gpu}
"""


def of_cpu(table):
    """Select the rows of the CPU."""
    return table[table.device == "cpu"]


def page():
    """Format the page."""
    results, machine = (of_cpu(read_table(name)) for name in ("results", "machine"))
    scaling, numerics = (read_table(name) for name in ("scaling", "numerics"))
    results_digits = dict(seconds_median=4, seconds_iqr=4, ratio_to_reference=2, share_of_ceiling=2, peak_mb=0)
    return PAGE.format(
        **machine.iloc[0],
        goals=markdown_table(goals_table(results)),
        results=markdown_table(round_columns(results, **results_digits)),
        scaling=markdown_table(scaling_table(scaling)),
        numerics=markdown_table(round_columns(numerics, mean=4, sd=4)),
        gpu=gpu_section(),
    )


if __name__ == "__main__":
    (HERE / "RESULTS.md").write_text(page(), encoding="utf-8")
