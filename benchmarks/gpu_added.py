"""Records of a GPU in this repository: benchmarks/gpu/, and its rows of results.csv and machine.csv."""
import json
import shutil
from pathlib import Path

import pandas as pd
from csv_files import HERE, read_table, replace_device

from prism_nb.core.errors import PrismError

RECORDS = ("device.json", "tests.json", "agreement.csv", "determinism.json", "results.csv", "memory.csv",
           "resume.json", "headline.csv")


def read_device(folder):
    """Read what a folder of records was measured on."""
    try:
        return json.loads((Path(folder) / "device.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PrismError(f"{folder}: no record of a device; write such a folder with --out") from None


def add_records(folder):
    """Copy the records of a folder, and replace the GPU's rows of results.csv and machine.csv."""
    folder, device = Path(folder), read_device(folder)
    if device["device"] != "cuda":
        raise PrismError(f"{folder} was measured on a CPU, to try the script; only records of a GPU are added")
    others = {part["device"] for part in device["parts"].values()} - {device["name"]}
    if others:
        raise PrismError(f"{folder}: its parts were measured on several devices, {device['name']} and {others.pop()}")
    target = HERE / "gpu"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in filter(lambda name: (folder / name).exists(), RECORDS):
        shutil.copyfile(folder / name, target / name)
    rows = pd.read_csv(folder / "results.csv") if (folder / "results.csv").exists() else pd.DataFrame()
    columns = [name for name in read_table("results").columns if name in rows]
    replace_device("results", "cuda", rows[columns])
    minutes = round(sum(part["seconds"] for part in device["parts"].values()) / 60, 1)
    machine = dict(device="cuda", machine=device["name"], torch=device["torch"], minutes=minutes)
    replace_device("machine", "cuda", [machine])
    print(f"{target}: the records of {device['name']}; now: python benchmarks/page.py")
