"""Files of each kind that were read wrongly once: both decoders, `index`, `verify` and the cache see the same frames.

The right frames are those of `ffmpeg -i FILE -fps_mode passthrough`.
"""
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from av.stream import Disposition
from numbered import (
    add_stream,
    copy_packets,
    encode,
    hidden_copy,
    numbered_frame,
    read_numbers,
    shifted,
    write,
    with_matrix,
)

from prism_nb.core.errors import PrismError
from prism_nb.data.cache import load_or_build
from prism_nb.data.streams import count_frames
from prism_nb.data.verify import probe_file, probe_header
from prism_nb.data.video import DECODERS, ClipSampling, ResizeCrop, decode_clips

SIXTY = [numbered_frame(n) for n in range(60)]
SIZE = SIXTY[0].shape[:2]
X265 = "bframes=3:log-level=none:keyint=15:min-keyint=15"


def vp8_hidden(path):
    source = write(path.with_name("shown.webm"), SIXTY, "libvpx", g=10)
    return copy_packets(source, path, lambda i, packet: [hidden_copy(packet), packet] if packet.is_keyframe else [packet])


def vp9_hidden(path):
    """Alt-ref frames, which libvpx stores in one packet with a shown one."""
    noise = np.random.default_rng(0).integers(-20, 20, (60, *SIZE, 3))
    frames = [np.clip(frame + n, 0, 255).astype(np.uint8) for frame, n in zip(SIXTY, noise)]
    return write(path, frames, "libvpx-vp9", **{"auto-alt-ref": 1, "lag-in-frames": 25, "crf": 30, "cpu-used": 8})


def from_packet(first, source, **options):
    """A file whose first packets are cut off, so that it begins between two key frames."""
    def make(path):
        whole = write(path.with_stem("whole").with_suffix(source), SIXTY, g=15, **options)
        return copy_packets(whole, path, lambda i, packet: [packet] if i >= first else [])
    return make


def transport_packets_lost(path):
    """A broadcast that begins in the middle, cut between the packets of the transport, 188 bytes each."""
    content = write(path.with_stem("whole"), SIXTY, g=15, bf=2).read_bytes()
    packets = [content[i:i + 188] for i in range(0, len(content), 188)]
    path.write_bytes(b"".join(packets[:3] + packets[len(packets) // 5:]))
    return path


def hevc_leading(suffix):
    """HEVC with open groups, from the second key frame on: the pictures that refer to the first group are not shown."""
    def make(path):
        whole = write(path.with_stem("whole").with_suffix(suffix), SIXTY, "libx265", **{"x265-params": f"{X265}:open-gop=1"})
        return copy_packets(whole, path, lambda i, packet: [packet] if i >= 16 else [])
    return make


def trimmed(path):
    """From 6 to 8 s without encoding again: an edit list hides the frames from the key frame to there."""
    source = write(path.with_stem("whole"), [numbered_frame(n) for n in range(202)], g=250, bf=2)
    return copy_packets(source, path, lambda i, packet: [shifted(packet, -6)])


def sound_longer(codec, audio, **options):
    return lambda path: write(path, SIXTY, codec, audio=audio, seconds=8, **options)


def cover_first(disposition):
    """A JPEG as first stream; Matroska does not mark it."""
    def make(path):
        with av.open(str(path), "w") as container:
            cover, film = add_stream(container, "mjpeg"), add_stream(container, "libx264", bf=2)
            cover.disposition = disposition
            for packet in (*encode(cover, [numbered_frame(255)]), *encode(film, SIXTY)):
                container.mux(packet)
        return path
    return make


def preview_first(path):
    """A smaller stream of another film before the one that is marked as the default."""
    with av.open(str(path), "w") as container:
        preview, film = add_stream(container, "mpeg4", (80, 60)), add_stream(container, "mpeg4")
        film.disposition = Disposition.default
        small = [numbered_frame(255)[::2, ::2]] * 30
        for packet in (*encode(preview, small), *encode(film, SIXTY)):
            container.mux(packet)
    return path


def incomplete(path):
    """The index in front, and a last packet of which the second half is missing."""
    whole = write(path.with_stem("whole"), SIXTY, bf=0, muxing={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
        path.write_bytes(whole.read_bytes()[:last.pos + last.size // 2])
    return path


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
UNEVEN = [n if n < 20 else 20 + 4 * (n - 20) for n in range(60)]
ALL = [*range(60)]
KINDS = {   # name → how it is made, the numbers of its shown frames, what its header tells
    "hidden.webm": (vp8_hidden, ALL, 60),
    "superframes.webm": (vp9_hidden, ALL, 60),
    "middle.ts": (from_packet(9, ".mp4", bf=2), ALL[15:], None),
    "middle.mkv": (from_packet(9, ".mp4", bf=2), ALL[15:], None),
    "broadcast.ts": (transport_packets_lost, ALL[15:], None),
    "leading.mkv": (hevc_leading(".mkv"), ALL[30:], None),
    "leading.mp4": (hevc_leading(".mp4"), ALL[30:], None),
    "trimmed.mp4": (trimmed, [*range(150, 202)], 52),
    "sound.mkv": (sound_longer("libx264", "aac"), ALL, 60),
    "sound.webm": (sound_longer("libvpx-vp9", "libopus", deadline="realtime"), ALL, 60),
    "sound.mp4": (sound_longer("libx264", "aac"), ALL, 60),
    "fragments.mp4": (sound_longer("libx264", "aac", muxing=FRAGMENTED), ALL, 60),
    "sound.mov": (sound_longer("mpeg4", "pcm_s16le"), ALL, 60),
    "sound.3gp": (sound_longer("mpeg4", "aac"), ALL, 60),
    "sound.flv": (sound_longer("flv", "libmp3lame"), ALL, 60),
    "sound.wmv": (sound_longer("wmv2", "wmav2"), ALL, 60),
    "sound.ts": (sound_longer("libx264", "aac"), ALL, 60),
    "sound.mpg": (sound_longer("mpeg2video", "mp2"), ALL, 60),
    "sound.ogv": (sound_longer("libvpx", "libopus", muxer="ogg"), ALL, 60),
    "sound.avi": (sound_longer("mpeg4", "libmp3lame"), ALL, 60),
    "gaps.avi": (lambda path: write(path, SIXTY, "mpeg4", times=UNEVEN), ALL, 60),
    "cover.mkv": (cover_first(Disposition(0)), ALL, 60),
    "cover.mp4": (cover_first(Disposition.attached_pic), ALL, 60),
    "preview.mp4": (preview_first, ALL, 60),
    "mpeg2.ts": (lambda path: write(path, SIXTY, "mpeg2video", bf=2), ALL, 60),
    "camcorder.MTS": (lambda path: write(path, SIXTY, bf=2, muxer="mpegts"), ALL, 60),
    "h264.avi": (lambda path: write(path, SIXTY, bf=2, g=15), ALL, 60),
    "picture.gif": (lambda path: write(path, SIXTY, "gif"), ALL, 60),
    "program.vob": (lambda path: write(path, SIXTY, "mpeg2video", muxer="vob"), ALL, None),
    "raw.h264": (lambda path: write(path, SIXTY, bf=2), ALL, 60),
}
RIGHT_WITH_DECORD = {"hidden.webm", "superframes.webm", "middle.mkv", "trimmed.mp4", "sound.mkv", "sound.webm",
                     "sound.mp4", "fragments.mp4", "sound.mov", "sound.avi", "gaps.avi", "cover.mkv", "cover.mp4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, each made in a folder of its own."""
    root = tmp_path_factory.mktemp("kinds")
    for name, (make, _, _) in KINDS.items():
        (root / name).mkdir()
        make(root / name / name)
    return root


def numbers_read(path, decoder, sampling):
    """The numbers of the frames of the clips, or None if the decoder refuses the file."""
    try:
        return [read_numbers(clip) for clip in DECODERS[decoder](path, sampling, SIZE)]
    except PrismError:
        return None


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("sampling", [ClipSampling(8, 1), ClipSampling(16, 1, num_clips=3)], ids=["centre", "three"])
def test_the_shown_frames_are_read(folder, name, sampling):
    shown = np.array(KINDS[name][1])
    assert numbers_read(folder / name / name, "pyav", sampling) == shown[sampling.indices(len(shown))].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_decord_reads_the_same_frames_or_refuses_the_file(folder, name):
    if "decord" not in DECODERS:
        pytest.skip("decord has no wheel for this platform")
    shown, sampling = np.array(KINDS[name][1]), ClipSampling(8, 1)
    try:
        clips = DECODERS["decord"](folder / name / name, sampling, SIZE)
    except Exception as e:
        assert name not in RIGHT_WITH_DECORD, e
    else:
        assert [read_numbers(clip) for clip in clips] == shown[sampling.indices(len(shown))].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_header_and_packets_tell_the_shown_frames(folder, name):
    _, shown, header = KINDS[name]
    path = folder / name / name
    assert count_frames(path) == len(shown)
    assert probe_file(path)["frames"] == len(shown)
    assert probe_file(path)["problem"] == probe_header(path)["problem"] == ""
    if header:
        assert probe_header(path)["frames"] == header


def index_of(paths):
    """An index in which each file is in training and in test."""
    rows = [(str(path), "run", split, str(path)) for path in paths for split in ("train", "test")]
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])
