"""A condensation and a study on a Ray cluster of this machine: the same bytes, whichever worker is killed."""
import importlib.util
import random
import shutil
import socket
import subprocess
import time

import psutil
import pytest
from conftest import BIN, call, start, wait_until
from test_interruption import CONDENSE, STUDY, TABLE4_RUNS, scores

from prism_nb.study import cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'prism-nb[ray]'"),
]
RAY = ["--engine", "ray"]
KILLS = 20


@pytest.fixture(scope="module")
def expected(tmp_path_factory, decoded_data):
    """The bytes of the condensed set that one process writes without Ray."""
    data = tmp_path_factory.mktemp("serial")
    copy_clips(decoded_data, data)
    finished = call("prism-nb", *CONDENSE, data / "set.safetensors", PRISM_DATA=data)
    assert finished.returncode == 0, finished.stderr
    return (data / "set.safetensors").read_bytes()


def copy_clips(source, target):
    """Copy the small data set and its decoded clips."""
    for name in ("motionshapes-smoke", "cache"):
        shutil.copytree(source / name, target / name)


def checkpoints(data):
    """The checkpoints in a data folder."""
    return list(data.glob("checkpoints/*.safetensors"))


def workers_of(process):
    """Ray's workers that execute a job."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.name().startswith("ray::run_job")]


def kill_workers(process, kills, rng):
    """Kill a worker from time to time while a process runs; return how many were killed."""
    killed = 0
    while killed < kills and process.poll() is None:
        try:
            if workers := workers_of(process):
                rng.choice(workers).kill()
                killed += 1
        except psutil.NoSuchProcess:   # it ended meanwhile
            pass
        time.sleep(rng.uniform(.1, 1))
    return killed


def test_shards_whose_workers_are_killed_have_the_bytes_of_one_process(data_dir, expected):
    out = data_dir / "set.safetensors"
    process = start([*CONDENSE, out, *RAY, "--shards", "4"], data_dir)
    wait_until(lambda: checkpoints(data_dir), 180)   # a busy machine starts Ray slowly
    assert checkpoints(data_dir)
    killed = kill_workers(process, KILLS, random.Random(3))
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages[-2000:]
    assert killed > 0
    assert out.read_bytes() == expected
    assert not list((data_dir / "checkpoints").iterdir())


def test_a_terminated_command_leaves_checkpoints_and_resumes_to_the_same_bytes(data_dir, expected):
    out = data_dir / "set.safetensors"
    command = [*CONDENSE, out, *RAY, "--shards", "2"]
    process = start(command, data_dir)
    wait_until(lambda: checkpoints(data_dir), 180)   # a busy machine starts Ray slowly
    assert checkpoints(data_dir)
    process.terminate()
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 143, messages[-2000:]
    assert not out.exists()
    assert checkpoints(data_dir)
    finished = call("prism-nb", *command, PRISM_DATA=data_dir)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert out.read_bytes() == expected


@pytest.fixture
def running_cluster():
    """The address of a cluster that was started by `ray start`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "ray", "start", "--head", "--block", "--port", str(port), "--num-cpus", "2",
               "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)
    try:
        assert any("Ray runtime started" in line for line in head.stdout)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()   # which ends its processes, too
        head.communicate(timeout=60)


def test_a_running_cluster_is_joined_by_its_address(running_cluster, data_dir, expected):
    out = data_dir / "set.safetensors"
    command = [*CONDENSE, out, *RAY, "--shards", "2", "--address", running_cluster]
    finished = call("prism-nb", *command, PRISM_DATA=data_dir)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert out.read_bytes() == expected


def test_a_study_has_the_numbers_of_one_without_ray(tmp_path, decoded_data):
    on_ray, local = tmp_path / "ray", tmp_path / "local"
    for data, options in ((on_ray, RAY), (local, [])):
        copy_clips(decoded_data, data)
        process = start([*STUDY, *options], data)
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages[-2000:]
    assert scores(on_ray) == scores(local)
    assert len(scores(on_ray)) == TABLE4_RUNS


@pytest.mark.parametrize("command", [["condense", "--out", "x.safetensors"], ["study"]])
def test_without_ray_one_line_says_what_to_install(command, tmp_path, monkeypatch, expect_error):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    message = expect_error(*command, *RAY, PRISM_DATA=tmp_path)
    assert "pip install 'prism-nb[ray]'" in message


@pytest.mark.parametrize("options, reason", [
    (["--shards", "11"], "shards is 11, but there are only 10 classes"),
    (["--gpus-per-run", "0.5"], "the cluster has 0 GPUs"),
    (["--shards", "2", "--method", "wang"], "cannot be split into shards"),
])
def test_what_a_cluster_cannot_do_is_one_line(data_dir, options, reason):
    out = data_dir / "x.safetensors"
    settings = dict(PRISM_DATA=data_dir, PRISM_DEVICE="cpu", PRISM_PROGRESS="text", CUDA_VISIBLE_DEVICES="")
    finished = call("prism-nb", "condense", "--profile", "smoke", *RAY, *options, "--out", out, **settings)
    last_line = finished.stderr.strip().splitlines()[-1]
    assert finished.returncode == 2
    assert last_line.startswith("prism-nb: ")
    assert reason in last_line
    assert not out.exists()
