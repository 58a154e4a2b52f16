"""Work that is interrupted at any moment: killed, terminated, run twice. With --slow it is killed more often."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest
from conftest import call, start, wait_until

CONDENSE = ["condense", "--profile", "smoke", "--method", "prism", "--iterations", "150", "--checkpoint-every", "0.05",
            "--out"]
STUDY = ["study", "--profile", "smoke", "--tables", "4"]
TABLE4_RUNS = 8   # of the smoke profile: two starts, two seeds, two trainings of the networks


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A data folder, the file of a run that nothing interrupts, and the seconds it takes with and without decoding."""
    data = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    finished = call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    assert finished.returncode == 0, finished.stderr
    decoded = time.monotonic()
    (data / "set.safetensors").rename(data / "uninterrupted.safetensors")
    call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    return data, time.monotonic() - decoded, decoded - started


@pytest.fixture
def kills(slow):
    """How often a run is killed."""
    return 20 if slow else 2


def copy_data(source, target, *folders):
    """Copy some folders of a data folder."""
    for folder in folders:
        shutil.copytree(source / folder, target / folder)


def kill_at_random(command, data, seconds, rng, kills):
    """Start a run and kill its process group at a random moment, again and again; then let it finish."""
    for _ in range(kills):
        process = start(command, data, start_new_session=True)
        try:
            process.wait(rng.uniform(.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(command, data)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages[-2000:]


def scores(data):
    """What was measured, without what differs between any two runs: when, and how long it took."""
    records = {path.name: json.loads(path.read_text()) for path in (data / "results" / "scores").glob("*.json")}
    names = ("scores", "losses", "key_frames", "storage", "data", "code")
    return {file: [record[name] for name in names] for file, record in records.items()}


def test_a_killed_condensation_resumes_to_the_same_bytes(tmp_path, uninterrupted, kills):
    data, seconds, _ = uninterrupted
    copy_data(data, tmp_path, "motionshapes-smoke", "cache")
    kill_at_random([*CONDENSE, tmp_path / "set.safetensors"], tmp_path, seconds, random.Random(0), kills)
    assert (tmp_path / "set.safetensors").read_bytes() == (data / "uninterrupted.safetensors").read_bytes()
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_generates_and_decodes_resumes_to_the_same_bytes(tmp_path, uninterrupted, kills):
    data, _, seconds = uninterrupted
    kill_at_random([*CONDENSE, tmp_path / "set.safetensors"], tmp_path, seconds, random.Random(1), kills)
    assert (tmp_path / "set.safetensors").read_bytes() == (data / "uninterrupted.safetensors").read_bytes()


def test_sigterm_leaves_a_checkpoint_and_its_exit_status(tmp_path, uninterrupted):
    data, *_ = uninterrupted
    copy_data(data, tmp_path, "motionshapes-smoke", "cache")
    command = ["condense", "--profile", "smoke", "--method", "prism", "--iterations", "100000",
               "--checkpoint-every", "1000", "--yes", "--out", tmp_path / "set.safetensors"]
    process = start(command, tmp_path)
    beyond_the_other_run = "targets-*/000200.safetensors"   # and no checkpoint is due yet
    wait_until(lambda: list((tmp_path / "cache").glob(beyond_the_other_run)), 60)
    process.terminate()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143, messages[-2000:]
    checkpoints = [path.stat().st_size for path in (tmp_path / "checkpoints").iterdir()]   # one of each process
    assert len(checkpoints) == min(os.cpu_count(), 10)
    assert sum(checkpoints) > 100_000
    assert not (tmp_path / "set.safetensors").exists()


def test_a_killed_study_resumes_to_the_same_numbers(tmp_path, uninterrupted, kills):
    data, *_ = uninterrupted
    straight, killed = folders = [tmp_path / "straight", tmp_path / "killed"]
    for folder in folders:
        copy_data(data, folder, "motionshapes-smoke")
    started = time.monotonic()
    process = start([*STUDY, "--workers", "2"], straight)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages[-2000:]
    kill_at_random([*STUDY, "--workers", "2"], killed, time.monotonic() - started, random.Random(2), kills)
    assert len(scores(straight)) == TABLE4_RUNS
    assert scores(killed) == scores(straight)
    for name in ("table4.csv", "table4_claims.csv"):
        one, other = (pd.read_csv(folder / "reports" / "smoke" / name) for folder in folders)
        measured = [column for column in one.columns if "seconds" not in column and column != "peak_mb"]
        pd.testing.assert_frame_equal(one[measured], other[measured])


def test_sigterm_to_a_study_ends_its_workers_and_it_resumes(tmp_path, uninterrupted):
    data, *_ = uninterrupted
    copy_data(data, tmp_path, "motionshapes-smoke", "cache")
    process = start([*STUDY, "--workers", "1"], tmp_path)
    wait_until(lambda: list(tmp_path.glob("results/scores/*.json")), 120)
    os.kill(process.pid, signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143, messages[-2000:]
    assert len(scores(tmp_path)) < TABLE4_RUNS
    commands = [" ".join(other.info["cmdline"] or []) for other in psutil.process_iter(["cmdline"])]
    assert not [line for line in commands if str(tmp_path) in line]
    process = start([*STUDY, "--workers", "1"], tmp_path)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages[-2000:]
    assert len(scores(tmp_path)) == TABLE4_RUNS
