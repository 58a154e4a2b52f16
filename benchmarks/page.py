"""RESULTS.md, made from the CSV files that bench.py wrote."""
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def table(frame):
    """A Markdown table; empty where there is no number."""
    lines = [[*frame.columns], ["---"] * len(frame.columns), *frame.astype(object).where(frame.notna(), "").values.tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def rounded(frame, **digits):
    return frame.assign(**{name: frame[name].map(lambda x: "" if pd.isna(x) else f"{x:.{n}f}") for name, n in digits.items()})


def targets(results):
    """What was aimed at beside what was measured."""
    at = {(r.name_, r.dtype): r for r in results.rename(columns={"name": "name_"}).itertuples()}
    gpu = (results.device == "cuda").any()
    wanted = []

    def add(what, value, aim, above=True):
        wanted.append({"what": what, "aim": f"{'at least' if above else 'at most'} {aim:g}", "measured": f"{value:.2f}", "": "reached" if (value >= aim) == above else "missed"})

    for size in ("16x112", "8x64"):
        for dtype, aim in (("bfloat16", 10 if gpu else 1.8), ("float32", 1.2)):
            add(f"PRISM's iteration at {size} in {dtype}, times the plain loop's speed", at[f"prism-iteration-{size}", dtype].ratio_to_reference, aim)
            add(f"PRISM's iteration at {size} in {dtype}, times DM's seconds", at[f"prism-iteration-{size}", dtype].seconds_median / at[f"dm-iteration-{size}", dtype].seconds_median, 1.1, False)
    forward = {dtype: at["real-forward-16x112", dtype] for dtype in ("float32", "bfloat16")}
    add("real clips forward in bfloat16, share of the matrix product's rate", forward["bfloat16"].share_of_ceiling, .4 if gpu else .6)
    add("real clips forward in bfloat16, times the float32 speed", forward["float32"].seconds_median / forward["bfloat16"].seconds_median, 1)
    for vpc in (1, 10):
        for dtype in ("bfloat16", "float32"):
            add(f"evaluation at VPC {vpc} in {dtype}, times the plain loop's speed", at[f"evaluate-vpc{vpc}", dtype].ratio_to_reference, 5 if gpu else 2)
    for suffix in ("avi", "mp4"):
        add(f"decoding {suffix}, times the plain loop's speed", at[f"decode-{suffix}", "uint8"].ratio_to_reference, 1.5)
    add("peak host memory of a run of miniUCF's size, GB", at["prism-iteration-16x112-50-classes", "bfloat16"].peak_mb / 1000, 4, False)
    if ("index-100000-names", "uint8") in at:   # not in results of before it was measured
        add("reading the names of 100,000 files, seconds", at["index-100000-names", "uint8"].seconds_median, 5, False)
        add("peak host memory of decoding 3,000 videos with three clips each, GB", at["cache-of-3000-videos", "uint8"].peak_mb / 1000, 1, False)
    return pd.DataFrame(wanted)


def exponents(scaling):
    """Seconds ∝ value^exponent along each axis, by least squares of the logarithms."""
    def fit(part, column):
        return f"{np.polyfit(np.log(part.value), np.log(part[column]), 1)[0]:.2f}"
    return pd.DataFrame([{"along": along, "values": ", ".join(map(str, part.value)), "seconds": ", ".join(f"{s:.3g}" for s in part.seconds),
                          "exponent": fit(part, "seconds"), "of the real side": fit(part, "real_side")} for along, part in scaling.groupby("along", sort=False)])


def page():
    results, scaling, numerics, machine = (pd.read_csv(HERE / f"{name}.csv") for name in ("results", "scaling", "numerics", "machine"))
    about = machine.iloc[0]
    classes = "2 classes at 16×112×112 and 8 at 8×64×64, since the paper's 50 would take a minute and more an iteration" if (results.device == "cpu").all() else "50 classes"
    return f"""# What it costs

Made by `make bench` ({about.minutes} min on {about.machine}, PyTorch {about.torch}); no number here is typed in. Alternatives were timed in turns in one run; a time is the median of five after one that does not count, but for the rows with a peak of memory, which are single calls in processes of their own. Freed memory is kept by our processes (`rules.keep_memory`) and treated as the C library does by itself in the plain loop. Machines differ, and a shared one changes by the hour: what carries over are the ratios.

The *reference* is the plain loop of `reference.py`, written from the published algorithm as its authors run it. Iterations are of miniC3D at full width with 64 real clips a class: {classes}; the cost is linear in classes, see below, and one iteration with 50 has a row of its own. Only the real side of an iteration is in bfloat16, because the gradient of the pixels does not bear more (last table). Decoding has as many threads as cores, the plain loop one; `-one-thread` is what remains without that. An evaluation is 500 epochs and one test (the reference: three) on MotionShapes at 8×64×64, of which an epoch and a test are timed. A share of the ceiling is floating-point operations a second over those of the fastest matrix product in the same precision; convolutions in float32 can exceed it, since the library multiplies fewer numbers where a picture is padded.

## Aims

{table(targets(results))}

## Every row

{table(rounded(results, seconds_median=4, seconds_iqr=4, ratio_to_reference=2, share_of_ceiling=2, peak_mb=0))}

`-space-to-depth` and `-together` were tried and are not used; their ratio is to the row above them.

## How the cost grows

One PRISM iteration at half the width, 16 real clips a class, float32; from 4 classes, VPC 1, 8 frames of 64×64 one thing is changed at a time. An exponent of 1 is linear.

{table(exponents(scaling))}

## What fewer bits change

{table(rounded(numerics, mean=4, sd=4))}
"""


if __name__ == "__main__":
    (HERE / "RESULTS.md").write_text(page(), encoding="utf-8")
