"""A condensation and a study on a Ray cluster of this machine: the same bytes, whoever is killed. PRISM_LONG=1 kills more often."""
import importlib.util
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from prism_nb.cli import main

from conftest import BIN, call
from test_stop import CONDENSE, KILLS, scores, start

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'prism-nb[ray]'")
SHARDS = ["--engine", "ray", "--shards"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with the small data set decoded, and what one process condenses."""
    data = tmp_path_factory.mktemp("serial")
    done = call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    assert done.returncode == 0, done.stderr
    return data


@pytest.fixture
def place(tmp_path, made):
    """A data folder of its own with the decoded clips."""
    for name in ("motionshapes-smoke", "cache"):
        shutil.copytree(made / name, tmp_path / name, ignore=shutil.ignore_patterns("wanted-*"))
    return tmp_path


def workers_of(running):
    return [p for p in psutil.Process(running.pid).children(recursive=True) if p.name().startswith("ray::work")]


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(.02)
    return found


def test_shards_whose_workers_are_killed_give_the_bytes_of_one_process(place, made):
    out, draw = place / "set.safetensors", random.Random(3)
    running = start([*CONDENSE, out, *SHARDS, "4"], place)
    killed = 0
    assert until(lambda: list(place.glob("checkpoints/*.safetensors")))
    while killed < KILLS and running.poll() is None:
        if workers := workers_of(running):
            try:
                draw.choice(workers).kill()
                killed += 1
            except psutil.NoSuchProcess:
                pass
        time.sleep(draw.uniform(.1, 1))
    said = running.communicate(timeout=300)[1]
    assert running.returncode == 0 and killed, said[-2000:]
    assert out.read_bytes() == (made / "set.safetensors").read_bytes() and not list((place / "checkpoints").iterdir())


def test_a_command_that_is_told_to_leave_leaves_checkpoints_and_goes_on(place, made):
    out = place / "set.safetensors"
    command = [*CONDENSE, out, *SHARDS, "2"]
    running = start(command, place)
    assert until(lambda: list(place.glob("checkpoints/*.safetensors")))
    running.terminate()
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 143 and not out.exists() and list(place.glob("checkpoints/*.safetensors")), said[-2000:]
    done = call("prism-nb", *command, PRISM_DATA=place)
    assert done.returncode == 0 and out.read_bytes() == (made / "set.safetensors").read_bytes(), done.stderr[-2000:]


def test_a_running_cluster_is_joined_by_its_address(place, made):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = subprocess.Popen([BIN / "ray", "start", "--head", "--block", "--port", str(port), "--num-cpus", "2", "--include-dashboard=false", "--disable-usage-stats"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        assert any("Ray runtime started" in line for line in head.stdout)
        done = call("prism-nb", *CONDENSE, place / "set.safetensors", *SHARDS, "2", "--address", f"127.0.0.1:{port}", PRISM_DATA=place)
        assert done.returncode == 0 and (place / "set.safetensors").read_bytes() == (made / "set.safetensors").read_bytes(), done.stderr[-2000:]
    finally:
        head.terminate()   # a head takes its processes with it
        head.communicate(timeout=60)


def test_a_study_has_the_numbers_of_one_without_ray(place, tmp_path_factory):
    plain = tmp_path_factory.mktemp("plain")
    for name in ("motionshapes-smoke", "cache"):
        shutil.copytree(place / name, plain / name)
    for data, more in ((place, ["--engine", "ray"]), (plain, [])):
        running = start(["study", "--profile", "smoke", "--tables", "4", *more], data)
        said = running.communicate(timeout=300)[1]
        assert running.returncode == 0, said[-2000:]
    assert scores(place) == scores(plain) and len(scores(place)) == 4


def refused(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prism-nb", *map(str, command)])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main()
    signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and len(said.strip().splitlines()) == 1, said
    return said


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "find_spec", lambda name: None)
    for command in (["condense", "--out", tmp_path / "x.safetensors"], ["study"]):
        assert "pip install 'prism-nb[ray]'" in refused([*command, "--engine", "ray"], monkeypatch, capsys)


@pytest.mark.parametrize("options, says", [(["--shards", "11"], "shards is 11, but there are only 10 classes"), (["--gpus-per-cell", "0.5"], "the cluster has 0 GPUs"),
                                           (["--shards", "2", "--method", "wang"], "cannot be split into shards")])
def test_what_a_cluster_cannot_do_is_one_line(place, options, says):
    done = call("prism-nb", "condense", "--profile", "smoke", "--engine", "ray", *options, "--out", place / "x.safetensors", PRISM_DATA=place, PRISM_DEVICE="cpu", PRISM_BARS="text", CUDA_VISIBLE_DEVICES="")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("prism-nb: ") and says in last, done.stderr
    assert not (place / "x.safetensors").exists()
