"""Folders of one's own as they lie on a disk: names, kinds of files, splits, lists, parts of one video."""
import json
import os
import re
import subprocess

import av
import layouts
import numpy as np
import pandas as pd
import pytest
from conftest import BIN, ROOT

from prism_nb.cli import with_geometry
from prism_nb.condensed import CondensedSet
from prism_nb.core.errors import PrismError
from prism_nb.data.clips import from_array
from prism_nb.evaluation import check_comparable
from prism_nb.study import profiles

# Suffix → container and codec.
FORMATS = {"m2ts": ("mpegts", "libx264"), "MTS": ("mpegts", "libx264"), "gif": ("gif", "gif"),
           "f4v": ("f4v", "libx264"), "vob": ("vob", "mpeg2video"), "mxf": ("mxf", "mpeg2video"),
           "asf": ("asf", "wmv2"),
           "divx": ("avi", "mpeg4"), "3g2": ("3g2", "libx264"), "mp4": ("mp4", "libx264")}
ODD_NAMES = ["Screen Recording 2024-03-01 at 9.41.07\u202fAM", "no\xa0break", "ideographic\u3000space",
             "joined\u200dhere", "日本 çay"]


def write_video(path, seed, frames=20):
    """Write a video of 64×48 pixels in the format that belongs to a suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    container_format, codec = FORMATS[path.suffix[1:]]
    pixel_format = "bgr8" if codec == "gif" else "yuv420p"
    picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * t, 1), "rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())


def write_videos(root, *names):
    for seed, name in enumerate(names):
        write_video(root / name, seed)
    return root


@pytest.fixture
def index_folder(run_cli, tmp_path):
    """Write videos and index them as `mine`; return the exit code, the output, stderr and the index."""
    def run(*names, options=()):
        root = write_videos(tmp_path / "videos", *names)
        finished = run_cli("data", "index", "folder", "--root", root, "--name", "mine", *options)
        path = tmp_path / "data" / "datasets" / "mine-split1.csv"
        return *finished, pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None
    return run


def test_every_kind_of_file_from_index_to_cache_in_an_ascii_terminal(tmp_path):
    root = tmp_path / "videos"
    write_videos(root, *(f"run/{name}.mp4" for name in ODD_NAMES), "run/day 2/nested.mp4",
                 *(f"10:20 run/in {suffix}.{suffix}" for suffix in FORMATS))
    (root / "run" / "notes.txt").touch()
    (root / "run" / "no suffix").touch()
    (root / "__MACOSX" / "run").mkdir(parents=True)
    (root / "__MACOSX" / "run" / "copy.mp4").touch()

    def prism_nb(*command):
        environment = {**os.environ, "PRISM_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT),
                       "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
        finished = subprocess.run([BIN / "prism-nb", *command], cwd=root, env=environment, capture_output=True)
        assert b"Traceback" not in finished.stderr, finished.stderr.decode()
        return finished.returncode, finished.stdout.decode("ascii"), finished.stderr.decode("ascii")

    code, out, _ = prism_nb("data", "index", "folder", "--root", ".", "--name", "mine")
    assert code == 0
    assert "2 classes, 11 training and 5 test clips, 16 source videos" in out
    assert "cannot be read" not in out
    assert "64?48" in out
    assert "videos in sub-folders of their class folder: 1" in out
    assert "files left aside: 2 (1 without a suffix, 1 .txt)" in out or \
        "files left aside: 2 (1 .txt, 1 without a suffix)" in out
    index = pd.read_csv(tmp_path / "data" / "datasets" / "mine-split1.csv", keep_default_na=False)
    assert {f"run/{name}.mp4" for name in ODD_NAMES} < {*index.path}
    code, out, err = prism_nb("data", "verify", "mine")
    assert code == 0, out + err
    code, out, err = prism_nb("data", "cache", "mine", "--profile", "smoke")
    assert code == 0, err
    assert "11 training and 5 test videos" in out
    assert "left out" not in out


def test_a_data_set_is_remembered_though_nobody_reads_the_output(tmp_path):
    write_videos(tmp_path / "videos", *(f"{c}/{i}.mp4" for c in "ab" for i in range(2)))
    environment = {**os.environ, "PRISM_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    command = [BIN / "prism-nb", "data", "index", "folder", "--root", tmp_path / "videos", "--name", "mine"]
    environment.pop("PYTHONUNBUFFERED", None)   # the output is written at the end
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert finished.returncode == 141
    assert "Traceback" not in finished.stderr
    assert "Exception" not in finished.stderr
    assert (tmp_path / "data" / "datasets" / "mine.json").exists()


@pytest.mark.parametrize("folders, train, test, said", [
    ("Train/a Train/b Test/a Test/b", 4, 4, ""),
    ("training/a training/b testing/a testing/b", 4, 4, ""),
    ("train/a train/b val/a val/b", 4, 4, ""),
    ("train/a train/b val/a val/b test/a test/b", 4, 4, "files left aside: 4 (4 in val/)"),
    ("train/a train/b test/a test/b preview", 4, 4, "files left aside: 2 (2 in preview/)"),
    ("train/a train/b test/a test/b __MACOSX/a .git", 4, 4, ""),
    ("train bus test", 3, 3, ""),   # three classes
])
def test_splits_are_recognised_and_the_rest_is_counted(folders, train, test, said, index_folder):
    code, out, err, index = index_folder(*(f"{folder}/{i}.mp4" for folder in folders.split() for i in range(2)))
    assert code == 0, err
    assert f"{train} training and {test} test clips" in out
    assert ("left aside" in out) == bool(said)
    assert said in out
    if "bus" not in folders:
        assert all(re.match({"train": "(?i)train", "test": "(?i)test|val"}[split], path)
                   for path, split in zip(index.path, index.split))
        if "test/" in folders.lower():
            assert not index.path.str.startswith("val/").any()


@pytest.mark.parametrize("names, message", [
    ("train/a/0.mp4 train/b/0.mp4 test/a/0.mp4", "class b has no test clips"),
    ("0.mp4 1.mp4", "a sub-folder per class is missing"),
    ("train/0.mp4 test/0.mp4", "name the classes of its videos with --train-list and --test-list"),
    ("all/run/0.mp4 all/sit/0.mp4", "has one class folder, all, and its videos are in sub-folders"),
    ("tai\u3000chi/0.mp4 tai\u3000chi/1.mp4 tai\xa0chi/0.mp4 tai\xa0chi/1.mp4", "look the same"),
])
def test_a_folder_that_cannot_be_read_is_one_line_with_the_cause(names, message, index_folder, tmp_path):
    code, _, err, index = index_folder(*names.split(" "))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "data" / "datasets").exists()


def test_a_folder_without_videos_is_named(index_folder, tmp_path):
    (tmp_path / "videos" / "annotations").mkdir(parents=True)
    (tmp_path / "videos" / "annotations" / "a.xml").touch()
    code, _, err, _ = index_folder("a/0.mp4", "a/1.mp4", "b/0.mp4", "b/1.mp4")
    assert code == 2
    assert "annotations has no video" in err
    assert "contains a.xml; if it is no class, move it away" in err


def test_the_same_name_in_train_and_test_is_two_source_videos(index_folder, run_cli):
    folders = [f"{split}/{c}" for split in ("train", "test") for c in "ab"]
    _, out, _, _ = index_folder(*(f"{folder}/{i}.mp4" for folder in folders for i in range(2)))
    assert "8 source videos" in out
    code, out, _ = run_cli("data", "verify", "mine")
    assert code == 0, out
    _, out, _, _ = index_folder(options=("--group-regex", r"(\d)"))
    assert "4 source videos" in out
    assert run_cli("data", "verify", "mine")[0] == 1


def test_two_spellings_of_a_class_are_one_class(index_folder, run_cli):
    code, out, _, index = index_folder("train/café/0.mp4", "train/b/0.mp4", "test/cafe\u0301/1.mp4", "test/b/1.mp4")
    assert code == 0
    assert {*index.label} == {"b", "café"}
    assert "cannot be read" not in out
    assert run_cli("data", "verify", "mine")[0] == 0


def test_a_name_in_another_encoding_is_left_aside_alone(index_folder, tmp_path):
    (tmp_path / "videos" / "a").mkdir(parents=True)
    for name in (b"\xe9t\xe9.mp4", b"two\nlines.mp4"):
        (tmp_path / "videos" / "a" / os.fsdecode(name)).touch()
    code, out, _, index = index_folder("a/0.mp4", "a/1.mp4", "b/0.mp4", "b/1.mp4")
    assert code == 0
    assert len(index) == 4
    assert "files left aside: 2 (2 with bytes that are not UTF-8, or control characters, in their names)" in out


def test_a_number_of_workers_below_zero_is_one_line(index_folder, run_cli, tmp_path):
    index_folder("a/0.mp4", "a/1.mp4", "b/0.mp4", "b/1.mp4")
    index = ("index", "folder", "--root", tmp_path / "videos", "--name", "x")
    for command in (index, ("verify", "mine"), ("cache", "mine"), ("cache", "motionshapes")):
        code, _, err = run_cli("data", *command, "--workers", "-3")
        assert (code, err) == (2, "prism-nb: workers is -3, but must be at least 0\n")
    assert not (tmp_path / "data" / "motionshapes").exists()


def test_a_tilde_is_the_home_folder(run_cli, tmp_path, monkeypatch):
    write_videos(tmp_path / "home" / "videos", "a/0.mp4", "a/1.mp4", "b/0.mp4", "b/1.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PRISM_DATA", "~/prism")
    assert run_cli("data", "index", "folder", "--root=~/videos", "--name", "mine")[0] == 0
    assert (tmp_path / "home" / "prism" / "datasets" / "mine.json").exists()
    assert not (tmp_path / "~").exists()
    assert run_cli("data", "verify", "mine")[0] == 0


def test_a_colon_in_a_relative_root_is_no_protocol(run_cli, tmp_path, monkeypatch):
    names = [f"{c}/{i}.mp4" for c in ("10:20 run", "b") for i in range(2)]
    monkeypatch.chdir(write_videos(tmp_path / "videos", *names))
    code, out, _ = run_cli("data", "index", "folder", "--root", ".", "--name", "mine")
    assert code == 0
    assert "4 files of 20 to 20 frames" in out
    for command in ("verify", "cache"):
        code, out, err = run_cli("data", command, "mine", "--root", ".")
        assert code == 0, err
        assert "left out" not in out


LISTS = {   # of clips 0 … 7 in videos/, the last of which is missing
    "numbers": ("videos/{i}.mp4 {k}\n", "videos/{i}.mp4 {k}\n"),
    "tabs, bare names": ("{i}.mp4\t{c}\n", "{i}\t{c}\n"),
    "CSV with a header": ("videos/{i}.mp4,{c}\r\n", '"{i}.mp4", "{c}"\r\n'),
    "spaces in names": ("./videos/{i}.mp4  {c}\n", "videos\\{i}.mp4 {c}\n"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_a_flat_folder(kind, index_folder, run_cli, tmp_path):
    names = ["run", "tai chi"]
    lines = [form.format(i=i, k=i % 2, c=names[i % 2]) for form in LISTS[kind] for i in range(8)]
    header = "path,label\n" if kind.startswith("CSV") else ""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "train.txt").write_text(header + "".join(lines[:4]))
    (tmp_path / "videos" / "val.txt").write_text("".join(lines[12:16]))
    options = ("--train-list", "train.txt", "--test-list", tmp_path / "videos" / "val.txt")
    code, out, err, index = index_folder(*(f"videos/{i}.mp4" for i in (*range(7), 9)), options=options)
    assert code == 0, err
    assert "2 classes, 4 training and 4 test clips, 8 source videos" in out
    assert "1 files cannot be read" in out
    assert "videos of the folder in neither list: 1" in out
    assert [*index.label.unique()] == (["0", "1"] if kind == "numbers" else names)
    code, out, _ = run_cli("data", "cache", "mine", "--profile", "smoke")
    assert code == 0
    assert "1 left out: 1 missing, 0 short, 0 broken" in out


@pytest.mark.parametrize("train, options, message", [
    ("videos/0.mp4 run\nnonsense\n", (), "train.txt, line 2: 'nonsense' is not a path and a class"),
    ("videos/0.mp4 run\n../1.mp4 run\n", (), "train.txt, line 2: '../1.mp4 run' leaves the data set"),
    ("", (), "train.txt names no clip"),
    ("videos/1.mp4 run\n", (), "name 'videos/1.mp4' twice"),
    ("videos/0.mp4 run\n", ("--test-list", ""), "test_list is missing"),
    ("videos/0.mp4 run\n", ("--test-list", "none.txt"), "none.txt is missing"),
])
def test_a_bad_list_is_one_line(train, options, message, index_folder, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "train.txt").write_text(train)
    (tmp_path / "videos" / "test.txt").write_text("videos/1.mp4 run\n")
    lists = ("--train-list", "train.txt", "--test-list", "test.txt", *options)
    code, _, err, _ = index_folder("videos/0.mp4", "videos/1.mp4", options=lists)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "data" / "datasets").exists()


def test_lists_are_for_folders_of_ones_own(expect_error, tmp_path):
    layouts.ucf101(tmp_path / "ucf")
    message = expect_error("data", "index", "ucf101", "--root", tmp_path / "ucf", "--train-list", "x")
    assert "train_list is given, but only a folder of your own takes one" in message


def test_parts_of_one_video_are_noticed_and_kept_together(index_folder, run_cli):
    names = [f"{c}/{c}_{film}_{part}.mp4" for c in ("jump", "run") for film in (11, 12, 13, 14) for part in (1, 2, 3)]
    _, out, _, _ = index_folder(*names)
    assert "24 source videos" in out
    assert "24 files look like parts of 8 videos" in out
    code, out, _ = run_cli("data", "verify", "mine")
    assert code == 0   # names are no proof
    assert re.search(r"videos in training and test, by name +0 +[1-8] +warning", out)

    _, out, _, _ = index_folder(*names)
    proposed, sources = re.search(r"--group-regex '(.+)' keeps them together, and gives (\d+) source", out).groups()
    assert sources == "8"
    _, out, _, index = index_folder(*names, options=("--group-regex", proposed))
    assert "8 source videos" in out
    assert "look like" not in out
    assert index.groupby(["label", "group"]).split.nunique().max() == 1
    code, out, _ = run_cli("data", "verify", "mine")
    assert code == 0
    assert "warning" not in out


def test_ordinary_numbering_is_not_taken_for_parts(index_folder, run_cli):
    _, out, _, _ = index_folder(*(f"{c}/video_{i}.mp4" for c in "ab" for i in range(1, 9)))
    assert "look like" not in out
    assert "warning" not in run_cli("data", "verify", "mine")[1]


def test_real_names_lead_to_the_real_source_videos(real, run_cli):
    code, out, _ = run_cli("data", "index", "folder", "--root", real / "jhmdb" / "videos", "--name", "mine")
    assert code == 0
    assert re.search(r"gives (\d+) source videos", out)[1] == "410"   # as the official splits


def test_a_set_is_evaluated_on_the_clips_that_it_was_condensed_from(index_folder, run_cli, tmp_path):
    index_folder(*(f"{c}/{i}.mp4" for c in "ab" for i in range(4)))
    path = tmp_path / "set.safetensors"
    condense = ("condense", "--dataset", "mine", "--profile", "quick", "--method", "random", "--out", path)
    code, _, err = run_cli(*condense)
    assert code == 0, err
    condensed = CondensedSet.load(path)
    assert condensed.videos().shape[1:] == (8, 3, 64, 64)
    assert (condensed.metadata["sampling"]["num_frames"], condensed.metadata["crop"]["crop"]) == (8, 64)
    code, out, err = run_cli("evaluate", path, "--dataset", "mine", "--profile", "smoke")
    assert code == 0, err
    assert json.loads(out)["clips"] == 2
    assert "tested on clips of 8×64×64 (stride 4), as the set was condensed from, not those of the profile" in err


@pytest.mark.parametrize("name", ["condensed_set_0.1", "static_dynamic_set_0.1"])
def test_sets_of_version_0_1_are_compared_by_their_shape(name):
    condensed = CondensedSet.load(ROOT / "tests" / "data" / f"{name}.safetensors")
    config = profiles.get_config("quick", "jhmdb")
    assert with_geometry(config, condensed) == config
    _, frames, _, height, width = condensed.videos().shape
    classes = condensed.class_names
    labels = [*range(len(classes))] * 2

    def clips_of(height):
        return from_array(np.zeros((len(labels), frames, height, width, 3), np.uint8), labels, classes)
    check_comparable(condensed, clips_of(height))
    message = f"videos of {frames}×{height}×{width}, but the data set of {frames}×{height + 1}×{width}"
    with pytest.raises(PrismError, match=message):
        check_comparable(condensed, clips_of(height + 1))
