"""What an iteration of PRISM costs, and how much of it is interpolation and insertion.

Interleaved in one run on made-up clips: a whole iteration of PRISM (insertion allowed), one of DM, and, with
PRISM's own shapes, only eq. 3 with its backward pass and eq. 4-6 with the growth of the memory. Medians.
"""
import csv
import statistics
import sys
import time
from pathlib import Path

import torch
from prism_nb.condensation import Condensation, recipe
from prism_nb.datasets import from_array
from prism_nb.rules import generator

ROUNDS = 7
SIZES = {"8x48 quarter width": (10, 16, 8, 48, 0.25), "8x64 full width": (4, 16, 8, 64, 1.0)}


def made_up(classes, clips, frames, size):
    """Clips of noise: an iteration costs the same whatever they show."""
    clips *= 2  # from_array keeps every second clip for testing
    array = torch.randint(0, 256, (classes * clips, frames, size, size, 3), dtype=torch.uint8, generator=generator("made up")).numpy()
    return from_array(array, [i // clips for i in range(classes * clips)], [f"c{i:02d}" for i in range(classes)])


def only_prism(run):
    """Interpolation with its backward pass, and insertion, as in one step."""
    played = run.memory.play(run.draw("benchmark"))
    gradient = torch.ones_like(played)
    played.backward(gradient)
    for label in range(len(run.clips.classes)):
        rows = run.rows(label)
        run.memory.grow(rows, gradient[rows], run.draw("benchmark", label))
    run.optimizer.zero_grad()


def iteration(run):
    """One iteration with its real side computed, not read."""
    for label in range(len(run.clips.classes)):
        run.wanted(run.iteration, label)
    run.step()


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name, classes, clips, frames, size, width):
    data = made_up(classes, clips, frames, size)
    settings = dict(iterations=10_000, batch_real=clips, width=width, warmup=0.0, lr=1e-3)
    prism, dm = (Condensation(data, recipe(method, **settings), 0) for method in ("prism", "dm"))
    calls = {"prism": lambda: iteration(prism), "dm": lambda: iteration(dm), "interpolation + insertion": lambda: only_prism(prism)}
    times = {what: [] for what in calls}
    for _ in range(ROUNDS + 1):
        for what, call in calls.items():
            times[what].append(seconds(call))
    medians = {what: statistics.median(t[1:]) for what, t in times.items()}
    return [dict(size=name, what=what, seconds_median=round(m, 5), share_of_prism=round(m / medians["prism"], 4)) for what, m in medians.items()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [row for name, size in SIZES.items() for row in measure(name, *size)]
    for out in (sys.stdout, (Path(__file__).parent / "iteration.csv").open("w", newline="")):
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
