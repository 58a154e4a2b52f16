"""Bytes and quality of real clips as H.264 files of the model's resolution: python benchmarks/codec.py JHMDB"""
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from prism_nb.core.progress import progress_bar
from prism_nb.data import datasets
from prism_nb.data.clips import denormalise
from prism_nb.methods.coded import decode_clip, encode_clip
from prism_nb.report.tables import write_csv
from prism_nb.study.profiles import INPUT_16x112

CLIPS, CRFS = 60, (18, 23, 28)
FILE = Path(__file__).with_name("codec.csv")


def psnr(a, b):
    """Peak signal-to-noise ratio of two clips of bytes, in dB."""
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return 10 * np.log10(255**2 / error)


def measure(clips):
    """Encode clips at each rate factor; one line per rate factor."""
    chosen = np.linspace(0, len(clips) - 1, CLIPS).astype(int)
    pixels = denormalise(clips.videos(chosen)).numpy()
    for crf in CRFS:
        files = [encode_clip(clip, crf) for clip in progress_bar(pixels, f"CRF {crf}")]
        quality = [psnr(clip, decode_clip(data)) for clip, data in zip(pixels, files)]
        yield dict(crf=crf, clips=CLIPS, frames=pixels.shape[1], size=pixels.shape[2],
                   bytes_of_clip=round(np.mean([*map(len, files)])), psnr=round(float(np.mean(quality)), 1))


if __name__ == "__main__":
    clips = datasets.load("jhmdb", sys.argv[1], *INPUT_16x112, 1).train
    write_csv(pd.DataFrame(measure(clips)), FILE)
    print(FILE)
