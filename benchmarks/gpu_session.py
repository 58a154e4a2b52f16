"""A run of gpu.py: its budget, its folder of records, and what became of each part."""
import gc
import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import psutil
from csv_files import write_csv
from loops import Size

from prism_nb.core.errors import PrismError
from prism_nb.core.files import write_json
from prism_nb.core.process import release_gpu_memory


class Skip(Exception):
    """Why a step is not done."""


class Budget:
    """The seconds that a run may take."""

    def __init__(self, seconds):
        self.seconds, self.started = seconds, time.monotonic()

    def elapsed(self):
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left(self):
        """Seconds that are left."""
        return self.seconds - self.elapsed()

    def need(self, seconds):
        """Raise `Skip` if fewer seconds are left."""
        if seconds > max(0.0, self.left()):
            raise Skip(f"it takes about {seconds:.0f} s, but {max(0, self.left()):.0f} s of the budget are left")


def parse_budget(text):
    """Parse a duration such as 90s, 25m or 1h."""
    units = dict(s=1, m=60, h=3600)
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    with suppress(ValueError):
        if float(number) >= 0:
            return float(number) * units[unit]
    raise PrismError(f"budget is {text!r}, but must be a duration such as 90s, 25m or 1h")


class Scale:
    """How large everything is."""

    large = Size(16, 112, classes=50)   # the paper's miniUCF
    small = Size(8, 64, classes=50)
    agreement = Size(8, 48, classes=4, batch=8, width=0.25)   # of what the CPU computes, too
    all_pairs = True      # of objectives and parameterizations agree with the CPU; otherwise each of them once
    check = Size(8, 64, classes=10, width=0.5)                # of what is computed twice
    rounds = 5            # that are timed
    shapes, copied = None, 2**28   # of matrix products, None: a GPU's; float32 values
    iterations = 2000     # of the headline
    evaluation_seconds = 30   # of a row's networks, before any was measured
    resume_iterations = 200
    accuracy_epochs = {1: 100, 10: 20}   # by VPC
    accuracy_seeds = 5
    tests = ""            # of the package, that are run: an expression of pytest's -k
    training = {}         # fields of a TrainConfig that differ from the profile's
    recipe = {}           # the same of a Recipe


class SmallScale(Scale):
    """Sizes to try the script with, in a minute on a CPU."""

    large = Size(4, 52, classes=2, batch=2, width=0.125)
    small = Size(4, 48, classes=2, batch=2, width=0.125)
    agreement = Size(4, 48, classes=2, batch=8, width=0.125)
    all_pairs = False
    check = Size(4, 48, classes=2, width=0.125)
    rounds = 1
    shapes, copied = [(64, 64, 64)], 2**10
    iterations = 4
    evaluation_seconds = 1
    resume_iterations = 20
    accuracy_epochs = {1: 2, 10: 1}
    accuracy_seeds = 2
    tests = "every_initialization"
    training = dict(epochs=1, width=0.125)
    recipe = dict(width=0.125, batch_real=2)


def release_memory():
    """Free what nothing refers to any more, on the GPU, too."""
    gc.collect()
    release_gpu_memory()


class Session:
    """The budget, the folder and the state of every part."""

    def __init__(self, out, budget, scale, device, clips=None):
        self.out, self.budget, self.scale, self.device, self.clips = Path(out), budget, scale, device, clips
        self.startup = time.time() - psutil.Process().create_time()   # seconds, of imports above all
        self.notes, self.part = [], ""
        self.parts = self.read_json("device").get("parts", {})   # of earlier runs with this folder

    def read_json(self, name):
        """Read a record; {} if there is none that can be read."""
        try:
            return json.loads((self.out / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def say(self, text):
        """Print a line of progress."""
        left = max(0, self.budget.left())
        print(f"[{self.budget.elapsed():5.0f} s, {left:5.0f} s left] {self.part}: {text}", flush=True)

    def attempt(self, what, seconds, call):
        """Do a step if the budget has room for it; note and say why it is skipped, or how it fails."""
        try:
            self.budget.need(seconds)
            return call()
        except Skip as reason:
            self.note("skipped", what, str(reason))
            return None
        except Exception as error:   # whatever happens, the next step is done
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.note("failed", what, text[:500])
        release_memory()   # now that the exception is gone, and with it the frames that it came from
        return None

    def note(self, state, what, reason):
        """Note what was not done."""
        self.notes.append(dict(state=state, what=what, reason=reason))
        self.say(f"{what} {state}: {reason}")

    def run(self, name, part):
        """Run a part and record what became of it."""
        self.part, self.notes = name, []
        started = self.budget.elapsed()
        self.say("begins")
        part(self)
        release_memory()
        seconds = round(self.budget.elapsed() - started, 1)
        self.parts[name] = dict(seconds=seconds, not_done=self.notes, device=self.device["name"],
                                code=self.device["code"], day=datetime.now(timezone.utc).date().isoformat())
        self.write_device()
        self.say(f"took {seconds:.0f} s" + (f", {len(self.notes)} not done" if self.notes else ""))

    def write_device(self):
        """Write the device and the state of the parts."""
        self.write_json("device", dict(self.device, parts=self.parts))

    def write_json(self, name, value):
        """Write a record."""
        write_json(self.out / f"{name}.json", value)

    def write_csv(self, name, rows):
        """Write a table; nothing if there is no row."""
        if rows:
            write_csv(self.out / f"{name}.csv", pd.DataFrame(rows))
