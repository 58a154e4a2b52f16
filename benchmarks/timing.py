"""Time calls in alternation, and collect what was measured as rows of results.csv."""
import ctypes
import statistics
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from prism_nb.core.process import get_device, malloc_keep_freed, malloc_trim

ROUNDS = 5


def on_gpu():
    """Tell whether a GPU computes."""
    return get_device().type == "cuda"


def precisions():
    """List the precisions that this device compares."""
    return ("float32", "tf32", "bfloat16") if on_gpu() else ("float32", "bfloat16")


def compute_in_float32():
    """Switch TF32 off, which PyTorch allows in convolutions; the reference, too, computes in float32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def measure_seconds(call):
    """Measure the seconds of one call."""
    if on_gpu():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if on_gpu():
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
    for i in tqdm(range(rounds + 1), desc, leave=False, disable=None):
        for name, call in calls.items():
            if "reference" in name:
                reset_malloc()
            else:
                malloc_keep_freed()
            seconds = measure_seconds(call)
            if i:
                times[name].append(seconds)
    return times


@dataclass
class Results:
    """Rows of results.csv, and the rates of the matrix product to which they relate."""

    rows: list = field(default_factory=list)
    ceiling: dict = field(default_factory=dict)   # precision → FLOP per second

    def add(self, name, dtype, times, reference=None, flop=0, peak=None, device=None, **more):
        """Add a row."""
        median = statistics.median(times)
        low, high = np.percentile(times, [25, 75])
        row = dict(
            name=name,
            device=device or get_device().type,
            dtype=dtype,
            seconds_median=median,
            seconds_iqr=high - low,
            ratio_to_reference=statistics.median(reference) / median if reference else None,
            share_of_ceiling=flop / median / self.ceiling[dtype] if flop and dtype in self.ceiling else None,
            peak_mb=peak,
            **more,
        )
        self.rows.append(row)
        ratios = [f"{key} {row[key]:.2f}" for key in ("ratio_to_reference", "share_of_ceiling") if row[key]]
        print(f"{name:34s} {dtype:9s} {median:9.4f} s", *ratios, flush=True)


def matmul_times(dtype, m, k, n):
    """Measure the seconds of a matrix product (m,k) × (k,n)."""
    element = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a, b = (torch.randn(shape, device=get_device(), dtype=element) for shape in ((m, k), (k, n)))
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    times = interleave({"": lambda: a @ b}, 9)[""]
    torch.backends.cuda.matmul.allow_tf32 = False
    return times


LONG = [(8192, 2048, 512), (65536, 1024, 128)]   # matrices as those of a convolution
CPU_SHAPES = [(1024,) * 3, (2048,) * 3, *LONG]
GPU_SHAPES = [(4096,) * 3, (8192,) * 3, *LONG]


def measure_ceilings(results, shapes, copied):
    """Measure a matrix product, the fastest of some shapes, and a copy of some float32 values."""
    for dtype in precisions():
        times = {shape: matmul_times(dtype, *shape) for shape in shapes}
        rates = {(m, k, n): 2 * m * k * n / statistics.median(taken) for (m, k, n), taken in times.items()}
        best = max(rates, key=rates.get)
        results.ceiling[dtype] = rates[best]
        name = f"ceiling-matmul-{'x'.join(map(str, best))}"
        results.add(name, dtype, times[best], flop=2 * np.prod(best, dtype=float))
    source = torch.ones(copied, device=get_device())
    target = torch.empty_like(source)
    times = interleave({"": lambda: target.copy_(source)}, 9)[""]
    results.add(f"ceiling-copy-of-{source.nbytes // 2**20}-MB", "float32", times)
