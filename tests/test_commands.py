"""The commands a person types, from outside: what they leave, and their messages for bad input."""
import csv
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, call

from prism_nb.core.paths import data_dir
from prism_nb.study.profiles import get_config
from prism_nb.study.records import read_record
from prism_nb.study.runs import CHOSEN, make_runs

TITLES = ["Random", "Herding", "K-Center", "DM", "DM + Wang et al.", "DM + PRISM", "Whole Dataset"]
REAL_CLIPS = ["Random, uint8", "Random, tiles", "Random, H.264", "Whole Dataset, 4 steps"]


def run_study(reports):
    """Run a part of the smoke study."""
    done = call("prism-nb", "study", "--profile", "smoke", "--tables", "1,5,audit", PRISM_REPORTS=reports)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The report folder of a part of the smoke study, run as a person would. (Notebook tests run all tables.)"""
    reports = tmp_path_factory.mktemp("reports")
    pages = [line.removeprefix("report: ") for line in run_study(reports).stdout.splitlines()]
    assert pages[0] == str(reports / "smoke" / "table1.html")
    assert pages[-1] == str(reports / "smoke" / "index.html")
    return reports / "smoke"


def read_rows(path):
    """The rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_study_leaves_a_notebook_a_page_and_the_numbers(smoke):
    names = {"table1", "table5", "audit"}
    assert {path.stem for path in smoke.glob("*.ipynb")} == names
    assert {path.stem for path in smoke.glob("*.html")} == names | {"index"}
    assert names <= {path.stem for path in smoke.glob("*.csv")}
    rows, networks = read_rows(smoke / "table1.csv"), read_rows(smoke / "table1_records.csv")
    rows = [row for row in rows if row["protocol"] == "paper"]
    assert {row["title"] for row in rows} == {*TITLES, *REAL_CLIPS}
    networks = [network for network in networks if not network["row"].endswith(CHOSEN)]
    for row in rows:
        title = f"{row['title']}, VPC "
        top1 = [float(network["top1"]) for network in networks if network["row"].startswith(title)]
        assert float(row["top1_mean"]) == pytest.approx(sum(top1) / len(top1))
        assert len(top1) == int(row["n"])
    prism, dm = (next(row for row in rows if row["method"] == method) for method in ("prism", "dm"))
    assert float(prism["key_frames"]) >= 2
    assert float(prism["storage_bytes"]) < float(dm["storage_bytes"])


@pytest.mark.slow
def test_the_front_page_links_to_every_page(smoke):
    front = (smoke / "index.html").read_text()
    for page in smoke.glob("*.html"):
        assert page.name == "index.html" or f'href="{page.name}"' in front


@pytest.mark.slow
def test_a_second_run_builds_only_what_is_missing_or_damaged(smoke):
    def modified():
        return {path.name: path.stat().st_mtime_ns for path in smoke.glob("table*.html")}

    first = modified()
    run_study(smoke.parent)
    assert modified() == first
    runs = make_runs(get_config("smoke", "motionshapes"), ["prism"], metric="l2", epsilon=0.141)
    record = runs[0].record_path()  # of Table 5 alone
    record.write_bytes(record.read_bytes()[:-20])
    run_study(smoke.parent)
    assert read_record(record)
    assert {name for name in first if modified()[name] != first[name]} == {"table5.html"}


@pytest.mark.slow
def test_the_control_of_table_5_is_prism_to_the_bit(smoke):
    assert "2 of 2 condensed sets are equal" in (smoke / "table5.html").read_text()


@pytest.mark.slow
def test_the_page_shows_the_numbers_and_no_code(smoke):
    page = (smoke / "table1.html").read_text()
    for row in read_rows(smoke / "table1.csv"):
        assert f"{float(row['top1_mean']):.1f} ± {float(row['top1_sd']):.1f}" in page
    for text in ("17.9 ± 0.3", "another data set"):
        assert text in page
    for text in ("import pandas", "http://", "https://"):
        assert text not in page


@pytest.mark.slow
def test_the_executed_notebook_contains_no_log_and_no_path(smoke):
    nb = nbformat.read(smoke / "table1.ipynb", 4)
    assert str(ROOT) not in nbformat.writes(nb)
    assert "papermill" not in nb.metadata
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_bad_input_is_one_line_of_the_installed_command_too(tmp_path):
    done = call("prism-nb", "study", "--dataset", "jhmdb", "--root", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.startswith("prism-nb: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "none") in done.stderr


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path, real, expect_error):
    study = ("study", "--dataset", "jhmdb", "--root", real / "jhmdb", "--tables", "1")
    message = expect_error(*study, PRISM_DATA="/dev/null/data", PRISM_REPORTS=tmp_path)
    assert "cannot write /dev/null/data" in message
    assert not list(tmp_path.rglob("*.*"))


def test_a_missing_or_empty_data_folder_is_named(tmp_path, expect_error):
    (tmp_path / "empty").mkdir()
    assert "root" in expect_error("study", "--dataset", "jhmdb")
    for folder in (tmp_path / "none", tmp_path / "empty"):
        assert str(folder) in expect_error("study", "--dataset", "jhmdb", "--root", folder)


def test_an_installed_package_has_every_command_but_study(tmp_path):
    shutil.copytree(ROOT / "prism_nb", tmp_path / "site" / "prism_nb")

    def prism_nb(*command):
        places = dict(PYTHONPATH=str(tmp_path / "site"), PRISM_DATA=str(data_dir()))
        code = "import sys; from prism_nb.cli import main; sys.argv[0] = 'prism-nb'; main()"
        return subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, **places}, timeout=300)

    done = prism_nb("study", "--profile", "smoke")
    assert done.returncode == 2
    assert done.stderr.startswith("prism-nb: study needs a clone of the repository")
    assert len(done.stderr.strip().splitlines()) == 1
    for command in (("condense", "--profile", "smoke", "--out", "x.safetensors"),
                    ("evaluate", "x.safetensors", "--profile", "smoke"),
                    ("show", "x.safetensors", "--out", "x.png")):
        done = prism_nb(*command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").stat().st_size > 2000


@pytest.mark.parametrize("path", ["/dev/null/set.safetensors", "read-only"])
def test_an_output_that_cannot_be_written_is_named_before_the_computation(tmp_path, expect_error, path):
    if path == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write to a read-only folder")
        tmp_path.chmod(0o500)
        path = tmp_path / "set.safetensors"
    assert f"cannot write {path}" in expect_error("condense", "--profile", "smoke", "--out", path)


@pytest.mark.parametrize("content", [b"", b"not a set", b"\x00" * 100], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_condensed_set_is_refused(tmp_path, expect_error, content):
    path = tmp_path / "set.safetensors"
    path.write_bytes(content)
    for command in (("evaluate", path), ("show", path, "--out", tmp_path / "x.png")):
        message = expect_error(*command)
        assert f"{path} is not a file of tensors" in message
        assert "a condensed set is what" in message
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("option, value, message", [
    ("--vpc", "0", "vpc is 0"),
    ("--vpc", "999", "vpc is 999, but class"),
    ("--lr", "nan", "lr is nan"),
    ("--method", "dn", "method is 'dn', but must be one of: cafe"),
    ("--method", "whole", "method is 'whole', but must be one of: cafe"),
    ("--iterations", "-1", "iterations is -1"),
    ("--init", "zeros", "init is 'zeros', but must be one of: herding"),
    ("--network", "vgg", "network is 'vgg', but must be one of: cnn-gru"),
    ("--option", "eps=1", "option is 'eps', but must be one of: epsilon"),
])
def test_a_bad_recipe_is_refused_and_leaves_nothing(tmp_path, expect_error, option, value, message):
    assert message in expect_error("condense", "--profile", "smoke", option, value, "--out", tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_make_names_the_python_it_needs(tmp_path):
    for name in ("Makefile", "settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.10"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10)\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    make = ["make", f"PYTHON={old}", ".venv/installed"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.11 or later is needed; say which with: make PYTHON=python3.11" in done.stderr
    assert not (tmp_path / ".venv").exists()
