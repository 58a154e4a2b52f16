"""Motion-capture files, from a folder of BVH files to a condensed set; the crossed data set in a table."""
import json

import pandas as pd
import pytest

from prism_nb.data.datasets import load
from prism_nb.data.mocap import FOLLOWED, MARKERS
from prism_nb.study.profiles import get_config

MOTIONS = ("raise-up-left-hand", "raise-up-right-hand")
STYLES = ("active", "elderly", "exhausted", "feminine")


def bvh(swing, frames=32):
    """A star of joints about the hips; `swing` degrees turn it about Z from the first frame to the last."""
    end = "CHANNELS 0 End Site { OFFSET 0 0 0 }"
    joints = " ".join(f"JOINT {name} {{ OFFSET {10 * (i % 5) - 20} {8 * i - 40} 0 {end} }}"
                      for i, name in enumerate(MARKERS))
    lines = [f"0 90 {5 * t} {swing * t / (frames - 1):.3f} 0 0" for t in range(frames)]
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
    return "\n".join([f"HIERARCHY ROOT {FOLLOWED} {{ OFFSET 0 0 0 {channels} {joints}}}", "MOTION",
                      f"Frames:\t{frames}", "Frame Time:\t0.0333333", *lines, ""])


@pytest.fixture
def recordings(tmp_path):
    """A small copy of the data set."""
    folder = tmp_path / "Motiondataset-2" / "data"
    folder.mkdir(parents=True)
    for motion, swing in zip(MOTIONS, (60, -60)):
        for style in STYLES:
            for number in (1, 2):
                path = folder / f"dataset-2_{motion}_{style}_{number:03}.bvh"
                path.write_text(bvh(swing + 10 * number))
    return folder.parent


def test_from_recordings_to_accuracy(recordings, run_cli, tmp_path):
    code, out, err = run_cli("data", "index", "mocap", "--root", recordings)
    assert code == 0, err
    assert "mocap, split 1: 2 classes, 12 training and 4 test clips, 8 source videos" in out
    assert "16 files of 32 to 32 frames, 128×96 to 128×96" in out
    rendered = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "mocap").rglob("*.mkv")}
    assert len(rendered) == 16

    assert run_cli("data", "verify", "mocap")[0] == 1   # the official numbers are those of a complete copy
    path, where = tmp_path / "set.safetensors", ("--dataset", "mocap", "--profile", "smoke")
    code, _, err = run_cli("condense", *where, "--out", path)
    assert code == 0, err
    code, out, err = run_cli("evaluate", path, *where, "--root", recordings)
    assert code == 0, err
    assert json.loads(out)["clips"] == 4
    assert {path: path.stat().st_mtime_ns for path in rendered} == rendered   # rendered once


def test_clips_are_not_flipped(recordings, monkeypatch, tmp_path):
    monkeypatch.setenv("PRISM_DATA", str(tmp_path / "data"))
    config = get_config("smoke", "mocap")
    assert not load("mocap", recordings, config.sampling, config.crop).train.flips


def test_a_damaged_recording_is_named(recordings, expect_error, tmp_path):
    bad = next(recordings.rglob("*.bvh"))
    bad.write_text(bad.read_text()[:-5])
    message = expect_error("data", "index", "mocap", "--root", recordings, PRISM_DATA=tmp_path / "data")
    assert f"{bad}: 190 values are there for 32 frames of 6 channels" in message
    assert not list((tmp_path / "data").rglob("*.mkv"))


@pytest.mark.parametrize("content", ["nothing", "other"])
def test_a_folder_without_recordings(content, expect_error, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    if content == "other":
        (folder / "walk.bvh").write_text(bvh(10))
    message = expect_error("data", "index", "mocap", "--root", folder, PRISM_DATA=tmp_path / "data")
    assert "files named dataset-2_MOTION_STYLE_NUMBER.bvh are missing" in message


@pytest.mark.slow
def test_factors_are_shown_for_the_crossed_data_set(run_cli, tmp_path):
    code, _, err = run_cli("study", "--dataset", "motionshapes-crossed", "--profile", "smoke", "--tables", "5")
    assert code == 0, err
    folder = tmp_path / "reports" / "motionshapes-crossed-smoke"
    table = pd.read_csv(folder / "table5.csv")
    product = table.group_mean * table.within_mean / 100
    assert ((product - table.top1_mean).abs() < 10).all()
    assert "motion, given pair [%]" in (folder / "table5.html").read_text()
