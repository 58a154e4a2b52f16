"""J-HMDB in one file of less than 40 MB: the centre clips, decoded on a machine that has PyAV.

A clip is one picture, its frames one below the other: the first frame, then differences of successive frames, modulo
256 and plus 128, so that no difference is grey. The pictures are lossless WebP.
"""
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import torch

from prism_nb.core.errors import PrismError
from prism_nb.core.files import content_hash, load_tensors, save_tensors
from prism_nb.data import datasets
from prism_nb.data.clips import Clips
from prism_nb.study.profiles import get_config

DATASET = "jhmdb"
LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]
GREY = np.uint8(128)   # no difference


def encode_clip(clip):
    """Encode a clip (T,H,W,3) uint8 as a picture: bytes (n,) uint8."""
    picture = clip.copy()
    picture[1:] = clip[1:] - clip[:-1] + GREY
    _, encoded = cv2.imencode(".webp", picture.reshape(-1, *clip.shape[2:]), LOSSLESS)
    return encoded


def decode_clip(encoded, shape):
    """Decode what `encode_clip` returned to a clip of a shape (T,H,W,3)."""
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR).reshape(shape)
    picture[1:] -= GREY
    return picture.cumsum(0, dtype=np.uint8)


def pixel_hash(pixels):
    """Hash decoded pixels."""
    return content_hash({"pixels": torch.from_numpy(np.array(pixels))})


def pack(pixels):
    """Encode clips (n,T,H,W,3): the bytes of all pictures, the ends of each, and the hash of the pixels."""
    encoded = [encode_clip(np.asarray(clip)) for clip in pixels]
    tensors = dict(webp=np.concatenate(encoded), ends=np.cumsum([len(picture) for picture in encoded]))
    return tensors, pixel_hash(pixels)


def unpack(tensors, shape, expected, path):
    """Decode what `pack` returned; other pixels than those that were packed are an error that names the file."""
    pictures = np.split(tensors["webp"], tensors["ends"][:-1])
    pixels = np.stack([decode_clip(picture, tuple(shape)[1:]) for picture in pictures])
    if pixel_hash(pixels) != expected:
        raise PrismError(f"{path}: OpenCV {cv2.__version__} decodes other pixels than those that were written")
    return pixels


def load_dataset(root):
    """Decode the centre clips of a data set; return them, and for each official split which are for training."""
    config, dataset = get_config("quick", DATASET), datasets.get_dataset(DATASET)
    sampling = replace(config.sampling, num_clips=1)
    clips = datasets.load(DATASET, root, sampling, config.crop)
    skipped = set(clips.skipped.path)
    if skipped:
        raise PrismError(f"{root}: {len(skipped)} clips cannot be decoded; the first: {clips.skipped.path[0]}")
    folder = datasets.resolve_root(DATASET, root)
    indices = [dataset.read_index(folder, split) for split in config.split_ids]
    paths = indices[0].path
    for split, index in zip(config.split_ids, indices):
        if {*index.path} != {*paths}:
            raise PrismError(f"{root}: official splits 1 and {split} are of different clips")
    train = [(index.set_index("path").split.loc[paths] == "train").to_numpy() for index in indices]
    return clips, np.stack(train)


def prepare(path, root):
    """Decode J-HMDB into one file, and read it again to check it."""
    clips, train = load_dataset(root)
    pixels = clips.pixels[clips.offsets]
    packed, hashed = pack(pixels)
    sources, source = np.unique(clips.source_videos, return_inverse=True)
    tensors = dict(
        **packed,
        labels=clips.labels,   # (n,)
        train=train,           # (splits,n) bool
        source=source,         # (n,) an index into the source videos
    )
    metadata = dict(dataset=DATASET, shape=pixels.shape, class_names=clips.class_names, source_videos=sources.tolist(),
                    geometry=clips.geometry, content_hash=hashed)
    save_tensors(path, {name: torch.from_numpy(value) for name, value in tensors.items()}, **metadata)
    load_prepared(path)


class PreparedClips:
    """The clips of a file that `prepare` wrote, decoded."""

    def __init__(self, path):
        tensors, self.metadata = load_tensors(path)
        if "shape" not in self.metadata or "webp" not in tensors:
            raise PrismError(f"{path} does not hold clips; write such a file with --prepare")
        self.tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.pixels = unpack(self.tensors, self.metadata["shape"], self.metadata["content_hash"], path)

    def split(self, number):
        """Return the clips of an official split, counted from 1."""
        n = len(self.pixels)
        names = np.array(self.metadata["source_videos"])
        return Clips(
            pixels=self.pixels,
            offsets=np.arange(n),
            num_clips=np.ones(n, int),
            labels=self.tensors["labels"],
            split=np.where(self.tensors["train"][number - 1], "train", "test"),
            source_videos=names[self.tensors["source"]],
            class_names=self.metadata["class_names"],
            skipped=pd.DataFrame(columns=["path", "reason"]),
            content_hash=self.metadata["content_hash"],
            geometry=self.metadata["geometry"],
        )


def load_prepared(path):
    """Load and decode a file that `prepare` wrote; pixels other than those written are an error."""
    return PreparedClips(path)
