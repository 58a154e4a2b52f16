"""Is it faster to train the initialisations of one condensed set together?

Interleaved in one run: networks trained one after the other, as `evaluation.train` does, and the same networks as one
batched computation (torch.func: a leading dimension of networks, which convolutions see as groups). Steps of SGD on ten
videos, without dropout so that the two can be compared number by number. Medians.
"""
import csv
import statistics
import sys
import time
from pathlib import Path

import torch
from prism_nb.networks import build
from prism_nb.rules import generator
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

ROUNDS, STEPS, LR = 5, 8, 0.01
SIZES = {"8x48 quarter width": (10, 8, 48, 0.25), "8x64 full width": (10, 8, 64, 1.0)}


def networks(count, classes, frames, size, width):
    return [build("minic3d", classes, frames, size, width, generator(i, "network")).eval() for i in range(count)]


def one_by_one(models, videos, labels):
    """Every network by itself; its weights after some steps."""
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), LR)
        for _ in range(STEPS):
            optimizer.zero_grad()
            cross_entropy(model(videos), labels).backward()
            optimizer.step()
    return [torch.stack(p).detach() for p in zip(*(m.parameters() for m in models))]


def together(models, videos, labels):
    """All networks in one computation."""
    weights, _ = stack_module_state(models)
    gradient = vmap(grad(lambda w: cross_entropy(functional_call(models[0], w, (videos,)), labels)))
    for _ in range(STEPS):
        with torch.no_grad():
            for name, g in gradient(weights).items():
                weights[name] -= LR * g
    return [w.detach() for w in weights.values()]


def measure(name, count, classes, frames, size, width):
    videos, labels = torch.randn(classes, frames, 3, size, size, generator=generator("videos")), torch.arange(classes)
    ways, times, ends = dict(one_by_one=one_by_one, together=together), {"one_by_one": [], "together": []}, {}
    for _ in range(ROUNDS + 1):
        for way, train in ways.items():
            models = networks(count, classes, frames, size, width)
            start = time.perf_counter()
            ends[way] = train(models, videos, labels)
            times[way].append(time.perf_counter() - start)
    apart = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*ends.values()))
    median = {way: statistics.median(t[1:]) for way, t in times.items()}
    return dict(size=name, networks=count, one_by_one_s=round(median["one_by_one"], 3), together_s=round(median["together"], 3),
                times_faster=round(median["one_by_one"] / median["together"], 2), largest_relative_difference=f"{apart:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [measure(name, count, *size) for name, size in SIZES.items() for count in (2, 5)]
    for out in (sys.stdout, (Path(__file__).parent / "initialisations.csv").open("w", newline="")):
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
