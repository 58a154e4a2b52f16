"""The script that measures a GPU, tried on the CPU without PyAV; what records of a GPU add to the repository."""
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import BIN, ROOT, run_benchmark

from prism_nb.core.files import load_tensors, save_tensors
from prism_nb.data.video import write_video

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))
import csv_files  # noqa: E402
import gpu  # noqa: E402
import gpu_added  # noqa: E402
import gpu_checks  # noqa: E402
import gpu_clips  # noqa: E402
import gpu_page  # noqa: E402
import page  # noqa: E402
from gpu_session import Budget, Scale, Session, Skip, SmallScale, parse_budget  # noqa: E402
from loops import random_clips  # noqa: E402

from prism_nb.core.errors import PrismError  # noqa: E402

RECORDS = {"device.json", "tests.json", "agreement.csv", "determinism.json", "results.csv", "memory.csv", "resume.json",
           "headline.csv"}
SPLITS = {1: "1122", 2: "2211", 3: "1212"}   # 1: training, 2: test; of the four clips of a class


run_script = partial(run_benchmark, "gpu.py")


@pytest.fixture
def script(monkeypatch, capsys):
    """Run the script in this process; return its exit code, its output and its stderr."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
        code = 0
        try:
            gpu.main()
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()
    return run


TRIAL = ("--device", "cpu", "--small")


@pytest.fixture(scope="module")
def made_jhmdb(tmp_path_factory):
    """Two classes of four videos each, laid out as J-HMDB."""
    root = tmp_path_factory.mktemp("jhmdb")
    (root / "splits").mkdir()
    rng = np.random.default_rng(0)
    for label in ("catch", "golf"):
        (root / "videos" / label).mkdir(parents=True)
        names = [f"film{i}_{label}_u_nm_np1_ba_goo_0.avi" for i in range(4)]
        for name in names:
            noise = rng.integers(0, 256, (9, 10, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            write_video(root / "videos" / label / name, np.stack([np.roll(noise, t, 1) for t in range(30)]))
        for split, codes in SPLITS.items():
            lines = [f"{name} {code}\n" for name, code in zip(names, codes)]
            (root / "splits" / f"{label}_test_split{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def clips_file(made_jhmdb, tmp_path_factory):
    """The made videos, decoded into one file by the script."""
    folder = tmp_path_factory.mktemp("clips")
    arguments = ("--prepare", folder / "clips.safetensors", "--root", made_jhmdb)
    finished = run_script(*arguments, PRISM_DATA=str(folder / "data"))
    assert finished.returncode == 0, finished.stderr
    return folder / "clips.safetensors"


@pytest.fixture(scope="module")
def records(clips_file, without_av, tmp_path_factory):
    """The records of a whole run with small sizes, and what it printed."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    finished = run_script(*TRIAL, "--budget", "10m", "--out", out, "--clips", clips_file, path=[without_av])
    assert finished.returncode == 0, finished.stderr
    return out, finished.stdout


def read_json(path):
    return json.loads(path.read_text())


# Clips in one file

def test_an_encoded_clip_is_decoded_to_the_same_bytes():
    clip = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
    clip[1] = 255 - clip[0]   # differences of every size
    decoded = gpu_clips.decode_clip(gpu_clips.encode_clip(clip), clip.shape)
    assert (decoded == clip).all()


def test_prepared_clips_have_the_official_splits(clips_file):
    prepared = gpu_clips.load_prepared(clips_file)
    for split, codes in SPLITS.items():
        clips = prepared.split(split)
        assert clips.class_names == ["catch", "golf"]
        assert clips.shape == (8, 8, 64, 64, 3)
        assert clips.split.tolist() == [{"1": "train", "2": "test"}[code] for code in 2 * codes]
    assert len(np.unique(clips.pixels.reshape(8, -1), axis=0)) == 8


def test_prepared_pixels_that_were_changed_are_an_error(clips_file, tmp_path):
    tensors, metadata = load_tensors(clips_file)
    changed = tmp_path / "changed.safetensors"
    save_tensors(changed, tensors, **metadata | dict(content_hash="0" * 32))
    with pytest.raises(PrismError, match=r"changed\.safetensors: OpenCV .* decodes other pixels"):
        gpu_clips.load_prepared(changed)


def test_a_file_of_something_else_is_not_taken_for_clips(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(PrismError, match="does not hold clips"):
        gpu_clips.load_prepared(tmp_path / "other.safetensors")


def test_real_clips_take_less_than_40_mb(real):
    config = gpu_clips.get_config("quick", "jhmdb")
    crop, sampling = config.crop, config.sampling
    paths = sorted((real / "jhmdb").rglob("*.avi"))[::40]
    from prism_nb.data.video import decode_clips
    encoded = [gpu_clips.encode_clip(decode_clips(path, gpu_clips.replace(sampling, num_clips=1), crop)[0]).nbytes
               for path in paths]
    assert 928 * np.mean(encoded) < 40e6


# The script

def test_every_record_is_there_and_says_on_what_it_was_measured(records):
    out, printed = records
    assert {path.name for path in out.iterdir()} == RECORDS
    counts = read_json(out / "tests.json")
    assert counts["tests"] >= 4
    assert not counts["failed"]
    device = read_json(out / "device.json")
    assert device["device"] == "cpu"
    assert [*device["parts"]] == sorted(
        ["tests", "precision", "agreement", "determinism", "speed", "memory", "resume", "headline"])
    assert {choice["precision"] for choice in device["auto_precision"].values()} <= {"float32", "bfloat16"}
    not_done = {name: part["not_done"] for name, part in device["parts"].items()}
    assert not any(not_done.values()), not_done
    for name in device["parts"]:
        assert f"{name}: took" in printed


def test_the_cpu_agrees_with_itself(records):
    rows = pd.read_csv(records[0] / "agreement.csv")
    iterations = rows[rows.insertion.isna()]
    assert {*iterations.objective} >= {"dm", "gradient-matching"}
    assert {*iterations.parameterization} >= {"full-frames", "key-frames", "static-dynamic"}
    assert {*iterations.dtype} == {"float32", "float64"}
    assert rows.agrees.all()
    assert (iterations.gradient == 0).all()
    assert (rows.inserted > 0).sum() == 12


def test_an_iteration_in_float64_is_computed_in_it_and_errors_are_seen():
    clips = random_clips(2, 8, 4, 48)
    arguments = clips, "dm", "key-frames", SmallScale.agreement, torch.float64
    targets, losses, gradient = gpu_checks.compute_iteration("cpu", arguments)
    assert gradient.dtype == torch.float64
    assert (losses > 0).all()
    shifted = gpu_checks.compute_iteration("cpu", arguments, targets + 1e-6)
    assert gpu_checks.relative_error(shifted[2], gradient) > gpu_checks.TOLERANCES["float64"]["gradient"]


def test_equal_bits_and_a_resumed_run(records):
    condensed, resumed = (read_json(records[0] / f"{name}.json") for name in ("determinism", "resume"))
    assert condensed["dm"]["bits_equal"] and condensed["prism"]["bits_equal"]
    assert resumed["bits_equal"]
    assert 0 < resumed["resumed_at"] < resumed["iterations"]


def test_the_first_operation_that_differs_is_found():
    log = [("aten.add", (2,), 1), ("aten.mul", (2,), 2), ("aten.sum", (), 3)]
    changed = [log[0], ("aten.mul", (2,), 5), ("aten.sum", (), 7)]
    assert gpu_checks.first_difference(log, log) is None
    assert gpu_checks.first_difference(log, changed) == dict(operation="aten.mul", shape=[2], index=1)
    assert gpu_checks.first_difference(log, log[:2])["operation"] == "one log is longer"


def test_a_log_sees_an_operation_that_adds_in_another_order():
    values = torch.tensor([1e8, 1., -1e8])
    logs = []
    for order in ([0, 1, 2], [0, 2, 1]):
        index = torch.zeros(3, dtype=torch.long)
        with gpu_checks.OperationLog() as log:
            torch.zeros(1).index_add_(0, index, values[order])
        logs.append([entry for entry in log.entries if "index_add" in entry[0]])
    assert gpu_checks.first_difference(*logs)["operation"] == "aten.index_add_.default"


def test_the_plain_loop_and_ours_are_compared_in_every_precision(records):
    rows = pd.read_csv(records[0] / "results.csv")
    for name in ("dm-iteration-4x52", "prism-iteration-4x52", "prism-iteration-4x48", "real-forward-4x52",
                 "evaluate-vpc1", "evaluate-vpc10"):
        found = rows[rows.name == name]
        assert found.dtype.tolist() == ["float32", "bfloat16"], name
        assert (found.ratio_to_reference > 0).all(), name
    evaluations = rows[rows.name.str.startswith("evaluate")]
    assert evaluations.accuracy_mean.between(0, 100).all()
    assert (evaluations.accuracy_seeds == 2).all()


def test_memory_is_compared_with_the_estimate(records):
    rows = pd.read_csv(records[0] / "memory.csv")
    assert rows.vpc.tolist() == 2 * [1, 1, 10, 10]
    assert rows.what.tolist() == 4 * ["iteration", "evaluation"]
    assert np.allclose(rows.ratio, rows.reserved_mb / rows.estimated_mb, rtol=1e-3)


def test_the_headline_has_every_method_of_split_1_first(records):
    rows = pd.read_csv(records[0] / "headline.csv")
    assert rows.split.tolist() == 4 * [1] + 4 * [2] + 4 * [3]
    assert rows.method.tolist() == 3 * ["random", "dm", "prism", "prism-gradient-matching"]
    assert rows[["top1_network0", "top1_network1"]].stack().between(0, 100).all()
    assert (rows[rows.method != "random"].iterations == 4).all()


def test_a_second_run_computes_only_the_rows_that_are_missing(script, records, clips_file, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(records[0], out)
    rows = (out / "headline.csv").read_text().splitlines(keepends=True)
    (out / "headline.csv").write_text("".join(rows[:-1]))
    code, printed, _ = script(*TRIAL, "--out", out, "--clips", clips_file, "--parts", "headline")
    assert code == 0
    assert printed.count(" is there\n") == 11
    found = pd.read_csv(out / "headline.csv")
    assert found.key.tolist() == pd.read_csv(records[0] / "headline.csv").key.tolist()
    assert {*read_json(out / "device.json")["parts"]} == {*read_json(records[0] / "device.json")["parts"]}


def test_without_a_budget_everything_is_skipped_and_said(script, clips_file, tmp_path):
    code, printed, _ = script(*TRIAL, "--budget", "0", "--out", tmp_path, "--clips", clips_file)
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["device.json"]
    for name, part in read_json(tmp_path / "device.json")["parts"].items():
        assert part["not_done"], name
        for note in part["not_done"]:
            assert note["state"] == "skipped"
            assert f"{name}: {note['what']} skipped: {note['reason']}" in printed


def test_a_step_that_fails_is_recorded_and_the_next_one_runs(tmp_path):
    session = Session(tmp_path, Budget(60), Scale, dict(device="cpu", name="made up", code="0"))
    done = []
    def part(session):
        session.attempt("first", 1, lambda: torch.empty(2**62))   # more memory than there is
        session.attempt("second", 1, lambda: done.append(1))
        session.attempt("third", 100, lambda: done.append(2))
    session.run("made", part)
    notes = read_json(tmp_path / "device.json")["parts"]["made"]["not_done"]
    assert done == [1]
    assert [(note["what"], note["state"]) for note in notes] == [("first", "failed"), ("third", "skipped")]
    assert notes[0]["reason"].startswith("RuntimeError: ")
    assert "it takes about 100 s" in notes[1]["reason"]


def test_a_budget_is_a_duration():
    assert [parse_budget(text) for text in ("90s", "25m", "1h", "0", "2.5")] == [90, 1500, 3600, 0, 2.5]
    for text in ("", "soon", "-3m", "m"):
        with pytest.raises(PrismError, match="but must be a duration"):
            parse_budget(text)
    with pytest.raises(Skip):
        Budget(0).need(1)


@pytest.mark.parametrize("arguments, message", [
    (["--device", "tpu"], "device is 'tpu', but must be cuda or cpu"),
    (["--device", "cpu", "--parts", "speed,nothing"], "parts is 'nothing', but must be of: tests, "),
    (["--device", "cpu", "--clips", "missing.safetensors"], "missing.safetensors: no such file"),
    (["--add", "nowhere"], "nowhere: no record of a device"),
], ids=["device", "parts", "clips", "add"])
def test_bad_input_is_one_line(script, arguments, message, tmp_path):
    code, _, error = script(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert error.startswith(f"gpu.py: {message}")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# Records in the repository

@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of what the benchmarks' files have of the CPU, to which records of a GPU are added."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for path in BENCHMARKS.glob("*.csv"):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        if "device" in rows:
            rows = rows[rows.device == "cpu"]
        rows.to_csv(folder / path.name, index=False)
    for module in (csv_files, gpu_added):
        monkeypatch.setattr(module, "HERE", folder)
    monkeypatch.setattr(gpu_page, "GPU", folder / "gpu")
    return folder


@pytest.fixture
def cuda_records(records, tmp_path):
    """Made-up records of a GPU: those of the small run, with the names and the device of a large one."""
    folder = tmp_path / "records"
    shutil.copytree(records[0], folder)
    for path in folder.iterdir():
        text = path.read_text().replace("4x52", "16x112").replace("4x48", "8x64")
        path.write_text(text.replace("64x64x64", "4096x4096x4096"))
    rows = pd.read_csv(folder / "results.csv")
    tf32 = rows[rows.dtype == "bfloat16"].assign(dtype="tf32")
    pd.concat([rows, tf32]).assign(device="cuda").to_csv(folder / "results.csv", index=False)
    device = read_json(folder / "device.json")
    parts = {name: dict(part, device="Made-up GPU") for name, part in device["parts"].items()}
    device |= dict(device="cuda", name="Made-up GPU", memory_gb=80., capability="9.0", driver="1.2", parts=parts)
    (folder / "device.json").write_text(json.dumps(device))
    return folder


def test_records_of_a_cpu_are_not_added(script, records, copy):
    code, _, error = script("--add", records[0])
    assert code == 2
    assert "was measured on a CPU" in error
    assert not (copy / "gpu").exists()


def test_records_of_several_gpus_are_not_added(script, cuda_records, copy):
    device = read_json(cuda_records / "device.json")
    device["parts"]["speed"]["device"] = "Another GPU"
    (cuda_records / "device.json").write_text(json.dumps(device))
    code, _, error = script("--add", cuda_records)
    assert code == 2
    assert "several devices, Made-up GPU and Another GPU" in error


def test_records_of_a_gpu_become_rows_and_a_section(script, cuda_records, copy):
    for _ in range(2):   # the second time, rows are replaced
        assert script("--add", cuda_records)[0] == 0
    before, after = (pd.read_csv(folder / "results.csv") for folder in (BENCHMARKS, copy))
    assert after[after.device == "cpu"].to_csv(index=False) == before[before.device == "cpu"].to_csv(index=False)
    assert len(after[after.device == "cuda"]) == len(pd.read_csv(cuda_records / "results.csv"))
    assert [*after.columns] == [*before.columns]
    assert pd.read_csv(copy / "machine.csv").set_index("device").machine["cuda"] == "Made-up GPU"
    old, new = (BENCHMARKS / "RESULTS.md").read_text(), page.page()
    assert new.partition("## GPU")[0] == old.partition("## GPU")[0]   # the CPU's goals and rows stay
    section = new.partition("## GPU")[2]
    for text in ("Made-up GPU, 80 GB", "PRISM's iteration at 16x112 in tf32", "at least 10", "at most 1.1",
                 "accuracy differs by", "| dm | key-frames | float64 |", "for 12 of 12 rules", "the bits are equal",
                 "evaluate-vpc10-reference", "| prism − dm |"):
        assert text in section, text
    assert "| not measured |" not in section


def test_rows_of_the_cpu_are_replaced_and_those_of_a_gpu_kept(script, cuda_records, copy):
    assert script("--add", cuda_records)[0] == 0
    rows = csv_files.read_table("results")
    csv_files.replace_device("results", "cpu", [dict(name="new", device="cpu", dtype="float32", seconds_median=1.5)])
    found = csv_files.read_table("results")
    assert found.name.tolist() == ["new", *rows[rows.device == "cuda"].name]
    assert [*found.columns] == ["name", "device", "dtype", "seconds_median", *rows.columns[4:]]


def test_a_section_of_records_that_are_not_all_there(script, cuda_records, copy):
    for path in cuda_records.iterdir():
        if path.name != "device.json":
            path.unlink()
    assert script("--add", cuda_records)[0] == 0
    section = page.page().partition("## GPU")[2]
    assert section.count("| not measured |") == 19
    assert "reached" not in section


@pytest.mark.slow
@pytest.mark.parametrize("with_gpu", [False, True], ids=["cpu", "gpu"])
def test_the_grid_takes_the_speed_of_a_gpu_that_was_measured(with_gpu, script, cuda_records, copy, tmp_path):
    if with_gpu:
        assert script("--add", cuda_records)[0] == 0
    for name in ("prism_nb", "nbs/tables"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    settings = {**os.environ, "PYTHONPATH": str(tmp_path), "PRISM_REPORTS": str(tmp_path / "reports")}
    command = [BIN / "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", "nbs/tables/grid.ipynb"]
    subprocess.run(command, cwd=tmp_path, env=settings, check=True, capture_output=True, timeout=300)
    grid = pd.read_csv(next((tmp_path / "reports").rglob("grid.csv")))
    names = {*grid.machine}
    assert ("Made-up GPU (measured)" in names) == with_gpu
    assert any("assumed" in name for name in names) != with_gpu
