"""What several tests need: the repository, its commands, a decoded data set and, where they are, the real clips."""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prism_nb.cli import main

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes, and try more random cases")
    real = ROOT.parent / "shared" / "real"
    parser.addoption("--real-videos", type=Path, default=real, help="folder of the real clips")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes, or starts a cluster; run with --slow")


LONGEST = ("plugins", "interruption", "ray", "commands", "tables", "video_files", "verdicts", "motion_capture", "gpu",
           "computing", "instruction_sets", "layouts")   # files; they start first, so that no worker waits for one


def pytest_collection_modifyitems(config, items):
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: make test-long")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def call(*command, **environment):
    """Run a command from the repository's root; return the finished process."""
    program, *arguments = map(str, command)
    settings = {name: str(value) for name, value in environment.items()}
    return subprocess.run([BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **settings})


def run_benchmark(script, *arguments, path=(), **environment):
    """Run a script of benchmarks/ in a process of its own, with folders first on the path."""
    places = os.pathsep.join(map(str, [*path, ROOT]))
    settings = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, env=settings)


def start(command, data, reports=None, **options):
    """Start `prism-nb` on a data folder; `options` are those of `subprocess.Popen`."""
    settings = {"PRISM_DATA": str(data), "PRISM_REPORTS": str(reports or data / "reports"), "PRISM_PROGRESS": "text"}
    return subprocess.Popen([BIN / "prism-nb", *map(str, command)], cwd=ROOT, env={**os.environ, **settings},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_until(condition, seconds):
    """Wait until `condition()` holds, or for a number of seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(.05)


@pytest.fixture(scope="session")
def slow(request):
    """Whether slow tests run."""
    return request.config.getoption("--slow")


@pytest.fixture(scope="session")
def real(request):
    """The folder of the real clips."""
    folder = request.config.getoption("--real-videos")
    if not (folder / "jhmdb").is_dir():
        pytest.skip("no real clips here; --real-videos names their folder")
    return folder


@pytest.fixture(scope="session")
def decoded_data(tmp_path_factory):
    """A data folder with the small data set, written and decoded once."""
    data = tmp_path_factory.mktemp("decoded")
    command = ("condense", "--profile", "smoke", "--method", "random", "--out", data / "random.safetensors")
    finished = call("prism-nb", *command, PRISM_DATA=data)
    assert finished.returncode == 0, finished.stderr
    return data


@pytest.fixture(scope="session")
def without_av(tmp_path_factory):
    """A folder that hides PyAV from the processes that have it on their path."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "av.py").write_text("raise ModuleNotFoundError(\"No module named 'av'\", name='av')\n")
    return folder


@pytest.fixture
def data_dir(tmp_path, decoded_data):
    """A data folder of the test's own, with the small data set decoded."""
    folder = tmp_path / "data"
    shutil.copytree(decoded_data / "motionshapes-smoke", folder / "motionshapes-smoke")
    shutil.copytree(decoded_data / "cache", folder / "cache")
    return folder


def run_main():
    """Run the command line in this process; its signal handler does not outlive it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        main()
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def expect_error(monkeypatch, capsys):
    """Run a command that must end with one line on stderr and exit code 2; return the line."""
    def run(*command, **environment):
        monkeypatch.setattr(sys, "argv", ["prism-nb", *map(str, command)])
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(SystemExit) as ended:
            run_main()
        message = capsys.readouterr().err
        assert ended.value.code == 2
        assert len(message.strip().splitlines()) == 1, message
        assert message.startswith("prism-nb: ")
        return message
    return run


@pytest.fixture
def run_cli(monkeypatch, capfd, tmp_path):
    """Run a command on a data folder of the test's own; return its exit code, its output and its stderr."""
    monkeypatch.setenv("PRISM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PRISM_REPORTS", str(tmp_path / "reports"))

    def run(*command):
        monkeypatch.setattr(sys, "argv", ["prism-nb", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            run_main()
        return ended.value.code or 0, *capfd.readouterr()
    return run
