"""Files of each kind that were read wrongly once: both decoders, `index`, `verify` and the cache see the same frames.

The right frames are those of `ffmpeg -i FILE -fps_mode passthrough`.
"""
import re
import shutil
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
    with_matrix,
    write,
)

from prism_nb.core.errors import PrismError
from prism_nb.data.annotations import VIDEO_SUFFIXES
from prism_nb.data.cache import load_or_build
from prism_nb.data.streams import count_frames
from prism_nb.data.verify import probe_file, probe_header
from prism_nb.data.video import DECODERS, ClipSampling, ResizeCrop, decode_clips

SIXTY = [numbered_frame(n) for n in range(60)]
SIZE = SIXTY[0].shape[:2]
OPEN_GROUPS = {"x265-params": "open-gop=1:bframes=3:keyint=15:min-keyint=15:log-level=none"}


def vp8_hidden(path):
    source = write(path.with_name("shown.webm"), SIXTY, "libvpx", g=10)
    return copy_packets(source, path, lambda i, packet: [hidden_copy(packet)] * packet.is_keyframe + [packet])


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
        whole = write(path.with_stem("whole").with_suffix(suffix), SIXTY, "libx265", **OPEN_GROUPS)
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


def shown_by_pyav(path):
    """The numbers of all frames that a plain loop decodes, passing over errors as ffmpeg does."""
    frames = []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1   # what replaces a lost part of a picture depends on it
        for packet in container.demux(video=0):
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.error.InvalidDataError:
                pass
    return read_numbers(frames)


def test_an_incomplete_last_packet_costs_one_frame_at_most(tmp_path):
    path, sampling = incomplete(tmp_path / "incomplete.mp4"), ClipSampling(16, 1, num_clips=3)
    shown = np.array(shown_by_pyav(path))
    assert len(shown) in (59, 60)
    assert probe_file(path)["frames"] == len(shown)
    assert numbers_read(path, "pyav", sampling) == shown[sampling.indices(len(shown))].tolist()


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a_decoder_that_shows_more_frames_than_packets_is_followed(tmp_path, suffix):
    """MPEG-4 with B-frames that begins between two key frames: what comes before the first one is shown in grey."""
    path = from_packet(7, suffix, codec="mpeg4", bf=2)(tmp_path / f"middle{suffix}")
    shown, sampling = np.array(shown_by_pyav(path)), ClipSampling(16, 1, num_clips=3)
    assert len(shown) == 54
    assert probe_file(path)["frames"] == 54
    assert numbers_read(path, "pyav", sampling) == shown[sampling.indices(54)].tolist()


@pytest.mark.parametrize("suffix, codec", [(".ts", "libx264"), (".ts", "mpeg2video"), (".mpg", "mpeg2video"),
                                           (".avi", "mpeg4"), (".avi", "mjpeg"), (".mkv", "libx264"),
                                           (".webm", "libvpx"), (".flv", "flv"), (".h264", "libx264")])
@pytest.mark.parametrize("share", [.99, .97, .94, .9])
def test_a_file_without_its_end_is_read_up_to_there(tmp_path, suffix, codec, share):
    content = write(tmp_path / f"whole{suffix}", SIXTY, codec, g=15).read_bytes()
    path, sampling = tmp_path / f"cut{suffix}", ClipSampling(16, 1, num_clips=3)
    path.write_bytes(content[:int(share * len(content))])
    shown = np.array(shown_by_pyav(path))
    indices = sampling.indices(len(shown))
    complete = indices < len(shown) - 1   # what the last picture shows where it is lost, is the decoder's choice
    assert len(shown) > 45
    assert probe_file(path)["frames"] == len(shown)
    assert (np.array(numbers_read(path, "pyav", sampling))[complete] == shown[indices][complete]).all()


MATRICES = [m for x in (1, -1) for y in (1, -1) for m in ((x, 0, 0, y), (0, x, y, 0))]


def upright(picture, matrix):
    """Move each pixel of a picture where a display matrix puts it."""
    a, b, c, d = matrix
    rows, columns = np.indices(picture.shape[:2])
    x, y = a * columns + c * rows, b * columns + d * rows
    moved = np.empty((np.ptp(y) + 1, np.ptp(x) + 1, 3), picture.dtype)
    moved[y - y.min(), x - x.min()] = picture
    return moved


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("matrix", MATRICES)
def test_each_of_eight_orientations_is_shown(tmp_path, decoder, matrix):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    plain = write(tmp_path / "plain.mp4", [picture] * 10, bf=2)
    turned = with_matrix(plain, tmp_path / "turned.mp4", matrix)
    expected = upright(DECODERS[decoder](plain, ClipSampling(8, 1), (96, 128))[0, 0], matrix)
    shown = DECODERS[decoder](turned, ClipSampling(8, 1), expected.shape[:2])[0, 0]
    assert np.abs(shown.astype(int) - expected).mean() < 1
    assert np.abs(upright(picture, matrix).astype(int) - shown).mean() < 20


def spoiled(path):
    """Each tenth packet of the middle overwritten."""
    def change(i, packet):
        if not i or i % 10:
            return [packet]
        content = bytearray(bytes(packet))
        content[:len(content) // 2] = b"\xff" * (len(content) // 2)
        damaged = av.Packet(bytes(content))
        damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
        return [damaged]
    return copy_packets(write(path.with_stem("whole"), SIXTY, bf=2), path, change)


def cut(path, share, codec="libx264", **options):
    """The beginning of a file."""
    content = write(path.with_stem("whole"), SIXTY, codec, **options).read_bytes()
    path.write_bytes(content[:int(share * len(content))])


def sound_alone(path):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux([*sound.encode(frame), *sound.encode()])


def unknown_codec(path):
    path.write_bytes(write(path.with_stem("whole"), SIXTY, "mpeg4").read_bytes().replace(b"FMP4", b"ZQZ1"))


def cover_alone(path):
    with av.open(str(path), "w") as container:
        cover = add_stream(container, "mjpeg")
        sound = container.add_stream("aac", rate=48000, layout="stereo")
        cover.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        for packet in (*encode(cover, SIXTY[:1]), *sound.encode(frame), *sound.encode()):
            container.mux(packet)


FASTSTART = {"movflags": "faststart"}
REFUSED = {   # name → how it is made, a part of the reason; `index`, which reads headers, sees the first five
    "sound_alone.mp4": (sound_alone, "it has no video"),
    "cover_alone.mp4": (cover_alone, "it has no video"),
    "unknown.avi": (unknown_codec, "the codec of its video is not known"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "it is empty"),
    "text.mp4": (lambda path: path.write_text("this is no video"), "cannot be"),
    "half.mp4": (lambda path: cut(path, .6, g=10, muxing=FASTSTART), "its header promises 60 frames"),
    "half.avi": (lambda path: cut(path, .5, "mpeg4"), "its header promises 60 frames"),
    "third.webm": (lambda path: cut(path, .3, "libvpx"), "its header promises 2.4 seconds"),
    "third.flv": (lambda path: cut(path, .3, "flv", audio="libmp3lame", seconds=2.4), "its header promises 2."),
}
SEEN_BY_INDEX = [*REFUSED][:5]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """One file of each kind that cannot be used."""
    root = tmp_path_factory.mktemp("refused")
    for name, (make, _) in REFUSED.items():
        (root / name).mkdir()
        make(root / name / name)
    return root


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(refused, name, decoder):
    path, reason = refused / name / name, REFUSED[name][1]
    with pytest.raises(PrismError) as error:
        decode_clips(path, ClipSampling(8, 1), ResizeCrop(SIZE, 120), decoder)
    assert str(error.value).startswith(f"{path}: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert reason in probe_file(path)["problem"]
    assert (probe_header(path)["problem"] != "") == (name in SEEN_BY_INDEX)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_relative_path_is_no_address(tmp_path, monkeypatch, decoder):
    monkeypatch.chdir(tmp_path)
    path = Path("10:20 run") / "a.mp4"
    path.parent.mkdir()
    write(tmp_path / path, SIXTY)
    assert numbers_read(path, decoder, ClipSampling(8, 1)) == [[*range(26, 34)]]
    assert probe_file(path)["problem"] == ""


def test_damage_in_the_middle_is_refused(tmp_path):
    path = spoiled(tmp_path / "spoiled.mkv")
    with pytest.raises(PrismError, match="spoiled.mkv: "):
        decode_clips(path, ClipSampling(16, 1, num_clips=3), ResizeCrop(SIZE, 120))


def test_verify_and_the_cache_agree_about_every_file(folder, refused, monkeypatch, tmp_path):
    monkeypatch.setenv("PRISM_DATA", str(tmp_path / "data"))
    paths = [*(folder / name / name for name in KINDS), *(refused / name / name for name in REFUSED)]
    index = index_of(paths)
    clips = load_or_build(index, Path("/"), ClipSampling(16, 1, num_clips=3), ResizeCrop(SIZE, 120))
    assert {Path(path).name for path in clips.skipped.path} == {*REFUSED}
    assert {path.name for path in paths if probe_file(path)["problem"]} == {*REFUSED}


def test_the_commands_name_each_file_that_cannot_be_used(folder, refused, run_cli, tmp_path):
    own = tmp_path / "own"
    good = [name for name in KINDS if Path(name).suffix in VIDEO_SUFFIXES]
    for label in ("run", "sit"):
        (own / label).mkdir(parents=True)
        for name in good:
            shutil.copy(folder / name / name, own / label)
    for name in REFUSED:
        shutil.copy(refused / name / name, own / "run")
    code, out, err = run_cli("data", "index", "folder", "--root", own, "--name", "mine")
    assert code == 0, err
    assert re.search(rf"{2 * len(good) + len(REFUSED) - len(SEEN_BY_INDEX)} files of \d+ to 60 frames, 160×120 to", out)
    assert f"{len(SEEN_BY_INDEX)} files cannot be read" in out
    code, out, err = run_cli("data", "verify", "mine")
    assert code == 1, err
    row, = [line for line in out.splitlines() if "files that cannot be read" in line]
    assert f" read 0 {len(REFUSED)} mismatch" in " ".join(row.split())
    code, out, err = run_cli("data", "cache", "mine")
    assert code == 0, err
    assert f"{len(REFUSED)} left out: 0 missing, 0 short, {len(REFUSED)} broken" in out
