"""Work that is stopped at any moment: killed, told to leave, run twice. PRISM_LONG=1 (make test-long) kills more often."""
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

from conftest import BIN, ROOT, call

LONG = bool(os.environ.get("PRISM_LONG"))
KILLS = 20 if LONG else 2
CONDENSE = ["condense", "--profile", "smoke", "--method", "prism", "--iterations", "150", "--checkpoint-every", "0.05", "--out"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with the small data set decoded, and what a run that nobody stops writes there."""
    data = tmp_path_factory.mktemp("straight")
    started = time.monotonic()
    done = call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    assert done.returncode == 0, done.stderr
    again = time.monotonic()
    (data / "set.safetensors").rename(data / "straight.safetensors")
    call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    return data, time.monotonic() - again, again - started


def start(command, data, reports=None):
    place = {**os.environ, "PRISM_DATA": str(data), "PRISM_REPORTS": str(reports or data / "reports"), "PRISM_BARS": "text"}
    return subprocess.Popen([BIN / "prism-nb", *map(str, command)], cwd=ROOT, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def kill_at_random(command, data, seconds, draw, **more):
    """Start, kill the whole group at a random moment, again and again; then let it end."""
    for _ in range(KILLS):
        running = start(command, data, **more)
        try:
            running.wait(draw.uniform(.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    running = start(command, data, **more)
    out, said = running.communicate(timeout=300)
    assert running.returncode == 0, said[-2000:]
    return said


def test_a_killed_condensation_goes_on_to_the_same_bytes(tmp_path, made):
    data, seconds, _ = made
    shutil.copytree(data / "motionshapes-smoke", tmp_path / "motionshapes-smoke")
    shutil.copytree(data / "cache", tmp_path / "cache")
    kill_at_random([*CONDENSE, tmp_path / "set.safetensors"], tmp_path, seconds, random.Random(0))
    assert (tmp_path / "set.safetensors").read_bytes() == (data / "straight.safetensors").read_bytes()
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not LONG, reason="make test-long")
def test_a_killed_run_that_makes_and_decodes_its_data_goes_on_to_the_same_bytes(tmp_path, made):
    data, _, seconds = made
    kill_at_random([*CONDENSE, tmp_path / "set.safetensors"], tmp_path, seconds, random.Random(1))
    assert (tmp_path / "set.safetensors").read_bytes() == (data / "straight.safetensors").read_bytes()


def test_sigterm_leaves_a_checkpoint_and_says_so_by_its_status(tmp_path, made):
    data, *_ = made
    shutil.copytree(data / "motionshapes-smoke", tmp_path / "motionshapes-smoke")
    shutil.copytree(data / "cache", tmp_path / "cache")
    command = [*CONDENSE[:-3], "--checkpoint-every", "1000", "--iterations", "100000", "--out", tmp_path / "set.safetensors"]
    running = start(command, tmp_path)
    until = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("wanted-*/000200.safetensors")) and time.monotonic() < until:
        time.sleep(.05)   # past what the other run left there; no checkpoint is due yet
    running.terminate()
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 143, said[-2000:]
    [checkpoint] = (tmp_path / "checkpoints").iterdir()
    assert checkpoint.stat().st_size > 100_000 and not (tmp_path / "set.safetensors").exists()


def scores(data):
    """What was measured, without what differs between any two runs: when, and how long it took."""
    records = {p.name: json.loads(p.read_text()) for p in (data / "results" / "scores").glob("*.json")}
    return {name: [r[k] for k in ("scores", "losses", "key_frames", "storage", "data", "code")] for name, r in records.items()}


def test_a_killed_study_goes_on_to_the_same_numbers(tmp_path, made):
    data, *_ = made
    command = ["study", "--profile", "smoke", "--tables", "4", "--workers", "2"]
    places = [tmp_path / "straight", tmp_path / "killed"]
    for place in places:
        shutil.copytree(data / "motionshapes-smoke", place / "motionshapes-smoke")
    started = time.monotonic()
    out, said = (running := start(command, places[0])).communicate(timeout=300)
    assert running.returncode == 0, said[-2000:]
    kill_at_random(command, places[1], time.monotonic() - started, random.Random(2))
    assert len(scores(places[0])) == 4 and scores(places[1]) == scores(places[0])
    for name in ("table4.csv", "table4_claims.csv"):
        one, other = (pd.read_csv(place / "reports" / "smoke" / name) for place in places)
        measured = [c for c in one.columns if "seconds" not in c and c != "peak_mb"]
        pd.testing.assert_frame_equal(one[measured], other[measured])


def test_sigterm_to_the_study_alone_ends_it_and_it_goes_on(tmp_path, made):
    data, *_ = made
    shutil.copytree(data / "motionshapes-smoke", tmp_path / "motionshapes-smoke")
    shutil.copytree(data / "cache", tmp_path / "cache")
    command = ["study", "--profile", "smoke", "--tables", "4", "--workers", "1"]
    running = start(command, tmp_path)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("results/scores/*.json")) and time.monotonic() < until:
        time.sleep(.05)
    os.kill(running.pid, signal.SIGTERM)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 143 and len(scores(tmp_path)) < 4, said[-2000:]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    running = start(command, tmp_path)
    said = running.communicate(timeout=300)[1]
    assert running.returncode == 0 and len(scores(tmp_path)) == 4, said[-2000:]
