"""Table notebooks as papermill runs them, and a study that is stopped."""
import csv
import os
import resource
import shutil
import signal
import subprocess
import time

import pytest
from prism_nb.study.records import read_record

from conftest import BIN, ROOT, call


@pytest.mark.parametrize("arguments, says", [
    (("-p", "methods", '["dm"]'), "methods is '[\"dm\"]', but must be of type list"),
    (("-y", "methods: [mtt]"), "method is 'mtt', but must be one of"),
    (("-p", "vcp", "2"), "parameter is 'vcp', but must be one of"),
])
def test_papermill_with_a_bad_parameter(tmp_path, arguments, says):
    done = call("papermill", "--no-progress-bar", "nbs/tables/table1.ipynb", tmp_path / "out.ipynb", *arguments)
    assert done.returncode != 0 and f"PrismError: {says}" in done.stdout + done.stderr


def test_a_cell_that_fails_is_shown_and_the_rest_goes_on(tmp_path):
    done = call("papermill", "--no-progress-bar", "nbs/tables/silent.ipynb", tmp_path / "out.ipynb", "-y",
                f"{{rate_gradient_matching: 1.0e+12, out: {tmp_path}}}")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {r["row"]: r for r in csv.DictReader((tmp_path / "silent.csv").open())}
    assert "the condensation diverged" in rows["equation 7"]["failed"] and rows["equation 7"]["n"] == "0" and rows["DM + PRISM"]["n"] == "2"
    assert [r["error"] for r in csv.DictReader((tmp_path / "silent_records.csv").open()) if r["row"] == "DM + PRISM"] == ["", ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small data set, written and decoded once."""
    data = tmp_path_factory.mktemp("made")
    done = call("prism-nb", "condense", "--profile", "smoke", "--method", "random", "--out", data / "random.safetensors", PRISM_DATA=data)
    assert done.returncode == 0, done.stderr
    return data


@pytest.fixture
def study(tmp_path, made):
    """Starts a study on a data folder of its own; keyword arguments are those of Popen."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "motionshapes-smoke").symlink_to(made / "motionshapes-smoke")
    shutil.copytree(made / "cache", tmp_path / "data" / "cache")
    place = {**os.environ, "PRISM_DATA": str(tmp_path / "data"), "PRISM_REPORTS": str(tmp_path / "reports"), "PRISM_BARS": "text"}
    command = [BIN / "prism-nb", "study", "--profile", "smoke", "--tables", "4", "--workers", "1"]
    return lambda **more: subprocess.Popen(command, cwd=ROOT, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def ended(running):
    """What a study said, and how it ended."""
    return running.communicate(timeout=300)[1], running.returncode


def test_a_study_that_is_stopped_says_how_to_go_on_and_goes_on(tmp_path, study):
    running = study(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    scores = tmp_path / "data" / "results" / "scores"
    until = time.monotonic() + 240
    while not (scores.is_dir() and list(scores.glob("*.json"))) and time.monotonic() < until:
        time.sleep(.05)
    running.send_signal(signal.SIGINT)
    said, code = ended(running)
    assert code == 130 and said.strip().splitlines()[-1] == "prism-nb: stopped; the same command goes on from the cells that are finished"
    finished = {p: p.stat().st_mtime_ns for p in scores.iterdir()}
    assert finished and not list((tmp_path / "reports").rglob("*.html"))
    said, code = ended(study())
    assert code == 0 and len(list(scores.iterdir())) == 4, said[-2000:]
    assert {p: p.stat().st_mtime_ns for p in finished} == finished


def test_two_studies_on_one_folder_do_not_harm_each_other(tmp_path, study):
    for said, code in map(ended, [study(), study()]):
        assert code == 0, said[-2000:]
    records = sorted((tmp_path / "data" / "results" / "scores").iterdir())
    assert len(records) == 4 and all(read_record(p)["scores"] for p in records)
    assert not [p for p in (tmp_path / "data" / "results").rglob(".*")]


def test_a_full_disk_is_named_and_leaves_no_damaged_file(tmp_path, study):
    # A condensed set is larger than the files that may be written.
    said, code = ended(study(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))))
    last = said.strip().splitlines()[-1]
    assert code == 2 and last.startswith("prism-nb: cannot write ") and ".safetensors" in last, said[-2000:]
    assert not [p for p in (tmp_path / "data" / "results").rglob("*") if p.is_file()]
