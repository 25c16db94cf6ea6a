"""Files in, files out: encode, decode, and read_info to inspect a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from .bitstream.headers import StreamHeader
from .bitstream.packet import PacketInfo
from .bitstream.stream import StreamReader
from .encoding.resume import frame_digest, note_of
from .encoding.targets import MEMORY, MaxEncodes, Target, search
from .encoding.video import Track, encode_video
from .errors import ConfigError, InputError, StreamError
from .events import (
    DecodeStarted,
    EncodeDone,
    Listener,
    NotStored,
    TargetDone,
    ignore,
)
from .files import LOCK, check_writable, refuse_overwriting
from .media import Source, SourceSpec, open_sink, open_source, sink_names
from .picture.digest import digest_of, picture_digest
from .picture.types import MAX_PIXELS, ColorInfo, DisplayInfo, Frame
from .settings.config import EncodeConfig, Threads
from .values import check_path, fit, instance

DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class StreamInfo:
    """Contents of a stream: header, and one entry per packet in coding order. n_appended: bytes of the file after the
    stream, which decoding ignores."""

    header: StreamHeader
    packets: tuple[PacketInfo, ...]
    n_bytes: int
    n_appended: int = 0

    @property
    def decoding_bytes(self) -> int:
        """About the memory that decoding needs, in bytes, with one thread."""
        from .decoding.memory import decoding_bytes

        return decoding_bytes(self.header)


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

    The stream grows in ``<out>.part`` and gets its final name when complete. Any error or interruption after the first
    finished frame leaves this part, and resume continues it. The file ``<out>.part.toml`` holds its settings, and a
    digest of every source frame that was coded: the call must have the same frames and settings, except threads.
    ``<out>.lock`` keeps other encodes from the same output.
    The result's digest covers all decoded pictures, as in digest(). Raises CoolvidError.
    """
    config = checked_config(config, source_spec, source=source, out=out)
    _check_output(out, source)
    with open_source(source, source_spec, config.n_frames) as video:
        frames, n_frames = _frames(video, config.n_frames)
        origin = {"name": Path(source).name, **asdict(source_spec)}
        del origin["size"], origin["fps"]  # the header has them
        track = Track(n_frames, video.format, video.fps, video.color, video.display, str(source), video.choice, origin)
        return encode_video(frames, track, out, config, resume, listen)


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
    check_writable(out)
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
        if (largest := max(int(plane.max()) for plane in frame.planes)) > frame.format.peak:
            raise ConfigError(
                f"frame {i} has a sample of {largest}; {frame.format.bit_depth} bits hold 0..{frame.format.peak}"
            )
    track = Track(len(chosen), chosen[0].format, fps, color or ColorInfo(), display or DisplayInfo())
    return encode_video(iter(chosen), track, out, config, resume, listen)


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
    _check_output(out, source)
    with open_source(source, source_spec, config.n_frames) as video:
        start = target.usual_lmbda(float(video.format.height * video.format.width * video.fps))
        digests = [frame_digest(frame) for frame in islice(video, config.n_frames or None)]
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
        digests=digests,
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


def _check_output(out: str | Path, source: str | Path) -> None:
    """Raise OutputError if the stream cannot be written, ConfigError if it would overwrite the source."""
    check_writable(out)
    refuse_overwriting(source, *output_names(out))


def output_names(out: str | Path) -> tuple[Path, ...]:
    """The files of an encode or a search that writes `out`; each may have a part, as files.part_of() names it."""
    return Path(out), note_of(out), Path(f"{out}{LOCK}"), Path(f"{out}{MEMORY}")


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

    An event NotStored says what the file cannot hold of the stream's display description.
    frames: those to write, for example range(10, 20) for 10 to 19; only these and their references are decoded.
    threads: 0 for all cores. max_pixels: the largest picture to decode; a stream with larger ones is refused.
    Returns the number of frames written. Raises CoolvidError.
    """
    threads = checked_threads(threads, path=path, out=out)
    refuse_overwriting(path, *sink_names(out))
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
        return digest_of(picture_digest(frame) for frame in pictures)


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
        return StreamInfo(reader.header, tuple(reader.packets), Path(path).stat().st_size, reader.n_appended)


def _frames(video: Source, limit: int) -> tuple[Iterator[Frame], int]:
    """The frames to code and their number. A source of unknown length is read completely first."""
    if video.n_frames is None:
        read = [frame for i, frame in zip(range(limit or 2**31), video, strict=False)]
        return iter(read), len(read)
    return iter(video), min(limit, video.n_frames) if limit else video.n_frames
