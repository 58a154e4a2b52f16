"""Which precision, which learning rate and how many hours: what commands say before they compute, and warn of after."""
import json
import os
import platform
import pty
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import BIN, ROOT, call, start, wait_until

from prism_nb import cli
from prism_nb.condensed import CondensedSet
from prism_nb.data.video import write_video
from prism_nb.study import precision
from prism_nb.study.profiles import get_config
from prism_nb.study.rates import remember_rates, remembered_rates
from prism_nb.study.records import read_record
from prism_nb.study.runs import rate_source

# The instructions that oneDNN and PyTorch may use; with these, processors of x86 have none for bfloat16.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "PRISM_DEVICE": "cpu"}
needs_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="restricts instructions of x86")
FOREVER = ("--iterations", "10000000")
SMOKE = ("--profile", "smoke")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with the same eight videos in two classes, so that no network can tell them apart."""
    root = tmp_path_factory.mktemp("videos")
    for seed in range(8):
        picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(picture, 2 * t, 1) for t in range(12)])
        for label in ("one", "other"):
            (root / label).mkdir(exist_ok=True)
            write_video(root / label / f"{'abcdefgh'[seed]}.mp4", frames)
    return root


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """Compute on the CPU."""
    monkeypatch.setenv("PRISM_DEVICE", "cpu")


@pytest.fixture
def run(run_cli, videos):
    """Run a command, where these videos are the data set `mine`."""
    assert run_cli("data", "index", "folder", "--root", videos, "--name", "mine")[0] == 0
    return run_cli


@pytest.fixture
def indexed(tmp_path, run):
    """The data folder in which these videos are the data set `mine`."""
    return tmp_path / "data"


def records(data):
    """The records of all runs in a data folder."""
    return [read_record(path) for path in sorted((data / "results" / "scores").glob("*.json"))]


def lines_of(text, start):
    """The lines of a text that start so."""
    return [line for line in text.splitlines() if line.startswith(start)]


@needs_x86
def test_a_processor_without_bfloat16_computes_in_float32(indexed):
    out = indexed / "set.safetensors"
    command = ("condense", "--dataset", "mine", "--iterations", 2, "--out", out)
    done = call("prism-nb", *command, PRISM_DATA=indexed, **AVX2)
    assert done.returncode == 0, done.stderr
    expected = "precision: float32; this processor has no instructions for bfloat16"
    assert lines_of(done.stderr, "precision") == [expected]
    assert "measuring this machine …" in done.stderr.splitlines()
    assert CondensedSet.load(out).metadata["recipe"]["precision"] == "float32"


@needs_x86
def test_bfloat16_on_such_a_processor_warns_of_its_cost_without_a_pass_of_the_wide_network(indexed):
    command = ("condense", "--dataset", "mine", *FOREVER, "--precision", "bfloat16", "--out", indexed / "x.safetensors")
    done = subprocess.run([BIN / "prism-nb", *map(str, command)], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, **AVX2, "PRISM_DATA": str(indexed)})
    [warning] = lines_of(done.stderr, "warning")
    found = re.fullmatch(r"warning: bfloat16 takes (\d+) times as long as float32 on this processor, which has no "
                         r"instructions for it; --precision auto takes the faster one", warning)
    assert int(found[1]) >= 2
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("give --yes to start it")


def test_the_time_of_an_imitated_precision_is_not_measured_with_the_wide_network(monkeypatch):
    measured = []

    def seconds_per_clip(workload, name):
        measured.append((workload, name))
        return 20. if name == "bfloat16" else 1.

    monkeypatch.setattr(precision, "supported_precisions", lambda: ["float32"])
    monkeypatch.setattr(precision, "seconds_per_clip", seconds_per_clip)
    wide = precision.Workload("minic3d", 16, 112, 1.)
    assert precision.expected_seconds_per_clip(wide, "bfloat16") == 20
    assert precision.choose_precision(wide).precision == "float32"
    assert (wide, "bfloat16") not in measured


@pytest.mark.parametrize("command", [
    ("condense", "--out", "x.safetensors"), ("evaluate", "SET"), ("compare",), ("tune",)],
    ids=lambda command: command[0])
def test_tf32_on_a_processor_is_one_line(run, indexed, command):
    out = indexed / "set.safetensors"
    if "SET" in command:
        assert run("condense", *SMOKE, "--dataset", "mine", "--method", "random", "--out", out)[0] == 0
    command = [str(out) if word == "SET" else word for word in command]
    code, _, messages = run(*command, *SMOKE, "--dataset", "mine", "--precision", "tf32")
    assert code == 2
    assert messages == "prism-nb: precision is 'tf32', but must be float32, bfloat16 or auto on a CPU\n"
    assert not (indexed / "results").exists()


def test_evaluate_trains_in_the_precision_that_is_asked_for(run, indexed, monkeypatch):
    out = indexed / "set.safetensors"
    run("condense", *SMOKE, "--dataset", "mine", "--method", "random", "--out", out)
    trained, evaluate = [], cli.evaluate

    def record(source, clips, network, seed, training):
        trained.append(training.precision)
        return evaluate(source, clips, network, seed, training)

    monkeypatch.setattr(cli, "evaluate", record)
    for name in ("float32", "bfloat16"):
        code, shown, _ = run("evaluate", out, *SMOKE, "--dataset", "mine", "--precision", name)
        assert code == 0
        assert json.loads(shown)["clips"] == 4
    assert trained == ["float32", "bfloat16"]


@pytest.mark.slow
def test_tune_and_compare_compute_in_the_precision_that_is_asked_for(run, indexed, monkeypatch):
    monkeypatch.setattr(cli.tuning, "AROUND", 1)
    options = (*SMOKE, "--dataset", "mine", "--seeds", "1", "--precision", "bfloat16", "--workers", "1")
    assert run("tune", "--method", "dm", *options)[0] == 0
    tuned = len(records(indexed))
    assert run("compare", "--methods", "random,dm", "--networks", "1", *options)[0] == 0
    assert tuned < len(records(indexed)) <= tuned + 2
    for record in records(indexed):
        assert record["run"]["config"]["training"]["precision"] == "bfloat16"
        assert record["method"] == "random" or record["run"]["recipe"]["precision"] == "bfloat16"


def files_below(folder):
    """The paths of all files below a folder."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def without_terminal(monkeypatch):
    """Let the standard input be none that a person types in."""
    monkeypatch.setattr("sys.stdin", open(os.devnull))


@pytest.mark.parametrize("command", [
    ("condense", "--dataset", "mine", *FOREVER, "--out", "x.safetensors"),
    ("compare", *SMOKE, "--dataset", "mine", "--methods", "random,dm"),
    ("tune", *SMOKE, "--dataset", "mine", "--method", "dm")], ids=lambda command: command[0])
def test_what_takes_over_an_hour_is_not_started_without_a_terminal(run, indexed, tmp_path, monkeypatch, command):
    without_terminal(monkeypatch)
    monkeypatch.chdir(tmp_path)
    if command[0] != "condense":
        monkeypatch.setattr(cli, "MAX_HOURS", 1e-9)
    before = files_below(tmp_path)
    code, shown, messages = run(*command)
    assert code == 2
    assert shown == ""
    unit = r"\d+ (hours|days)" if command[0] == "condense" else r"\d+ min"
    assert re.fullmatch(rf"prism-nb: .* mine.*: about {unit}.*; give --yes to start it", messages.splitlines()[-1])
    new = files_below(tmp_path) - before
    assert {path.parts[:2] for path in new} <= {("data", "cache"), ("data", "locks"), ("data", "machine")}


@pytest.mark.slow
def test_a_page_that_takes_over_an_hour_says_so(run, tmp_path, monkeypatch):
    without_terminal(monkeypatch)
    monkeypatch.setattr(cli, "MAX_HOURS", 1e-9)
    code, _, messages = run("study", *SMOKE, "--dataset", "mine", "--tables", "1")
    assert code == 1
    [reason] = lines_of(messages, "prism-nb: ")
    assert re.fullmatch(r"prism-nb: table1.html could not be built: .*about .*; give --yes to start it", reason)
    assert not (tmp_path / "reports" / "mine-smoke" / "table1.html").exists()


def test_on_a_terminal_the_question_can_be_denied(indexed):
    terminal, of_command = pty.openpty()
    out = indexed / "x.safetensors"
    command = [BIN / "prism-nb", "condense", "--dataset", "mine", *FOREVER, "--precision", "float32", "--out", out]
    process = subprocess.Popen(command, cwd=ROOT, stdin=of_command, stderr=of_command, stdout=of_command,
                               env={**os.environ, "PRISM_DATA": str(indexed)})
    os.close(of_command)
    shown = ""
    while "Start it? [y/N]" not in shown:
        shown += os.read(terminal, 1000).decode()
    os.write(terminal, b"n\n")
    assert process.wait(60) == 1
    assert re.search(r"prism on mine: about \d+ (hours|days), .* Start it\?", shown)
    assert not out.exists()


@pytest.mark.slow
def test_a_comparison_that_is_terminated_resumes_from_its_records(data_dir):
    command = ["compare", *SMOKE, "--methods", "random,dm,prism", "--workers", "1", "--out", data_dir / "compared"]

    def written():
        return {path: path.stat().st_mtime_ns for path in (data_dir / "results" / "scores").glob("*.json")}

    process = start(command, data_dir)
    wait_until(lambda: len(written()) > 1, 200)
    process.terminate()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143, messages[-2000:]
    before = written()
    assert 1 < len(before) < 9
    assert not (data_dir / "compared").exists()
    process = start(command, data_dir)
    shown, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages[-2000:]
    assert "DM + PRISM − DM" in shown
    assert len(written()) == 9
    assert before.items() <= written().items()


@pytest.mark.slow
def test_an_interrupt_of_the_main_process_alone_stops_the_processes_that_condense(data_dir):
    in_processes = "from prism_nb import cli; cli.SHARDED_FLOPS = 0.; cli.main()"
    command = [sys.executable, "-c", in_processes, "condense", *SMOKE, "--iterations", "100000", "--yes", "--out",
               data_dir / "set.safetensors"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PRISM_DATA": str(data_dir)}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    processes = min(os.cpu_count(), 10)   # at most one for each class

    def at_work(): return {path.parent for path in data_dir.glob("cache/targets-*/0001*.safetensors")}

    wait_until(lambda: len(at_work()) == processes, 120)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages[-2000:]
    assert len(list((data_dir / "checkpoints").iterdir())) == processes
    assert not (data_dir / "set.safetensors").exists()


@pytest.fixture
def condense(run, indexed):
    """Condense these videos with DM; return the messages and the learning rate of the set."""
    def run_condense(*options):
        out = indexed / "set.safetensors"
        out.unlink(missing_ok=True)
        code, _, messages = run("condense", *SMOKE, "--dataset", "mine", "--method", "dm", "--iterations", "3",
                                *options, "--out", out)
        assert code == 0
        return messages, CondensedSet.load(out).metadata["recipe"]["lr"]
    return run_condense


def test_the_origin_of_a_learning_rate_is_said(condense, indexed):
    messages, guessed = condense()
    hint = "`prism-nb tune --dataset mine --method dm` searches for one"
    assert lines_of(messages, "lr ") == [f"lr {guessed:g}: a guess, chosen on other videos; {hint}"]
    messages, given = condense("--lr", "3")
    assert given == 3
    assert lines_of(messages, "lr ") == []
    remember_rates("mine", "smoke", "dm", 1, dict(lr=7.))
    day = remembered_rates("mine", "smoke")["1"]["dm"]["day"]
    messages, found = condense()
    assert found == 7
    assert lines_of(messages, "lr ") == [f"lr 7: found by `prism-nb tune` on {day}"]


def test_the_learning_rate_of_a_profile_is_said_to_be_its_own():
    assert rate_source(get_config("quick", "motionshapes"), "dm", 1) == "the profile's"
    assert rate_source(get_config("quick", "motionshapes"), "random", 1) == ""


def test_videos_that_hardly_move_are_warned_of(condense):
    messages, _ = condense("--lr", "1e-6")
    [warning] = lines_of(messages, "warning")
    assert warning.startswith("warning: the videos hardly moved from their start: a pixel by ")
    messages, _ = condense("--lr", "1e4")
    assert "hardly moved" not in messages


def test_a_network_that_guesses_is_warned_of(condense, run, indexed):
    condense()
    code, shown, messages = run("evaluate", indexed / "set.safetensors", *SMOKE, "--dataset", "mine")
    assert code == 0
    assert json.loads(shown)["top1"] == 50   # each clip is in both classes
    [warning] = lines_of(messages, "warning")
    assert re.fullmatch(r"warning: (at chance: 50\.0 % of 4 test clips cannot be told from the 50\.0 % of guessing"
                        r"|the network seems to predict a single class for all 4 test clips)", warning)
