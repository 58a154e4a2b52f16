"""The real clips, where they are: J-HMDB in the layout of HMDB51."""
import csv
from collections import Counter

from prism_nb.data.annotations import hmdb51
from prism_nb.data.video import ClipSampling, ResizeCrop, decode_clips


def test_jhmdb_is_read_as_its_manifest_says(real):
    root = real / "jhmdb"
    index = hmdb51(root, split_id=1)
    manifest = list(csv.DictReader((root / "manifest.csv").open()))
    assert len(index) == len(manifest) == 928
    assert index.label.nunique() == 21
    assert Counter(index.split) == Counter(row["split1"] for row in manifest) == {"train": 660, "test": 268}


def test_no_source_video_is_in_both_splits(real):
    index = hmdb51(real / "jhmdb", split_id=1)
    assert index.groupby(["label", "group"]).split.nunique().max() == 1


def test_a_real_clip_becomes_an_array(real):
    path = next((real / "jhmdb" / "videos").glob("*/*.avi"))
    assert decode_clips(path, ClipSampling(8, 4), ResizeCrop((64, 64), 64)).shape == (1, 8, 64, 64, 3)
