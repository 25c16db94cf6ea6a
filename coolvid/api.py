"""Two stories, file to file: encode and decode. And a look inside: read_info."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from .bitstream.headers import StreamHeader
from .bitstream.packet import Packet, PacketInfo
from .bitstream.stream import StreamReader, StreamWriter
from .config import EncodeConfig
from .errors import InputError
from .events import EncodeDone, EncodeStarted, Listener, ignore
from .gop import CodingStep, plan
from .media import Source, open_sink, open_source
from .metrics import mse
from .types import ColorInfo, Frame, VideoFormat

DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class StreamInfo:
    """What a stream says of itself: header, and one entry per packet in coding order."""

    header: StreamHeader
    packets: tuple[PacketInfo, ...]
    n_bytes: int


class FrameBuffer:
    """Frames of a source by display index, read as late and dropped as early as the coding order allows."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = iter(frames)
        self._next = 0
        self._waiting: dict[int, Frame] = {}

    def take(self, display_index: int) -> Frame:
        """The frame, once. Raises InputError when the source ends before it."""
        while self._next <= display_index:
            frame = next(self._frames, None)
            if frame is None:
                raise InputError(f"the source ends after {self._next} frames; frame {display_index} was announced")
            self._waiting[self._next] = frame
            self._next += 1
        return self._waiting.pop(display_index)


def encode(
    source: str | Path,
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    pix_fmt: str | None = None,
    resume: bool = False,
    listen: Listener = ignore,
) -> EncodeDone:
    """Encode a file that PyAV opens, or a raw .yuv, into a .cvd stream.

    size (width, height), fps and pix_fmt describe a raw source whose name does not. The stream grows in ``<out>.part``
    and takes its name when complete; resume continues such a part with the same source and configuration.
    The digest of the result is that of all decoded pictures, as digest() makes it. Raises CoolvidError.
    """
    config = config or EncodeConfig()
    with open_source(source, size=size, fps=fps, pix_fmt=pix_fmt) as video:
        frames, n_frames = _frames(video, config.n_frames)
        track = _Track(n_frames, video.format, video.fps, video.color)
        return _encode(frames, track, out, config, resume, listen)


def encode_frames(
    frames: Sequence[Frame],
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    fps: Fraction = DEFAULT_FPS,
    color: ColorInfo | None = None,
    resume: bool = False,
    listen: Listener = ignore,
) -> EncodeDone:
    """encode() for frames in memory, all of one format. Raises CoolvidError."""
    config = config or EncodeConfig()
    chosen = list(frames)[: config.n_frames or None]
    if not chosen:
        raise InputError("no frames to encode")
    for i, frame in enumerate(chosen):
        if frame.format != chosen[0].format:
            raise InputError(f"frame {i} is {frame.format}, frame 0 is {chosen[0].format}; give frames of one format")
    track = _Track(len(chosen), chosen[0].format, fps, color or ColorInfo())
    return _encode(iter(chosen), track, out, config, resume, listen)


@dataclass(frozen=True)
class _Track:
    """What a source says of its frames."""

    n_frames: int
    format: VideoFormat
    fps: Fraction
    color: ColorInfo


def _encode(
    frames: Iterator[Frame], track: _Track, out: str | Path, config: EncodeConfig, resume: bool, listen: Listener
) -> EncodeDone:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads must not spin beside busy neighbours
    from .kernels import description
    from .manager import FrameEncoderManager  # training needs torch; reading this module does not

    start = time.perf_counter()
    steps = plan(track.n_frames, config.structure)
    header = _header(track, steps, config)
    coded = _previous(out, header, len(steps)) if resume else []
    manager = FrameEncoderManager(config, header, listen)
    listen(EncodeStarted(track.n_frames, config, description()))
    buffer, tally = FrameBuffer(frames), _Tally()
    with StreamWriter(out, header) as writer:
        for packet in coded:  # all at once, so that another interruption loses none of them
            writer.append(packet)
        for i, step in enumerate(steps):
            frame = buffer.take(step.display_index)
            if i < len(coded):
                manager.restore(step, frame, coded[i].data)
            else:
                writer.append(manager.encode(step, frame))
            tally.add(step.display_index, frame, manager.decoded[step.display_index])
            manager.forget(steps[i + 1 :])
        n_bytes = writer.close()
    done = EncodeDone(track.n_frames, n_bytes, tally.psnr_db, time.perf_counter() - start, tally.digest)
    listen(done)
    return done


def decode(path: str | Path, out: str | Path, *, threads: int = 0, listen: Listener = ignore) -> None:
    """Decode a .cvd stream into .mp4, .mkv, .y4m, .yuv or .png. threads: 0 for all cores. Raises CoolvidError."""
    from .decoder import decode_stream

    with StreamReader(path) as reader:
        header = reader.header
        with open_sink(out, header.format, header.fps, header.color, header.n_frames) as sink:
            for frame in decode_stream(reader, threads=threads, listen=listen):
                sink.write(frame)


def digest(path: str | Path, *, threads: int = 0, listen: Listener = ignore) -> str:
    """SHA-256 over all decoded pictures of a stream: per frame, in display order, the SHA-256 of its planes."""
    from .decoder import decode_stream

    with StreamReader(path) as reader:
        return _digest(picture_digest(frame) for frame in decode_stream(reader, threads=threads, listen=listen))


def read_info(path: str | Path) -> StreamInfo:
    """Header and packet list of a stream, without decoding a picture. Raises StreamError."""
    with StreamReader(path) as reader:
        return StreamInfo(reader.header, tuple(reader.packets), Path(path).stat().st_size)


def picture_digest(frame: Frame) -> bytes:
    """SHA-256 of a picture's planes, 16-bit little endian."""
    state = hashlib.sha256()
    for plane in frame.planes:
        state.update(plane.astype("<u2").tobytes())
    return state.digest()


def _digest(pictures: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(pictures)).hexdigest()


class _Tally:
    """Quality and digest over all frames, which arrive in coding order."""

    def __init__(self) -> None:
        self._mse: list[float] = []
        self._digests: dict[int, bytes] = {}

    def add(self, display_index: int, frame: Frame, decoded: Frame) -> None:
        self._mse.append(mse(frame, decoded))
        self._digests[display_index] = picture_digest(decoded)

    @property
    def psnr_db(self) -> float:
        mean = sum(self._mse) / len(self._mse)
        return -10 * math.log10(mean) if mean else math.inf

    @property
    def digest(self) -> str:
        return _digest(self._digests[i] for i in sorted(self._digests))


def _frames(video: Source, limit: int) -> tuple[Iterator[Frame], int]:
    """The frames to code and their number; a source of unknown length is read to its end first."""
    if video.n_frames is None:
        read = [frame for i, frame in zip(range(limit or 2**31), video, strict=False)]
        return iter(read), len(read)
    return iter(video), min(limit, video.n_frames) if limit else video.n_frames


def _header(track: _Track, steps: tuple[CodingStep, ...], config: EncodeConfig) -> StreamHeader:
    from .modules import frame_architecture
    from .presets import frame_config

    types = sorted({step.frame_type for step in steps}, key=lambda t: t.value)
    size = track.format.height, track.format.width
    configurations = tuple(frame_architecture(frame_config(config, t, t.value, size)) for t in types)
    structure = config.structure
    return StreamHeader(
        track.format,
        track.fps,
        track.color,
        len(steps),
        structure.gop,
        structure.intra_period,
        structure.low_delay,
        configurations,
    )


def _previous(out: str | Path, header: StreamHeader, n_steps: int) -> list[Packet]:
    """Packets of an interrupted encode of the same thing."""
    part = Path(f"{out}.part")
    if not part.exists():
        raise InputError(f"nothing to resume: there is no {part}")
    with StreamReader(part) as reader:
        if reader.header != header:
            raise InputError(f"{part} was made from another source or configuration; delete it to start anew")
        return [Packet(reader.read(i), info) for i, info in enumerate(reader.packets[:n_steps])]
