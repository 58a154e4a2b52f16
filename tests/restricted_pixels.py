"""Write and decode clips of MotionShapes with a part of the processor's instructions; print hashes of the pixels.

Arguments: a folder to write to, and a mask of FFmpeg's processor flags, or nothing to allow all instructions.
"""
import ctypes
import hashlib
import json
import sys
from pathlib import Path

import av

from prism_nb.data.motionshapes import ground_truth, list_clips, render_clip, write_clip
from prism_nb.data.video import ENCODERS, ClipSampling, ResizeCrop, decode_clips

SAMPLING, CROP = ClipSampling(8, 4), ResizeCrop((48, 64), 48)


def restrict(mask: int):
    """Let FFmpeg and x264 use fewer instructions."""
    library = next((Path(av.__file__).parent.parent / "av.libs").glob("libavutil-*"))
    avutil = ctypes.CDLL(str(library))
    avutil.av_force_cpu_flags(avutil.av_get_cpu_flags() & mask)
    ENCODERS[".mp4"][1]["x264-params"] = "asm=0"   # x264 does not ask FFmpeg which instructions there are


def write_carelessly(path: Path):
    """Write a clip as anybody would."""
    facts = ground_truth("DiscJump", 0, 1, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=facts["fps"], options={"qscale": "3", "flags": "+qscale"})
        stream.height, stream.width, stream.pix_fmt = facts["height"], facts["width"], "yuv420p"
        for frame in render_clip(facts):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def pixel_hash(path: Path) -> str:
    """Hash the clip of a file."""
    return hashlib.sha256(decode_clips(path, SAMPLING, CROP).tobytes()).hexdigest()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        restrict(int(sys.argv[2]))
    found = {}
    for entry in list_clips(5, 1):
        if entry[1] in (1, 5):   # of each class one .mp4 and one .avi
            write_clip(folder, 0, entry)
            found[entry[3]] = pixel_hash(folder / "videos" / entry[3])
    write_carelessly(folder / "careless.avi")
    print(json.dumps({"clips": found, "careless": pixel_hash(folder / "careless.avi")}))
