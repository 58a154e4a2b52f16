"""Table notebooks as papermill runs them, and studies that are stopped, run twice or out of disk."""
import csv
import resource
import signal

import pytest
from conftest import call, start, wait_until

from prism_nb.study.records import read_record

STUDY = ["study", "--profile", "smoke", "--tables", "4", "--workers", "1"]
TABLE4_RUNS = 8   # two starts, two seeds, two trainings of the networks


@pytest.mark.parametrize("arguments, message", [
    (("-p", "methods", '["dm"]'), "methods is '[\"dm\"]', but must be of type list"),
    (("-y", "methods: [mttt]"), "method is 'mttt', but must be one of"),
    (("-p", "vcp", "2"), "parameter is 'vcp', but must be one of"),
])
def test_papermill_with_a_bad_parameter(tmp_path, arguments, message):
    done = call("papermill", "--no-progress-bar", "nbs/tables/table1.ipynb", tmp_path / "out.ipynb", *arguments)
    assert done.returncode != 0
    assert f"PrismError: {message}" in done.stdout + done.stderr


def test_a_run_that_fails_is_shown_and_the_others_are_there(tmp_path):
    parameters = f"{{rate_gradient_matching: 1.0e+12, out: {tmp_path}}}"
    done = call("papermill", "--no-progress-bar", "nbs/tables/silent.ipynb", tmp_path / "out.ipynb", "-y", parameters)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "silent.csv").open())}
    assert "the condensation diverged" in rows["equation 7"]["failed"]
    assert rows["equation 7"]["n"] == "0"
    assert rows["DM + PRISM"]["n"] == "2"
    records = [*csv.DictReader((tmp_path / "silent_records.csv").open())]
    assert [record["error"] for record in records if record["row"] == "DM + PRISM"] == ["", ""]


def finish(process):
    """Messages and exit status of a study."""
    _, messages = process.communicate(timeout=300)
    return messages, process.returncode


def test_a_stopped_study_says_how_to_resume_and_resumes(tmp_path, data_dir):
    def run(**options): return start(STUDY, data_dir, tmp_path / "reports", **options)
    scores = data_dir / "results" / "scores"
    process = run(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    wait_until(lambda: list(scores.glob("*.json")), 240)
    process.send_signal(signal.SIGINT)
    messages, status = finish(process)
    assert status == 130
    last_line = messages.strip().splitlines()[-1]
    assert last_line == "prism-nb: stopped; the same command resumes from the runs that are finished"
    finished = {path: path.stat().st_mtime_ns for path in scores.iterdir()}
    assert finished
    assert not list((tmp_path / "reports").rglob("*.html"))
    messages, status = finish(run())
    assert status == 0, messages[-2000:]
    assert len(list(scores.iterdir())) == TABLE4_RUNS
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_two_studies_on_one_folder_do_not_disturb_each_other(tmp_path, data_dir):
    processes = [start(STUDY, data_dir, tmp_path / "reports") for _ in range(2)]
    for messages, status in map(finish, processes):
        assert status == 0, messages[-2000:]
    records = sorted((data_dir / "results" / "scores").iterdir())
    assert len(records) == TABLE4_RUNS
    assert all(read_record(path)["scores"] for path in records)
    assert not list((data_dir / "results").rglob(".*"))


def test_a_full_disk_is_named_and_leaves_no_damaged_file(tmp_path, data_dir):
    def limit_files():   # a condensed set is larger
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    messages, status = finish(start(STUDY, data_dir, tmp_path / "reports", preexec_fn=limit_files))
    last_line = messages.strip().splitlines()[-1]
    assert status == 2
    assert last_line.startswith("prism-nb: cannot write "), messages[-2000:]
    assert ".safetensors" in last_line
    left = [path for path in (data_dir / "results").rglob("*") if path.is_file()]
    assert [path.name for path in left if read_record(path) is None] == []   # what was measured until then is complete
    assert {path.name.rpartition("-")[2] for path in left} <= {"curve.json"}
