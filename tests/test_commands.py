"""The commands a person types, from outside: what they leave, and what they say to bad input."""
import csv
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from prism_nb.cli import main
from prism_nb.study.profiles import get_config
from prism_nb.study.records import read_record
from prism_nb.study.runs import make_runs

from conftest import ROOT, call


def again(reports):
    done = call("prism-nb", "study", "--profile", "smoke", "--tables", "1,5,audit", PRISM_REPORTS=reports)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A part of the smoke study, run as a person would; its report folder. (Every table notebook runs as a notebook's test.)"""
    reports = tmp_path_factory.mktemp("reports")
    done = again(reports)
    pages = [line.removeprefix("report: ") for line in done.stdout.splitlines()]
    assert pages[0] == str(reports / "smoke" / "table1.html") and pages[-1] == str(reports / "smoke" / "index.html")
    return reports / "smoke"


def test_the_study_leaves_a_notebook_a_page_and_the_numbers(smoke):
    names = {"table1", "table5", "audit"}
    assert {p.stem for p in smoke.glob("*.ipynb")} == names and {p.stem for p in smoke.glob("*.html")} == names | {"index"}
    assert names <= {p.stem for p in smoke.glob("*.csv")}
    rows = list(csv.DictReader((smoke / "table1.csv").open()))
    assert [r["title"] for r in rows] == ["Random", "Herding", "K-Center", "DM", "DM + Wang et al.", "DM + PRISM", "Whole Dataset"]
    runs = list(csv.DictReader((smoke / "table1_records.csv").open()))
    for row in rows:
        top1 = [float(r["top1"]) for r in runs if r["method"] == row["method"]]
        assert float(row["top1_mean"]) == pytest.approx(sum(top1) / len(top1)) and len(top1) == int(row["n"])
    prism, dm = (next(r for r in rows if r["method"] == m) for m in ("prism", "dm"))
    assert float(prism["key_frames"]) >= 2 and float(prism["storage_bytes"]) < float(dm["storage_bytes"])


def test_the_front_page_leads_to_every_page(smoke):
    front = (smoke / "index.html").read_text()
    for page in smoke.glob("*.html"):
        assert page.name == "index.html" or f'href="{page.name}"' in front


def test_a_second_run_makes_only_what_is_not_there_any_more(smoke):
    def written(): return {p.name: p.stat().st_mtime_ns for p in smoke.glob("table*.html")}
    first = written()
    again(smoke.parent)
    assert written() == first
    mine = make_runs(get_config("smoke", "motionshapes"), ["prism"], metric="l2", epsilon=0.141)[0].record_path()
    mine.write_bytes(mine.read_bytes()[:-20])   # a record of Table 5 alone
    again(smoke.parent)
    assert read_record(mine) and {name for name in first if written()[name] != first[name]} == {"table5.html"}


def test_the_control_of_table_5_is_prism_to_the_bit(smoke):
    assert "2 of 2 condensed sets are equal" in (smoke / "table5.html").read_text()


def test_the_page_shows_the_numbers_and_no_code(smoke):
    page, rows = (smoke / "table1.html").read_text(), list(csv.DictReader((smoke / "table1.csv").open()))
    for row in rows:
        assert f"{float(row['top1_mean']):.1f} ± {float(row['top1_sd']):.1f}" in page
    assert "17.9 ± 0.3" in page and "another data set" in page
    assert "import pandas" not in page and "http://" not in page and "https://" not in page


def test_the_executed_notebook_holds_no_log_and_no_path(smoke):
    nb = nbformat.read(smoke / "table1.ipynb", 4)
    assert str(ROOT) not in nbformat.writes(nb) and "papermill" not in nb.metadata
    assert not [o for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.get("name") == "stderr"]


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs a command that must end with one line and exit code 2; returns the line."""
    def run(*command, **environment):
        monkeypatch.setattr(sys, "argv", ["prism-nb", *map(str, command)])
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2 and len(said.strip().splitlines()) == 1 and said.startswith("prism-nb: "), said
        return said
    return run


def test_from_outside_too_bad_input_is_one_line(tmp_path):
    done = call("prism-nb", "study", "--dataset", "jhmdb", "--root", tmp_path / "none")
    assert done.returncode == 2 and done.stderr.startswith("prism-nb: ") and len(done.stderr.strip().splitlines()) == 1 and str(tmp_path / "none") in done.stderr


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path, real, refused):
    place = dict(PRISM_DATA="/dev/null/data", PRISM_REPORTS=tmp_path)
    assert "cannot write /dev/null/data" in refused("study", "--dataset", "jhmdb", "--root", real / "jhmdb", "--tables", "1", **place)
    assert not list(tmp_path.rglob("*.*"))


def test_a_missing_or_empty_data_folder_is_named(tmp_path, refused):
    assert "root" in refused("study", "--dataset", "jhmdb")
    assert str(tmp_path / "none") in refused("study", "--dataset", "jhmdb", "--root", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused("study", "--dataset", "jhmdb", "--root", tmp_path / "empty")


@pytest.mark.parametrize("where", ["/dev/null/set.safetensors", "read-only"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(tmp_path, smoke, refused, where):
    if where == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write to a read-only folder")
        tmp_path.chmod(0o500)
        where = tmp_path / "set.safetensors"
    assert f"cannot write {where}" in refused("condense", "--profile", "smoke", "--out", where)


@pytest.mark.parametrize("content", [b"", b"not a set", b"\x00" * 100], ids=["empty", "text", "zeros"])
def test_an_artifact_that_is_not_ours_is_refused(tmp_path, refused, content):
    path = tmp_path / "set.safetensors"
    path.write_bytes(content)
    for command in (("evaluate", path), ("show", path, "--out", tmp_path / "x.png")):
        said = refused(*command)
        assert f"{path} is not a file of tensors" in said and "a condensed set is what" in said
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("option, value, says", [("--vpc", "0", "vpc is 0"), ("--vpc", "999", "vpc is 999, but class"), ("--lr", "nan", "lr is nan"),
                                                 ("--method", "dn", "method is 'dn'"), ("--iterations", "-1", "iterations is -1")])
def test_a_bad_recipe_is_refused_and_leaves_nothing(tmp_path, smoke, refused, option, value, says):
    assert says in refused("condense", "--profile", "smoke", option, value, "--out", tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_make_says_which_python_it_needs(tmp_path):
    for name in ("Makefile", "settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.10"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10)\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={old}", ".venv/installed"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "Python 3.11 or later is needed; say which with: make PYTHON=python3.11" in done.stderr
    assert not (tmp_path / ".venv").exists()
