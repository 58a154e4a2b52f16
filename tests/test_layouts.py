"""Every official layout the whole way: index, verify, cache, condense, evaluate, a table."""
import json
import shutil
import sys

import pandas as pd
import pytest
from prism_nb.cli import main
from prism_nb.core.errors import PrismError
from prism_nb.data import datasets
from prism_nb.study import profiles, runner, runs

import official

CLIPS = {"ucf101": (3, 9, 6), "hmdb51": (2, 6, 4), "kinetics400": (2, 10, 4), "ssv2": (2, 6, 4)}   # classes, training, test


@pytest.fixture
def prism_nb(monkeypatch, capfd, tmp_path):
    """Runs a command; returns its exit code, what it printed, and what it said on stderr."""
    monkeypatch.setenv("PRISM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PRISM_REPORTS", str(tmp_path / "reports"))
    def run(*command):
        monkeypatch.setattr(sys, "argv", ["prism-nb", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capfd.readouterr()
    return run


@pytest.mark.parametrize("name", CLIPS)
def test_a_layout_goes_all_the_way(name, prism_nb, tmp_path):
    root = tmp_path / "a download"
    getattr(official, name)(root)
    classes, train, test = CLIPS[name]

    code, said, _ = prism_nb("data", "index", name, "--root", root)
    assert code == 0 and f"{name}, split 1: {classes} classes, {train} training and {test} test clips" in said
    index = pd.read_csv(tmp_path / "data" / "datasets" / f"{name}-split1.csv")
    assert {"path", "label", "split", "group", "frames", "fps", "width", "height"} <= {*index} and len(index) == train + test
    assert index[index.problem.isna()].frames.median() == 20 and set(index.width.dropna()) == {64}

    code, said, _ = prism_nb("data", "verify", name)
    lines = [line for line in said.splitlines() if " off " in f" {line} "]
    official_numbers = {"hmdb51": 4, "kinetics400": 1}.get(name, 3) * len(datasets.DATASETS[name].official_counts)   # of classes, clips, clips of a class: not met by a small copy
    assert code == 1 and len(lines) == official_numbers + 3 * (name == "kinetics400"), said   # files that cannot be read, for two reasons
    assert not any("on both sides" in line for line in lines)

    code, said, _ = prism_nb("data", "cache", name, "--profile", "smoke")
    assert code == 0 and ("3 left out: 1 missing, 1 short, 1 broken" in said) == (name == "kinetics400"), said

    code, said, err = prism_nb("condense", "--dataset", name, "--profile", "smoke", "--out", tmp_path / "set.safetensors")
    assert code == 0 and f"{classes} videos" in said, err
    code, said, err = prism_nb("evaluate", tmp_path / "set.safetensors", "--dataset", name, "--profile", "smoke")
    assert code == 0 and json.loads(said)["clips"] == test, err

    code, said, err = prism_nb("study", "--dataset", name, "--profile", "smoke", "--tables", "1")
    assert code == 0 and f"14 cells of {name}, 2 at a time: about" in err, err
    table = pd.read_csv(tmp_path / "reports" / f"{name}-smoke" / "table1.csv")
    assert table.top1_mean.notna().all() and set(table.paper_dataset) == {{"hmdb51": "HMDB51", "kinetics400": "Kinetics-400", "ssv2": "SSv2"}.get(name, "miniUCF")}


def test_a_folder_of_ones_own_in_three_commands_and_a_picture(prism_nb, tmp_path):
    root = tmp_path / "meine Videos"
    official.written(root, [f"{c}/{source} {i}.mp4" for c in ("gehen", "çömelmek") for source in "abcd" for i in (1, 2)])
    code, said, _ = prism_nb("data", "index", "folder", "--root", root, "--name", "mine", "--group", r"(.+) \d")
    assert code == 0 and "2 classes, 12 training and 4 test clips, 8 source videos" in said
    assert prism_nb("data", "verify", "mine")[0] == 0
    code, said, err = prism_nb("condense", "--dataset", "mine", "--method", "prism", "--vpc", "1", "--profile", "smoke", "--out", tmp_path / "mine.safetensors")
    assert code == 0, err
    code, said, err = prism_nb("evaluate", tmp_path / "mine.safetensors", "--dataset", "mine", "--profile", "smoke")
    assert code == 0 and json.loads(said)["clips"] == 4, err
    for name in ("mine.gif", "mine.png"):
        assert prism_nb("show", tmp_path / "mine.safetensors", "--out", tmp_path / name)[0] == 0 and (tmp_path / name).stat().st_size > 2000


@pytest.mark.parametrize("spoil, says", [
    (lambda root: shutil.rmtree(root / "ucfTrainTestlist"), "'ucfTrainTestlist' or 'splits' was looked for, but"),
    (lambda root: (root / "ucfTrainTestlist" / "trainlist01.txt").unlink(), "trainlist01.txt is missing"),
    (lambda root: (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 BalanceBeam\n"), "not in classInd.txt"),
    (lambda root: (root / "ucfTrainTestlist" / "testlist01.txt").write_text("BalanceBeam/../../v_x_g01_c01.avi\n"), "which is not Class/v_Class"),
    (lambda root: shutil.rmtree(root), "is not a folder"),
])
def test_a_layout_that_is_not_right_is_one_line_and_leaves_nothing(spoil, says, prism_nb, tmp_path):
    official.ucf101(tmp_path / "ucf")
    spoil(tmp_path / "ucf")
    code, out, err = prism_nb("data", "index", "ucf101", "--root", tmp_path / "ucf")
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "data" / "datasets").exists()


def test_half_a_download_is_told_and_used_as_far_as_it_goes(prism_nb, tmp_path):
    official.ucf101(tmp_path / "ucf")
    for clip in ("v_BalanceBeam_g09_c01.avi", "v_BalanceBeam_g10_c01.avi", "v_BalanceBeam_g01_c01.avi"):
        (tmp_path / "ucf" / "UCF-101" / "BalanceBeam" / clip).unlink()
    code, out, _ = prism_nb("data", "index", "ucf101", "--root", tmp_path / "ucf")
    assert code == 0 and "3 files cannot be read, the first: UCF-101/BalanceBeam/" in out and "no such file" in out
    assert "3 left out: 3 missing, 0 short, 0 broken" in prism_nb("data", "cache", "ucf101", "--profile", "smoke")[1]
    (tmp_path / "ucf" / "UCF-101" / "BalanceBeam" / "v_BalanceBeam_g08_c01.avi").unlink()
    code, _, err = prism_nb("data", "cache", "ucf101", "--profile", "smoke")
    assert code == 2 and "class BalanceBeam has no train clip that can be decoded" in err


def test_miniucf_is_where_ucf101_is(prism_nb, tmp_path):
    official.ucf101(tmp_path / "ucf")
    with pytest.raises(PrismError, match="prism-nb data index ucf101"):
        datasets.resolve_root("miniucf")
    prism_nb("data", "index", "ucf101", "--root", tmp_path / "ucf")
    assert "miniucf, split 1: 6 training and 4 test videos" in prism_nb("data", "cache", "miniucf", "--profile", "smoke")[1]
    assert "ucf101, split 1: 9 training and 6 test videos" in prism_nb("data", "cache", "ucf101", "--profile", "smoke")[1]


def test_what_cannot_fit_is_not_begun_and_nothing_is_decoded_for_it(prism_nb, tmp_path, monkeypatch):
    official.hmdb51(tmp_path / "hmdb")
    prism_nb("data", "index", "hmdb51", "--root", tmp_path / "hmdb")
    monkeypatch.setattr(needs, "room", lambda: (1e6, 1e15))
    with pytest.raises(PrismError, match="18 cells of hmdb51, 1 at a time: .* GB of memory are needed, but only 0.0 GB are free"):
        runner.get_records([cell for vpc in (1, 5, 10) for method in ("dm", "prism") for cell in runs.make_runs(profiles.get_config("paper", "hmdb51"), [method], vpc)], workers=1)
    code, _, err = prism_nb("condense", "--dataset", "hmdb51", "--profile", "paper", "--out", tmp_path / "x.safetensors")
    assert code == 2 and "prism on hmdb51: " in err and "are needed" in err
    monkeypatch.setattr(needs, "room", lambda: (1e15, 1.0))
    assert prism_nb("condense", "--dataset", "hmdb51", "--profile", "smoke", "--out", tmp_path / "x.safetensors")[0] == 2
    assert not list((tmp_path / "data").glob("cache/*")) and not (tmp_path / "x.safetensors").exists()


def test_several_data_sets_are_looked_for_before_the_first_is_begun(prism_nb, tmp_path):
    code, out, err = prism_nb("study", "--profile", "smoke", "--datasets", "motionshapes,hmdb51", "--tables", "1")
    assert code == 2 and "say where hmdb51 lies" in err and not out
    assert "there are several data sets" in prism_nb("study", "--datasets", "motionshapes,hmdb51", "--root", tmp_path)[2]


@pytest.mark.parametrize("name, says", [("smoke", "which is a profile"), ("ucf101", "a data set of its own"), ("a b", "must be made of letters"), ("*", "must be made of letters")])
def test_a_folder_cannot_take_a_name_that_is_taken(name, says, prism_nb, tmp_path):
    official.written(tmp_path / "own", [f"{c}/{i}.mp4" for c in "ab" for i in range(2)])
    code, _, err = prism_nb("data", "index", "folder", "--root", tmp_path / "own", "--name", name)
    assert code == 2 and says in err and not (tmp_path / "data" / "datasets").exists()
