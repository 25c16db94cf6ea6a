"""Files as other programs make them, for tests of sources."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = Fraction(25)


def pictures(n_frames: int, name: str = "yuv420p", width: int = 64, height: int = 48) -> list[av.VideoFrame]:
    """A wave that moves, in a pixel format of PyAV."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 80 * np.sin((x + 2 * t) / 7) * np.cos((y + t) / 5) for t in range(n_frames)]
    packed = [np.stack([w, 255 - w, np.roll(w, 3, 1)], -1).astype(np.uint8) for w in waves]
    return [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format=name) for p in packed]


def mux(
    path: Path,
    *streams: list[av.VideoFrame],
    codec="libx264",
    dispositions=(),
    options=None,
    times=None,
) -> Path:
    """A file with a video stream for each list of pictures; times: of the frames, in units of 1 / RATE."""
    with av.open(f"file:{path}", "w") as file:
        opened = []
        for shown in streams:
            stream = file.add_stream(codec, rate=RATE, options=options or {})
            stream.width, stream.height, stream.pix_fmt = shown[0].width, shown[0].height, shown[0].format.name
            opened.append(stream)
        for stream, disposition in zip(opened, dispositions, strict=False):
            stream.disposition = disposition
        for stream, shown in zip(opened, streams, strict=True):
            for time, picture in zip(times or range(len(shown)), shown, strict=True):
                picture.pts, picture.time_base = time, 1 / RATE
                file.mux(stream.encode(picture))
            file.mux(stream.encode(None))
    return path


def remux(path: Path, source: Path, first: int, options=None) -> Path:
    """The packets of a file from number `first` on, in decoding order."""
    with av.open(source) as given, av.open(path, "w", options=options or {}) as file:
        stream = file.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        for packet in packets[first:]:
            packet.stream = stream
            file.mux(packet)
    return path


def with_cover(path: Path, shown: list[av.VideoFrame]) -> Path:
    """An mp4 whose stream 0 is an attached picture; the film follows, or sound when nothing is shown."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 100, 100, "yuvj420p", 1 / RATE
    (packet,) = [*context.encode(pictures(1, "yuvj420p", 100, 100)[0]), *context.encode(None)]
    with av.open(path, "w") as file:
        if shown:
            stream = file.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = shown[0].width, shown[0].height, "yuv420p"
        else:
            stream = file.add_stream("aac", rate=8000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 100, 100, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for time, picture in enumerate(shown):
            picture.pts, picture.time_base = time, 1 / RATE
            file.mux(stream.encode(picture))
        if not shown:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
        packet.stream = cover
        file.mux(packet)
    data = path.read_bytes()
    moov, trak, udta, end = data.index(b"moov") + 4, data.index(b"trak") - 4, data.rindex(b"udta") - 4, len(data)
    assert moov < trak < udta and int.from_bytes(data[udta : udta + 4], "big") == end - udta
    path.write_bytes(data[:trak] + data[udta:] + data[trak:udta])
    return path
