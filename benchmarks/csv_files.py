"""The CSV files next to this module: rows of the CPU, which bench.py measures, and of a GPU, which gpu.py does."""
from pathlib import Path

import pandas as pd

from prism_nb.core.files import atomic_write

HERE = Path(__file__).resolve().parent


def write_csv(path, frame):
    """Write a table, atomically."""
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.5g")


def read_table(name):
    """Read a table."""
    return pd.read_csv(HERE / f"{name}.csv")


def write_table(name, frame):
    """Write a table."""
    write_csv(HERE / f"{name}.csv", frame)


def replace_device(name, device, rows):
    """Replace the rows of a type of device, 'cpu' or 'cuda', and keep those of the other."""
    before = read_table(name) if (HERE / f"{name}.csv").exists() else pd.DataFrame(columns=["device"])
    kept = before[before.device != device]
    new = pd.DataFrame(rows)
    parts = [new, kept] if device == "cpu" else [kept, new]
    write_table(name, pd.concat([part for part in parts if len(part)]))
