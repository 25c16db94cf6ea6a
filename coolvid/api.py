"""Two stories, file to file: encode and decode. And a look inside: read_info."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from .bitstream.headers import StreamHeader
from .bitstream.packet import PacketInfo
from .bitstream.stream import StreamReader, StreamWriter
from .codec.gop import CodingStep, plan
from .encoding.resume import kept_packets, noting, run_settings
from .encoding.targets import Target, search
from .errors import ConfigError, InputError
from .events import DecodeStarted, EncodeDone, EncodeStarted, FrameRestored, Listener, PlannedFrame, TargetDone, ignore
from .files import growing
from .media import Crop, Source, open_sink, open_source
from .picture.quality import mse, psnr
from .picture.types import ColorInfo, Frame, FrameType, VideoFormat
from .settings.config import EncodeConfig

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

    def look(self, display_index: int) -> Frame:
        """The frame, which stays. Raises InputError when the source ends before it."""
        while self._next <= display_index:
            frame = next(self._frames, None)
            if frame is None:
                raise InputError(f"the source ends after {self._next} frames; frame {display_index} was announced")
            self._waiting[self._next] = frame
            self._next += 1
        return self._waiting[display_index]

    def take(self, display_index: int) -> Frame:
        """look(), for the last time."""
        self.look(display_index)
        return self._waiting.pop(display_index)


def encode(
    source: str | Path,
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    pix_fmt: str | None = None,
    start: int = 0,
    crop: Crop | None = None,
    scale: tuple[int, int] | None = None,
    resume: bool = False,
    listen: Listener = ignore,
) -> EncodeDone:
    """Encode a file that PyAV opens, numbered images (frames/%04d.png), a raw .yuv or y4m from standard input (-).

    size (width, height), fps and pix_fmt describe a raw source whose name does not. start is the number of the first
    frame to code; crop (width, height, x, y) cuts a rectangle, which scale (width, height) resizes.

    The stream grows in ``<out>.part`` and takes its name when complete; resume continues such a part. Its settings lie
    beside it in ``<out>.part.toml``, and those of the call must be the same, threads excepted.
    The digest of the result is that of all decoded pictures, as digest() makes it. Raises CoolvidError.
    """
    config = config or EncodeConfig()
    with open_source(source, size, fps, pix_fmt, start=start, crop=crop, scale=scale) as video:
        frames, n_frames = _frames(video, config.n_frames)
        origin = {"name": Path(source).name, "start": start, "crop": crop, "scale": scale, "pix_fmt": pix_fmt}
        track = _Track(n_frames, video.format, video.fps, video.color, str(source), origin)
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


def encode_to_target(
    source: str | Path,
    out: str | Path,
    target: Target,
    config: EncodeConfig | None = None,
    *,
    max_encodes: int = 6,
    resume: bool = False,
    listen: Listener = ignore,
    **source_options: Any,
) -> TargetDone:
    """Encode at the lambda that meets the target: an encode() like any other, whose lambda is in the result.

    config.lmbda counts for nothing. max_encodes: whole encodes at most; if none of them meets the target, the
    closest one is kept and is_met is False. source_options: as those of encode(). The search remembers its trials in
    ``<out>.search`` until it ends; resume goes on from there after an interruption.
    Raises ConfigError when the target is out of reach for this source, and what encode() raises.
    """
    if str(source) == "-":
        raise InputError("a target takes several encodes, and standard input can be read once; give a file, or --lmbda")
    with open_source(source, **source_options) as video:
        start = target.usual_lmbda(float(video.format.height * video.format.width * video.fps))
    return search(
        encode,
        source,
        Path(out),
        target,
        start,
        config or EncodeConfig(),
        max_encodes=max_encodes,
        resume=resume,
        listen=listen,
        source_options=source_options,
    )


@dataclass(frozen=True)
class _Track:
    """What a source says of its frames. origin: how they were read, for a resume to be the same."""

    n_frames: int
    format: VideoFormat
    fps: Fraction
    color: ColorInfo
    source: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def _encode(
    frames: Iterator[Frame], track: _Track, out: str | Path, config: EncodeConfig, resume: bool, listen: Listener
) -> EncodeDone:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads must not spin beside busy neighbours
    from .encoding.manager import FrameEncoderManager
    from .settings.presets import fit_intra

    start = time.perf_counter()
    steps = plan(track.n_frames, config.structure)
    settings, buffer = run_settings(config, track.origin), FrameBuffer(frames)
    config = fit_intra(config, buffer.look(steps[0].display_index))
    header = _header(track, steps, config)
    coded = kept_packets(out, header, settings, steps) if resume else []
    manager = FrameEncoderManager(config, header, listen)
    listen(_started(track, steps, config, str(out), len(coded)))
    tally = _Tally()
    with noting(out, settings), growing(out) as file, StreamWriter(file, header) as writer:
        for packet in coded:  # all at once, so that another interruption loses none of them
            writer.append(packet)
        for i, step in enumerate(steps):
            frame = buffer.take(step.display_index)
            if i < len(coded):
                manager.restore(step, frame, coded[i])
                listen(_restored(step, coded[i].info, psnr(manager.decoded[step.display_index], frame)))
            else:
                manager.encode(step, frame, keep=writer.append)
            tally.add(step.display_index, frame, manager.decoded[step.display_index])
            manager.forget(steps[i + 1 :])
        n_bytes = writer.close()
    bits_per_frame = 8 * n_bytes / track.n_frames
    done = EncodeDone(
        n_frames=track.n_frames,
        n_bytes=n_bytes,
        psnr_db=tally.psnr_db,
        duration_s=time.perf_counter() - start,
        digest=tally.digest,
        rate_bpp=bits_per_frame / (track.format.height * track.format.width),
        bitrate_bps=float(bits_per_frame * track.fps),
    )
    listen(done)
    return done


def _started(
    track: _Track, steps: tuple[CodingStep, ...], config: EncodeConfig, out: str, n_restored: int
) -> EncodeStarted:
    from .kernels import description
    from .settings.presets import frame_configs

    def planned(before: CodingStep, step: CodingStep) -> PlannedFrame:
        size = track.format.height, track.format.width
        tried = frame_configs(config, step.frame_type, step.depth, size)
        is_fresh = not config.inherit or FrameType.I in (before.frame_type, step.frame_type)
        iterations = sum(each.training.total_iterations(is_fresh) for each in tried)
        return PlannedFrame(step.display_index, step.frame_type, iterations)

    plan = tuple(planned(*pair) for pair in pairwise((steps[0], *steps)))
    return EncodeStarted(
        track.n_frames, config, description(), plan, n_restored, track.format, track.fps, track.source, out
    )


def _restored(step: CodingStep, info: PacketInfo, psnr_db: float) -> FrameRestored:
    return FrameRestored(
        step.coding_index,
        step.display_index,
        step.frame_type,
        info.references,
        info.n_bytes,
        info.bits_by_part,
        psnr_db,
    )


def decode(
    path: str | Path,
    out: str | Path,
    *,
    frames: range | None = None,
    threads: int = 0,
    listen: Listener = ignore,
) -> int:
    """Decode a .cvd stream into .mp4, .mkv, .y4m, .yuv, .rgb or .png, or to standard output (-) as y4m.

    frames: those to write, as range(10, 20) for 10 to 19; only these and what they depend on are decoded. threads: 0
    for all cores. Returns the number of frames written. Raises CoolvidError.
    """
    with StreamReader(path) as reader:
        header, shown = reader.header, _shown(reader, frames)
        with open_sink(out, header.format, header.fps, header.color, len(shown), shown.start) as sink:
            for frame in _decoded(reader, shown, threads, listen):
                sink.write(frame)
            return sink.n_written


def digest(path: str | Path, *, frames: range | None = None, threads: int = 0, listen: Listener = ignore) -> str:
    """SHA-256 over decoded pictures of a stream: per frame, in display order, the SHA-256 of its planes.

    frames: as in decode().
    """
    with StreamReader(path) as reader:
        pictures = _decoded(reader, _shown(reader, frames), threads, listen)
        return _digest(picture_digest(frame) for frame in pictures)


def _decoded(reader: StreamReader, shown: range, threads: int, listen: Listener) -> Iterator[Frame]:
    """Pictures of the shown frames, after the event that says how many there are to decode."""
    from .decoding.schedule import decode_stream, steps_for

    first, last = shown.start, shown.stop - 1
    listen(DecodeStarted(len(shown), len(steps_for(reader, first, last))))
    return decode_stream(reader, first, last, threads, listen)


def _shown(reader: StreamReader, frames: range | None) -> range:
    """The display indices to write. Raises ConfigError for none, and for a range with steps."""
    whole = range(max((info.display_index for info in reader.packets), default=-1) + 1)
    if frames is None:
        return whole
    if frames.step != 1 or frames.start < 0:
        raise ConfigError(f"frames {frames} cannot be decoded; give a range of single steps that starts at 0 or later")
    shown = range(frames.start, min(frames.stop, whole.stop))
    if not shown:
        raise ConfigError(f"no frame lies in {frames.start}:{frames.stop}; the stream has frames 0:{whole.stop}")
    return shown


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
    from .settings.config import frame_architecture
    from .settings.presets import frame_configs

    types = sorted({step.frame_type for step in steps}, key=lambda t: t.value)
    size = track.format.height, track.format.width
    tried = [each for t in types for each in frame_configs(config, t, t.value, size)]
    configurations = tuple(dict.fromkeys(frame_architecture(each) for each in tried))
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
