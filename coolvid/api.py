"""Files in, files out: encode, decode, and read_info to inspect a stream."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from .bitstream.headers import StreamHeader
from .bitstream.packet import PacketInfo
from .bitstream.stream import StreamReader, StreamWriter
from .codec.gop import CodingStep, plan
from .encoding.resume import kept_packets, noting, run_settings
from .encoding.targets import MaxEncodes, Target, search
from .errors import ConfigError, InputError, StreamError
from .events import (
    DecodeStarted,
    EncodeDone,
    EncodeStarted,
    FrameRestored,
    Listener,
    NotStored,
    PlannedFrame,
    TargetDone,
    ignore,
)
from .files import growing
from .media import Source, SourceSpec, open_sink, open_source
from .picture.quality import mse, psnr
from .picture.types import MAX_PIXELS, ColorInfo, DisplayInfo, Frame, VideoFormat
from .settings.config import EncodeConfig, Threads
from .values import check_path, fit, instance

DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class StreamInfo:
    """Contents of a stream: header, and one entry per packet in coding order."""

    header: StreamHeader
    packets: tuple[PacketInfo, ...]
    n_bytes: int

    @property
    def decoding_bytes(self) -> int:
        """About the memory that decoding needs, in bytes, with one thread."""
        from .decoding.memory import decoding_bytes

        return decoding_bytes(self.header)


class FrameBuffer:
    """Frames of a source by display index, read as late and dropped as early as the coding order allows."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = iter(frames)
        self._next = 0
        self._waiting: dict[int, Frame] = {}

    def look(self, display_index: int) -> Frame:
        """The frame, which stays in the buffer. Raises InputError if the source ends before it."""
        while self._next <= display_index:
            frame = next(self._frames, None)
            if frame is None:
                raise InputError(f"the source ends after {self._next} frames; frame {display_index} was announced")
            self._waiting[self._next] = frame
            self._next += 1
        return self._waiting[display_index]

    def take(self, display_index: int) -> Frame:
        """The frame, which leaves the buffer. Raises InputError as look() does."""
        self.look(display_index)
        return self._waiting.pop(display_index)


def encode(
    source: str | Path,
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    source_spec: SourceSpec = SourceSpec(),
    resume: bool = False,
    listen: Listener = ignore,
) -> EncodeDone:
    """Encode a file that PyAV opens, several images, a raw .yuv, or y4m from standard input (-); see open_source.

    source_spec describes a raw source whose name does not, and selects frames and a rectangle; see SourceSpec. All
    frames are read once before the first is encoded, so that a source that cannot be read to its end is refused.

    The stream grows in ``<out>.part`` and gets its final name when complete; resume continues such a part. The file
    ``<out>.part.toml`` holds its settings, and the call must have the same, except threads.
    The result's digest covers all decoded pictures, as in digest(). Raises CoolvidError.
    """
    config = checked_config(config, source_spec, source=source, out=out)
    with open_source(source, source_spec, config.n_frames) as video:
        frames, n_frames = _frames(video, config.n_frames)
        origin = {"name": Path(source).name, **asdict(source_spec)}
        del origin["size"], origin["fps"]  # the header has them
        track = _Track(n_frames, video.format, video.fps, video.color, video.display, str(source), video.choice, origin)
        return _encode(frames, track, out, config, resume, listen)


def encode_frames(
    frames: Sequence[Frame],
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    fps: Fraction = DEFAULT_FPS,
    color: ColorInfo | None = None,
    display: DisplayInfo | None = None,
    resume: bool = False,
    listen: Listener = ignore,
) -> EncodeDone:
    """encode() for frames in memory, all of one format. Raises CoolvidError."""
    config = checked_config(config, out=out)
    fps = SourceSpec(fps=fps).fps or DEFAULT_FPS
    if color is not None:
        instance("color", color, ColorInfo)
    chosen = list(frames)[: config.n_frames or None]
    if not chosen:
        raise InputError("no frames to encode")
    for i, frame in enumerate(chosen):
        instance(f"frame {i}", frame, Frame)
        if frame.format != chosen[0].format:
            raise InputError(f"frame {i} is {frame.format}, frame 0 is {chosen[0].format}; give frames of one format")
    track = _Track(len(chosen), chosen[0].format, fps, color or ColorInfo(), display or DisplayInfo())
    return _encode(iter(chosen), track, out, config, resume, listen)


def encode_to_target(
    source: str | Path,
    out: str | Path,
    target: Target,
    config: EncodeConfig | None = None,
    *,
    source_spec: SourceSpec = SourceSpec(),
    max_encodes: int = 6,
    resume: bool = False,
    listen: Listener = ignore,
) -> TargetDone:
    """Encode at the lambda that meets the target. The file is like that of encode(); the result holds its lambda.

    config.lmbda is ignored. max_encodes: maximum number of whole encodes. If none meets the target, the closest is
    kept and is_met is False. The search records its trials in ``<out>.search`` until
    it ends; after an interruption, resume continues from there.
    Raises ConfigError if the target is out of reach for this source, and any error of encode().
    """
    config = checked_config(config, source_spec, source=source, out=out)
    instance("target", target, Target)
    max_encodes = fit(max_encodes, MaxEncodes, "max_encodes")
    if str(source) == "-":
        raise InputError("a target needs several encodes, and standard input can be read once; give a file, or --lmbda")
    with open_source(source, source_spec, 1) as video:
        start = target.usual_lmbda(float(video.format.height * video.format.width * video.fps))
    return search(
        partial(encode, source_spec=source_spec),
        source,
        Path(out),
        target,
        start,
        config,
        max_encodes=max_encodes,
        resume=resume,
        listen=listen,
        origin=asdict(source_spec),
    )


def checked_config(config: EncodeConfig | None, source_spec: SourceSpec = SourceSpec(), **paths: Any) -> EncodeConfig:
    """The configuration, by default EncodeConfig(). Raises ConfigError for an argument of another type."""
    instance("source_spec", source_spec, SourceSpec)
    for name, path in paths.items():
        check_path(name, path)
    config = EncodeConfig() if config is None else config
    instance("config", config, EncodeConfig)
    return config


def checked_threads(threads: int, **paths: Any) -> int:
    """The number of threads of a decode. Raises ConfigError for an argument of another type."""
    for name, path in paths.items():
        check_path(name, path)
    number: int = fit(threads, Threads, "threads")
    return number


@dataclass(frozen=True)
class _Track:
    """A source's description of its frames. choice: what of it was taken, in words. origin: how they were read, so that
    a resume reads the same."""

    n_frames: int
    format: VideoFormat
    fps: Fraction
    color: ColorInfo
    display: DisplayInfo
    source: str = ""
    choice: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def _encode(
    frames: Iterator[Frame], track: _Track, out: str | Path, config: EncodeConfig, resume: bool, listen: Listener
) -> EncodeDone:
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
        for packet in coded:  # all at once, so that another interruption does not lose any
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

    def planned(step: CodingStep) -> PlannedFrame:
        size = track.format.height, track.format.width
        tried = frame_configs(config, step.frame_type, step.depth, size)
        is_fresh = not config.inherit or step.predictor is None
        iterations = sum(each.training.total_iterations(is_fresh) for each in tried)
        return PlannedFrame(step.display_index, step.frame_type, iterations)

    plan = tuple(planned(step) for step in steps)
    return EncodeStarted(
        track.n_frames,
        config,
        description(),
        plan,
        n_restored,
        track.format,
        track.fps,
        track.source,
        out,
        track.choice,
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
    max_pixels: int = MAX_PIXELS,
    listen: Listener = ignore,
) -> int:
    """Decode a .cvd stream into .mp4, .mkv, .y4m, .yuv, .rgb or .png, or to standard output (-) as y4m.

    An event NotStored tells what the file cannot hold of the stream's display description.
    frames: those to write, for example range(10, 20) for 10 to 19; only these and their references are decoded.
    threads: 0 for all cores. max_pixels: the largest picture to decode; a stream with larger ones is refused.
    Returns the number of frames written. Raises CoolvidError.
    """
    threads = checked_threads(threads, path=path, out=out)
    with StreamReader(path, max_pixels=max_pixels) as reader:
        header, shown = reader.header, _shown(reader, frames)
        described = header.color, _count(reader, shown), shown.start, header.display
        with open_sink(out, header.format, header.fps, *described) as sink:
            if sink.not_stored:
                listen(NotStored(str(out), sink.not_stored))
            for frame in _decoded(reader, shown, threads, listen):
                sink.write(frame)
            return sink.n_written


def digest(
    path: str | Path,
    *,
    frames: range | None = None,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    listen: Listener = ignore,
) -> str:
    """SHA-256 over a stream's decoded pictures: hash of each picture's planes, then of these hashes in display order.

    frames, max_pixels: as in decode().
    """
    threads = checked_threads(threads, path=path)
    with StreamReader(path, max_pixels=max_pixels) as reader:
        pictures = _decoded(reader, _shown(reader, frames), threads, listen)
        return _digest(picture_digest(frame) for frame in pictures)


def _decoded(reader: StreamReader, shown: range, threads: int, listen: Listener) -> Iterator[Frame]:
    """Pictures of the shown frames, after an event with the number of frames to decode."""
    from .decoding.schedule import decode_stream, steps_for

    first, last = shown.start, shown.stop - 1
    listen(DecodeStarted(_count(reader, shown), len(steps_for(reader, first, last))))
    return decode_stream(reader, first, last, threads, listen)


def _count(reader: StreamReader, shown: range) -> int:
    """The number of these frames that the stream has: all of them, unless it is partial."""
    return sum(info.display_index in shown for info in reader.packets)


def _shown(reader: StreamReader, frames: range | None) -> range:
    """The display indices to write. Raises ConfigError for an empty range and for a range with a step."""
    whole = range(max((info.display_index for info in reader.packets), default=-1) + 1)
    if not whole:
        raise StreamError("the stream has no complete frame yet")
    if frames is None:
        return whole
    instance("frames", frames, range)
    if frames.step != 1 or frames.start < 0:
        raise ConfigError(f"frames {frames} cannot be decoded; give a range of single steps that starts at 0 or later")
    shown = range(frames.start, min(frames.stop, whole.stop))
    if not shown:
        raise ConfigError(f"no frame lies in {frames.start}:{frames.stop}; the stream has frames 0:{whole.stop}")
    return shown


def read_info(path: str | Path) -> StreamInfo:
    """Header and packet list of a stream, without decoding a picture. Raises StreamError."""
    check_path("path", path)
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
    """The frames to code and their number. A source of unknown length is read completely first."""
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
        display=track.display,
    )
