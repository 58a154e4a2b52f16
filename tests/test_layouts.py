"""Every official layout from index to table: index, verify, cache, condense, evaluate, a table."""
import json
import shutil

import layouts
import pandas as pd
import pytest

from prism_nb.core.errors import PrismError
from prism_nb.core.registry import DATASETS
from prism_nb.data import datasets
from prism_nb.study import estimate, profiles, runner, runs
from prism_nb.study.executor import LocalExecutor

# Classes, training clips and test clips of each small copy.
CLIPS = {"ucf101": (3, 9, 6), "hmdb51": (2, 6, 4), "kinetics400": (2, 10, 4), "ssv2": (2, 6, 4)}
PAPER_NAMES = {"ucf101": "miniUCF", "hmdb51": "HMDB51", "kinetics400": "Kinetics-400", "ssv2": "SSv2"}


@pytest.fixture(params=CLIPS)
def layout(request, run_cli, tmp_path):
    """The name of a layout, a small copy of which is indexed; and what the command printed."""
    getattr(layouts, request.param)(tmp_path / "a download")
    code, out, _ = run_cli("data", "index", request.param, "--root", tmp_path / "a download")
    assert code == 0
    return request.param, out


def test_index(layout, tmp_path):
    name, out = layout
    classes, train, test = CLIPS[name]
    assert f"{name}, split 1: {classes} classes, {train} training and {test} test clips" in out
    index = pd.read_csv(tmp_path / "data" / "datasets" / f"{name}-split1.csv")
    assert {"path", "label", "split", "group", "frames", "fps", "width", "height"} <= {*index}
    assert len(index) == train + test
    assert index[index.problem.isna()].frames.median() == 20
    assert set(index.width.dropna()) == {64}


def test_verify(layout, run_cli):
    name, _ = layout
    code, out, _ = run_cli("data", "verify", name)
    mismatches = [line for line in out.splitlines() if " mismatch " in f" {line} "]
    # Numbers of classes, clips, and clips per class, which a small copy does not have, in every split;
    # and of Kinetics the files that cannot be read, for two reasons.
    per_split = {"hmdb51": 4, "kinetics400": 1}.get(name, 3)
    unreadable = 3 * (name == "kinetics400")
    assert code == 1
    assert len(mismatches) == per_split * len(DATASETS[name].official_counts) + unreadable, out
    assert not any("in training and test" in line for line in mismatches)


def test_cache_condense_and_evaluate(layout, run_cli, tmp_path):
    name, _ = layout
    classes, _, test = CLIPS[name]
    code, out, _ = run_cli("data", "cache", name, "--profile", "smoke")
    assert code == 0
    assert ("3 left out: 1 missing, 1 short, 1 broken" in out) == (name == "kinetics400"), out

    path, where = tmp_path / "set.safetensors", ("--dataset", name, "--profile", "smoke")
    code, out, err = run_cli("condense", *where, "--out", path)
    assert code == 0, err
    assert f"{classes} videos" in out
    code, out, err = run_cli("evaluate", path, *where)
    assert code == 0, err
    assert json.loads(out)["clips"] == test


@pytest.mark.slow
def test_table(layout, run_cli, tmp_path):
    name, _ = layout
    code, _, err = run_cli("study", "--dataset", name, "--profile", "smoke", "--tables", "1")
    assert code == 0, err
    assert f"16 runs of {name}, 2 at a time: about" in err
    table = pd.read_csv(tmp_path / "reports" / f"{name}-smoke" / "table1.csv")
    assert table.top1_mean.notna().all()
    assert set(table.paper_dataset) == {PAPER_NAMES[name]}


def test_a_folder_of_your_own_in_three_commands_and_two_pictures(run_cli, tmp_path):
    root, path = tmp_path / "meine Videos", tmp_path / "mine.safetensors"
    where = ("--dataset", "mine", "--profile", "smoke")
    names = [f"{c}/{source} {i}.mp4" for c in ("gehen", "çömelmek") for source in "abcd" for i in (1, 2)]
    layouts.write_clips(root, names)
    code, out, _ = run_cli("data", "index", "folder", "--root", root, "--name", "mine", "--group-regex", r"(.+) \d")
    assert code == 0
    assert "2 classes, 12 training and 4 test clips, 8 source videos" in out
    assert run_cli("data", "verify", "mine")[0] == 0

    code, _, err = run_cli("condense", *where, "--method", "prism", "--vpc", "1", "--out", path)
    assert code == 0, err
    code, out, err = run_cli("evaluate", path, *where)
    assert code == 0, err
    assert json.loads(out)["clips"] == 4
    for name in ("mine.gif", "mine.png"):
        assert run_cli("show", path, "--out", tmp_path / name)[0] == 0
        assert (tmp_path / name).stat().st_size > 2000


def test_the_aliases_of_options_mean_the_same(run_cli, tmp_path):
    layouts.write_clips(tmp_path / "own", [f"{c}/{source}{i}.mp4" for c in "ab" for source in "xy" for i in range(2)])
    index = ("data", "index", "folder", "--root", tmp_path / "own", "--name", "mine")
    first = run_cli(*index, "--group-regex", r"(.)\d", "--test-fraction", ".5")
    assert first[0] == 0
    assert run_cli(*index, "--group", r"(.)\d", "--share", ".5")[:2] == first[:2]
    assert "--share" not in run_cli("data", "index", "--help")[1]


@pytest.mark.parametrize("spoil, message", [
    (lambda root: shutil.rmtree(root / "ucfTrainTestlist"), "'ucfTrainTestlist' or 'splits' is missing"),
    (lambda root: (root / "ucfTrainTestlist" / "trainlist01.txt").unlink(), "trainlist01.txt is missing"),
    (lambda root: (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 BalanceBeam\n"), "not in classInd.txt"),
    (lambda root: (root / "ucfTrainTestlist" / "testlist01.txt").write_text("BalanceBeam/../../v_x_g01_c01.avi\n"),
     "which is not Class/v_Class"),
    (lambda root: shutil.rmtree(root), "is not a folder"),
])
def test_a_damaged_layout_is_one_line_and_leaves_nothing(spoil, message, run_cli, tmp_path):
    layouts.ucf101(tmp_path / "ucf")
    spoil(tmp_path / "ucf")
    code, _, err = run_cli("data", "index", "ucf101", "--root", tmp_path / "ucf")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "data" / "datasets").exists()


def test_half_a_download_is_reported_and_used_as_far_as_it_goes(run_cli, tmp_path):
    layouts.ucf101(tmp_path / "ucf")
    folder = tmp_path / "ucf" / "UCF-101" / "BalanceBeam"
    for clip in ("v_BalanceBeam_g09_c01.avi", "v_BalanceBeam_g10_c01.avi", "v_BalanceBeam_g01_c01.avi"):
        (folder / clip).unlink()
    code, out, _ = run_cli("data", "index", "ucf101", "--root", tmp_path / "ucf")
    assert code == 0
    assert "3 files cannot be read, the first: UCF-101/BalanceBeam/" in out
    assert "no such file" in out
    assert "3 left out: 3 missing, 0 short, 0 broken" in run_cli("data", "cache", "ucf101", "--profile", "smoke")[1]

    (folder / "v_BalanceBeam_g08_c01.avi").unlink()
    code, _, err = run_cli("data", "cache", "ucf101", "--profile", "smoke")
    assert code == 2
    assert "class BalanceBeam has no train clip that can be decoded" in err


def test_miniucf_is_where_ucf101_is(run_cli, tmp_path):
    layouts.ucf101(tmp_path / "ucf")
    with pytest.raises(PrismError, match="prism-nb data index ucf101"):
        datasets.resolve_root("miniucf")
    run_cli("data", "index", "ucf101", "--root", tmp_path / "ucf")
    cache = ("data", "cache")
    assert "miniucf, split 1: 6 training and 4 test videos" in run_cli(*cache, "miniucf", "--profile", "smoke")[1]
    assert "ucf101, split 1: 9 training and 6 test videos" in run_cli(*cache, "ucf101", "--profile", "smoke")[1]


def test_what_cannot_fit_is_not_started_and_nothing_is_decoded_for_it(run_cli, tmp_path, monkeypatch):
    layouts.hmdb51(tmp_path / "hmdb")
    run_cli("data", "index", "hmdb51", "--root", tmp_path / "hmdb")
    config = profiles.get_config("paper", "hmdb51")
    many = [run for vpc in (1, 5, 10) for method in ("dm", "prism") for run in runs.make_runs(config, [method], vpc)]
    condense = ("condense", "--dataset", "hmdb51", "--out", tmp_path / "x.safetensors")

    monkeypatch.setattr(estimate, "free_resources", lambda: (1e6, 1e15))
    needed = "18 runs of hmdb51, 1 at a time: .* GB of memory are needed, but only 0.0 GB are free"
    with pytest.raises(PrismError, match=needed):
        runner.get_records(many, LocalExecutor(1))
    code, _, err = run_cli(*condense, "--profile", "paper")
    assert code == 2
    assert "prism on hmdb51: " in err
    assert "are needed" in err

    monkeypatch.setattr(estimate, "free_resources", lambda: (1e15, 1.0))
    assert run_cli(*condense, "--profile", "smoke")[0] == 2
    assert not list((tmp_path / "data").glob("cache/*"))
    assert not (tmp_path / "x.safetensors").exists()


def test_several_data_sets_are_looked_for_before_the_first_is_started(run_cli, tmp_path):
    code, out, err = run_cli("study", "--profile", "smoke", "--datasets", "motionshapes,hmdb51", "--tables", "1")
    assert code == 2
    assert "root is missing: name the folder of hmdb51" in err
    assert not out
    code, _, err = run_cli("study", "--datasets", "motionshapes,hmdb51", "--root", tmp_path)
    assert code == 2
    assert "there are several data sets" in err


@pytest.mark.parametrize("name, message", [
    ("smoke", "which is a profile"),
    ("ucf101", "which is another data set"),
    ("a b", "must be made of letters"),
    ("*", "must be made of letters"),
])
def test_a_folder_cannot_take_a_name_that_is_taken(name, message, run_cli, tmp_path):
    layouts.write_clips(tmp_path / "own", [f"{c}/{i}.mp4" for c in "ab" for i in range(2)])
    code, _, err = run_cli("data", "index", "folder", "--root", tmp_path / "own", "--name", name)
    assert code == 2
    assert message in err
    assert not (tmp_path / "data" / "datasets").exists()
