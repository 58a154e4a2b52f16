"""MotionShapes has the same pixels on every processor."""
import json
import platform
from pathlib import Path

import av
import pytest
from conftest import ROOT, call

from prism_nb.data import motionshapes_crossed
from prism_nb.data.datasets import load
from prism_nb.data.motionshapes import FINGERPRINT, VERSION
from prism_nb.study.profiles import get_config

BASELINE = {   # what NumPy, OpenCV and the C library do not use
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
    "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,FP16,AVX2,AVX512-SKX",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-AVX512F,-AVX512VL"}
NO_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL", "OPENCV_CPU_DISABLE": "AVX512-SKX"}
RESTRICTED = {   # FFmpeg's processor flags, and the environment
    "AVX2": (0x7D3DB, NO_AVX512),
    "SSE2": (0x101B, BASELINE),
    "plain C": (0, BASELINE)}
FINGERPRINTS = {"motionshapes": FINGERPRINT, "motionshapes-crossed": motionshapes_crossed.FINGERPRINT}

pytestmark = pytest.mark.skipif(not (Path(av.__file__).parent.parent / "av.libs").is_dir(),
                                reason="PyAV has no FFmpeg of its own here")


def hashes(*arguments, **environment):
    """What `restricted_pixels.py` prints."""
    done = call("python", ROOT / "tests" / "restricted_pixels.py", *arguments, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def unrestricted(tmp_path_factory):
    """Hashes with all instructions of this processor."""
    return hashes(tmp_path_factory.mktemp("all"))


@pytest.mark.parametrize("name", RESTRICTED)
def test_pixels_do_not_depend_on_instructions(name, unrestricted, tmp_path):
    mask, environment = RESTRICTED[name]
    restricted = hashes(tmp_path, mask, **environment)
    assert len(restricted["clips"]) == 20
    assert restricted["clips"] == unrestricted["clips"]
    if name == "plain C" and platform.machine() == "x86_64":
        assert restricted["careless"] != unrestricted["careless"]   # the restriction reaches the encoder


def test_the_page_about_data_names_the_fingerprint():
    page = (ROOT / "data" / "README.md").read_text()
    assert f"Version {VERSION} of the data set" in page
    for fingerprint in FINGERPRINTS.values():
        assert f"\n    {fingerprint}\n" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_whole_data_set_has_its_fingerprint(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PRISM_DATA", str(tmp_path))
    config = get_config("quick", name)
    clips = load(name, sampling=config.sampling, crop=config.crop)
    assert clips.content_hash == FINGERPRINTS[name]
