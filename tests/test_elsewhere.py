"""Runs that are computed where this project is not installed, without PyAV, and come back as an archive."""
import shutil
import sys

import pytest
from conftest import ROOT, run_benchmark

from prism_nb.core.errors import PrismError
from prism_nb.core.files import load_tensors, save_tensors
from prism_nb.study.archive import archive_key, read_archive
from prism_nb.study.runner import execute
from prism_nb.study.runs import run_from_dict

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))
import study_elsewhere  # noqa: E402


@pytest.fixture(scope="module")
def runs_file(decoded_data, tmp_path_factory):
    """The runs of the first table of the smoke profile, with their clips; the first two of them are kept."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("motionshapes-smoke", "cache"):
        shutil.copytree(decoded_data / name, folder / "data" / name)
    path = folder / "runs.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_DATA", str(folder / "data"))
        study_elsewhere.prepare(path, "smoke", "motionshapes", ["first"])
        tensors, about = load_tensors(path)
        assert len(about["runs"]) == 6
        save_tensors(path, tensors, **about | dict(runs=about["runs"][:2]))
        yield path


def run_script(file, out, without_av, *options):
    """Run the script without PyAV and away from the data."""
    arguments = (file, "--out", out, "--workers", "1", *options)
    return run_benchmark("study_elsewhere.py", *arguments, path=[without_av], PRISM_DATA=str(out / "no data"))


def test_runs_elsewhere_have_the_scores_of_runs_here(runs_file, without_av, tmp_path):
    out = tmp_path / "out"
    none = run_script(runs_file, out, without_av, "--budget", "1s")
    assert f"{out / 'records.parquet'}: 0 of 2 runs" in none.stdout, none.stderr
    assert "the budget has ended" in none.stderr
    whole = run_script(runs_file, out, without_av)
    assert f"{out / 'records.parquet'}: 2 of 2 runs" in whole.stdout, whole.stderr
    archive = read_archive(out / "records.parquet")
    for run in map(run_from_dict, load_tensors(runs_file)[1]["runs"]):
        assert [*archive.top1[archive_key(run)]] == [score["top1"] for score in execute(run)["scores"]]


def test_a_file_without_runs_is_an_error(tmp_path, runs_file):
    tensors, about = load_tensors(runs_file)
    save_tensors(tmp_path / "other.safetensors", tensors)
    with pytest.raises(PrismError, match="other.safetensors holds no runs"):
        study_elsewhere.decode(tmp_path / "other.safetensors", tmp_path / "clips.npy")
    save_tensors(tmp_path / "other.safetensors", tensors, **about | dict(pixel_hash="0" * 32))
    with pytest.raises(PrismError, match=r"other.safetensors: OpenCV .* decodes other pixels"):
        study_elsewhere.decode(tmp_path / "other.safetensors", tmp_path / "clips.npy")


def test_tables_that_need_no_runs_are_an_error(tmp_path):
    with pytest.raises(PrismError, match="no run of audit is missing"):
        study_elsewhere.prepare(tmp_path / "runs.safetensors", "smoke", "motionshapes", ["audit"])
