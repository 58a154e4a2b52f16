"""The section of RESULTS.md about a GPU, written from the records in benchmarks/gpu/."""
import json
import math
from itertools import product

import pandas as pd
from csv_files import HERE
from page_tables import markdown_table, round_columns
from scipy.special import stdtrit

from prism_nb.study.statistics import paired_interval

GPU = HERE / "gpu"

NOT_MEASURED = """\
No GPU has been measured. On a machine with one, this verifies and measures everything within its budget, and leaves
eight small files; it needs no installation beyond PyTorch, pandas, SciPy, OpenCV and safetensors (`make gpu` installs
them first):

```
python benchmarks/gpu.py --budget 25m --out build/gpu --clips FILE
```

FILE holds J-HMDB, decoded, for the headline; it is written on a machine that has PyAV. The last two commands add the
records to this page:

```
python benchmarks/gpu.py --prepare FILE --root FOLDER_OF_JHMDB
python benchmarks/gpu.py --add build/gpu
python benchmarks/page.py
```"""


def read_json(name):
    """Read a record; {} if it is missing."""
    path = GPU / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_csv(name):
    """Read a table; an empty one if it is missing."""
    path = GPU / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def describe_device(device):
    """Say what was measured, and what was not."""
    parts = device["parts"]
    codes, days = (", ".join(sorted({part[name] for part in parts.values()})) for name in ("code", "day"))
    commit = (device["commit"][:10] or "not known") + (" with changes" if device["changed"] else "")
    text = (f"{device['name']}, {device['memory_gb']:.0f} GB, capability {device['capability']}, driver "
            f"{device['driver'] or 'not known'}; PyTorch {device['torch']}, CUDA {device['cuda']}, cuDNN "
            f"{device['cudnn']}; {device['cpu']}, {device['cores']} cores; {days}; code {codes}, "
            f"commit {commit}.")
    chosen = [f"{choice['precision']} for clips of {size} ({choice['gain']:.1f} times as fast as float32, relative "
              f"error {choice['error']:.1e})" for size, choice in device.get("auto_precision", {}).items()]
    if chosen:
        text += f" `auto` chooses {', and '.join(chosen)}."
    missing = [f"- {name}, {note['what']}: {note['state']}: {note['reason']}"
               for name, part in parts.items() for note in part["not_done"]]
    return "\n".join([text, "", *(["Not done:", "", *missing] if missing else ["Every part was done."])])


class Goals:
    """Goals of a GPU, and what was measured."""

    def __init__(self, results):
        found = results.rename(columns={"name": "benchmark"}).itertuples() if len(results) else []
        self.by_name = {(row.benchmark, row.dtype): row for row in found}
        self.rows = []

    def add(self, what, goal, value, at_least=True, holds=True):
        """Add a row; `value` is None where nothing was measured, and `holds` tells whether a condition holds, too."""
        bound = f"at {'least' if at_least else 'most'} {goal:g}"
        reached = value is not None and (value >= goal) == at_least and holds
        verdict = "not measured" if value is None else "reached" if reached else "missed"
        self.rows.append({"what": what, "goal": bound, "measured": None if value is None else f"{value:.2f}",
                          "": verdict})

    def get(self, name, dtype, field):
        """Return a measured value; None if there is none."""
        row = self.by_name.get((name, dtype))
        return None if row is None or pd.isna(getattr(row, field)) else getattr(row, field)

    def ratio(self, name, other, dtype):
        """Divide the seconds of two benchmarks."""
        seconds = [self.get(which, dtype, "seconds_median") for which in (name, other)]
        return None if None in seconds else seconds[0] / seconds[1]

    def accuracy_difference(self, vpc, dtype):
        """Describe the difference of accuracy to the reference; tell whether its 95 % interval contains 0."""
        pair = [self.by_name.get(row) for row in ((f"evaluate-vpc{vpc}", dtype),
                                                  (f"evaluate-vpc{vpc}-reference", "float32"))]
        if None in pair or any(pd.isna(row.accuracy_mean) for row in pair):
            return "accuracy not compared", False
        n = pair[0].accuracy_seeds
        difference = pair[0].accuracy_mean - pair[1].accuracy_mean
        error = math.sqrt(sum(row.accuracy_sd**2 for row in pair) / n)
        half = float(stdtrit(2 * n - 2, 0.975)) * error
        return f"accuracy differs by {difference:+.1f} ± {half:.1f} points", abs(difference) <= half

    def add_all(self):
        """Add every goal."""
        for size, dtype in product(("16x112", "8x64"), ("float32", "tf32", "bfloat16")):
            prism = f"prism-iteration-{size}"
            what = f"PRISM's iteration at {size} in {dtype}"
            self.add(f"{what}, speed relative to the reference", 10, self.get(prism, dtype, "ratio_to_reference"))
            self.add(f"{what}, time relative to DM's", 1.1, self.ratio(prism, f"dm-iteration-{size}", dtype), False)
        what = "forward pass of real clips in bfloat16, share of the matrix product's rate"
        self.add(what, 0.4, self.get("real-forward-16x112", "bfloat16", "share_of_ceiling"))
        for vpc, dtype in product((1, 10), ("float32", "tf32", "bfloat16")):
            difference, equal = self.accuracy_difference(vpc, dtype)
            what = f"evaluation at VPC {vpc} in {dtype}, speed relative to the reference; {difference}"
            self.add(what, 5, self.get(f"evaluate-vpc{vpc}", dtype, "ratio_to_reference"), holds=equal)


def goals(results):
    """Compare what was measured with the goals."""
    table = Goals(results)
    table.add_all()
    return markdown_table(pd.DataFrame(table.rows))


def agreement(rows):
    """Tabulate the errors of an iteration relative to the CPU, and count equal insertions."""
    if rows.empty:
        return "Not measured."
    is_insertion = rows.get("insertion", pd.Series(index=rows.index, dtype=object)).notna()
    iterations, insertions = rows[~is_insertion], rows[is_insertion]
    def error(row, name):
        return f"{row[name]:.1e} (at most {row[f'{name}_tolerance']:.0e})"
    table = pd.DataFrame([{
        "objective": row["objective"], "parameterization": row["parameterization"], "dtype": row["dtype"],
        **{name: error(row, name) for name in ("target", "loss", "gradient")},
        "": "agrees" if row["agrees"] else "differs"} for _, row in iterations.iterrows()])
    equal = f"Insertions equal those of the CPU for {int(insertions.agrees.sum())} of {len(insertions)} rules."
    return "\n\n".join([markdown_table(table), equal])


def compare_bits(found):
    """Say whether bits are equal, or what differs."""
    if found["bits_equal"]:
        return "the bits are equal"
    text = f"the bits differ, pixels by up to {found['largest_difference']:.2g}"
    culprit = found.get("first_operation_that_differs")
    return f"{text}; the first operation that differs: `{culprit['operation']}`" if culprit else text


def determinism(condensed, resumed):
    """Say whether two condensations with one seed are equal, and one that was resumed."""
    lines = [f"- {name}, {found['iterations']} iterations twice with one seed: {compare_bits(found)}."
             for name, found in condensed.items()]
    if resumed:
        lines.append(f"- PRISM, {resumed['iterations']} iterations, ended by SIGTERM and resumed at iteration "
                     f"{resumed['resumed_at']}, compared with an uninterrupted run: {compare_bits(resumed)}.")
    return "\n".join(lines) or "Not measured."


def tests(found):
    """Say how the package's tests of a device ended."""
    if not found:
        return "The tests with a GPU in them were not run."
    passed = found["tests"] - found["failures"] - found["errors"] - found["skipped"]
    failed = "".join(f"\n- {name}: {message.splitlines()[0] if message else ''}"
                     for name, message in found["failed"].items())
    return f"Tests with a GPU in them: {passed} of {found['tests']} passed, {found['skipped']} were skipped.{failed}"


def measurements(results):
    """Tabulate all timings."""
    if results.empty:
        return "Not measured."
    kept = results.drop(columns=["device", "peak_mb", "accuracy_seeds", "accuracy_epochs"], errors="ignore")
    digits = dict(seconds_median=5, seconds_iqr=5, ratio_to_reference=2, share_of_ceiling=2, classes=0,
                  accuracy_mean=1, accuracy_sd=1)
    return markdown_table(round_columns(kept, **{name: n for name, n in digits.items() if name in kept}))


def memory(rows):
    """Tabulate peak memory and its estimate."""
    if rows.empty:
        return "Not measured."
    return markdown_table(round_columns(rows, allocated_mb=0, reserved_mb=0, estimated_mb=0, ratio=2))


def records_of(rows):
    """Turn rows of the headline into records, as `study.statistics` compares them."""
    columns = [name for name in rows.columns if name.startswith("top1_network")]
    return [dict(method=row["method"], seed=row["split"], scores=[dict(top1=row[name]) for name in columns])
            for _, row in rows.iterrows()]


PAIRS = [("dm", "random"), ("prism", "random"), ("prism", "dm"), ("prism-gradient-matching", "prism")]


def headline(rows):
    """Tabulate the headline, and paired differences over the splits; three splits are too few for a verdict."""
    if rows.empty:
        return "Not measured."
    columns = [name for name in rows.columns if name.startswith("top1_network")]
    by_method = {name: group for name, group in rows.groupby("method", sort=False)}
    table = pd.DataFrame([{
        "method": name, "splits": len(group), "iterations": group.iterations.iloc[0], "lr": group.lr.iloc[0],
        "rate": group.lr_from.iloc[0], "top-1, %": f"{group[columns].stack().mean():.1f}",
        "sd": f"{group[columns].stack().std():.1f}", "frames per video": f"{group.frames_per_video.mean():.1f}",
        "minutes": f"{(group.seconds_condense + group.seconds_evaluate).mean() / 60:.1f}"}
        for name, group in by_method.items()])
    differences = []
    for better, worse in PAIRS:
        if better in by_method and worse in by_method:
            found = paired_interval(records_of(by_method[better]), records_of(by_method[worse]))
            differences.append({"difference": f"{better} − {worse}", "points": f"{found['difference']:+.1f}",
                                "95 % interval": f"{found['low']:+.1f} to {found['high']:+.1f}",
                                "splits": found["seeds"]})
    return "\n\n".join(markdown_table(part) for part in (table, pd.DataFrame(differences)) if len(part))


SECTION = """{device}

The reference computes in float32 with TF32 off, which PyTorch allows in convolutions by default. Iterations at
16×112×112 have as many classes as the host's memory and the budget allow; the table says how many.

### Goals of a GPU

{goals}

Accuracies are those after the same short training of both, over several seeds; they are equal where the 95 % interval
of their difference contains 0.

### Agreement with the CPU

One iteration, relative to the CPU: ‖difference‖ / ‖value‖. Loss and gradient are computed from the CPU's target, so
that they can be compared in float64; a target of distribution matching is float32.

{agreement}

{tests}

### Determinism

{determinism}

### All measurements on a GPU

{measurements}

### Memory of a GPU

What PyTorch's allocator held, in MB, and the ratio of its reserved memory to the estimate of `study.estimate`, which
includes 500 MB for the process and all decoded clips.

{memory}

### J-HMDB on a GPU

One video per class, the centre clips at 8×64×64, over the official splits and two networks each.

{headline}"""


def gpu_section():
    """Write the section."""
    device = read_json("device")
    if not device:
        return NOT_MEASURED
    results = read_csv("results")
    return SECTION.format(
        device=describe_device(device), goals=goals(results), agreement=agreement(read_csv("agreement")),
        tests=tests(read_json("tests")), determinism=determinism(read_json("determinism"), read_json("resume")),
        measurements=measurements(results), memory=memory(read_csv("memory")), headline=headline(read_csv("headline")))
