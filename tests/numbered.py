"""Videos whose frames show their own number, so that a decoded frame says which one it is."""
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, BITS = 160, 120, 8
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "gif": "rgb8"}   # others: yuv420p


def numbered_frame(number):
    """A frame (120,160,3) with eight bars, white for each set bit of its number, highest bit first."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    bits = np.array([number >> bit & 1 for bit in reversed(range(BITS))], bool)
    frame[HEIGHT // 4:3 * HEIGHT // 4, WIDTH // 4:3 * WIDTH // 4] = np.where(bits, 235, 20).repeat(10)[None, :, None]
    return frame


def read_number(frame):
    """The number that a decoded frame shows, whatever its size."""
    height, width = frame.shape[:2]
    row = frame[height // 2 - 3:height // 2 + 3].mean((0, 2))
    centres = width / 4 + width / 2 * (np.arange(BITS) + .5) / BITS
    return int("".join("1" if row[int(x) - 1:int(x) + 2].mean() > 128 else "0" for x in centres), 2)


def read_numbers(clip):
    """The numbers that the frames of a clip show."""
    return [read_number(frame) for frame in clip]


def encode(stream, frames, times=None):
    """Yield the packets of frames, at 1/25 s each or at `times`."""
    for t, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        picture.pts = t if times is None else times[t]
        picture.time_base = 1 / stream.codec_context.framerate
        yield from stream.encode(picture)
    yield from stream.encode()


def add_stream(container, codec, size=(WIDTH, HEIGHT), **options):
    """Add a video stream of 25 frames per second."""
    stream = container.add_stream(codec, rate=25, options={name: str(value) for name, value in options.items()})
    stream.width, stream.height = size
    stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv420p")
    stream.codec_context.thread_count = 1
    return stream


def silence(seconds, rate=48000):
    """Yield frames of stereo silence."""
    for start in range(0, int(seconds * rate), rate // 50):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, rate // 50), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = rate, start
        yield frame


def write(path, frames, codec="libx264", times=None, audio=None, seconds=0, muxer=None, muxing=None, **options):
    """Write a video file; with an audio codec also `seconds` of silence, interleaved as muxers want it."""
    with av.open(str(path), "w", format=muxer, options=muxing or {}) as container:
        stream = add_stream(container, codec, frames[0].shape[1::-1], **options)
        sound = container.add_stream(audio, rate=48000, layout="stereo") if audio else None
        if sound:
            sound.bit_rate = 64000
        for packet in encode(stream, frames, times):
            container.mux(packet)
        if sound:
            frame_size = sound.codec_context.frame_size or 1152
            resampler = av.AudioResampler(sound.format, sound.layout, sound.rate, frame_size)
            for frame in [*silence(seconds), None]:
                for part in resampler.resample(frame):
                    container.mux(sound.encode(part))
            container.mux(sound.encode())
    return Path(path)


def copy_packets(source, target, change=lambda i, packet: [packet]):
    """Copy the video packets of a file without decoding them; `change(i, packet)` returns those to write for each."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        packets = [packet for packet in reading.demux(video=0) if packet.size]
        for i, packet in enumerate(packets):
            for copy in change(i, packet):
                copy.stream = stream
                writing.mux(copy)
    return Path(target)


def hidden_copy(packet):
    """A copy of a VP8 packet whose first byte says that its picture is not shown."""
    content = bytearray(bytes(packet))
    content[0] &= ~0x10
    hidden = av.Packet(bytes(content))
    hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
    hidden.is_keyframe = packet.is_keyframe
    return hidden


def shifted(packet, seconds):
    """A packet, later by some seconds."""
    ticks = round(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
    return packet


def with_matrix(source, target, matrix):
    """Copy an mp4 file and give it another display matrix: `a, b, c, d` map x to ax + cy and y to bx + dy."""
    content = bytearray(Path(source).read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (number << 16 for number in matrix)
    content[start:start + 20] = np.array([a, b, 0, c, d], ">i4").tobytes()
    Path(target).write_bytes(content)
    return Path(target)
