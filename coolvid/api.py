"""Files in, files out: encode, decode, and read_info to inspect a stream."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from .bitstream.headers import StreamHeader
from .bitstream.packet import PacketInfo
from .bitstream.stream import StreamReader
from .codec.gop import CodingStep, plan
from .encoding.resume import Unfinished, frame_digest, note_of, run_settings, unfinished
from .encoding.targets import MEMORY, Target, search
from .errors import ConfigError, InputError
from .events import (
    DecodeStarted,
    EncodeDone,
    EncodeStarted,
    FrameRestored,
    Listener,
    PartCut,
    PlannedFrame,
    TargetDone,
    ignore,
)
from .files import LOCK, check_writable, part_of, refuse_overwriting
from .media import Source, SourceSpec, open_sink, open_source, sink_names
from .picture.quality import mse, psnr
from .picture.types import ColorInfo, Frame, VideoFormat
from .settings.config import EncodeConfig

DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class StreamInfo:
    """Contents of a stream: header, and one entry per packet in coding order. n_appended: bytes of the file after the
    stream, which decoding ignores."""

    header: StreamHeader
    packets: tuple[PacketInfo, ...]
    n_bytes: int
    n_appended: int = 0


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
    """Encode a file that PyAV opens, numbered images (frames/%04d.png), a raw .yuv, or y4m from standard input (-).

    source_spec describes a raw source whose name does not, and selects frames and a rectangle; see SourceSpec.

    The stream grows in ``<out>.part`` and gets its final name when complete. Any error or interruption after the first
    finished frame leaves this part, and resume continues it. The file ``<out>.part.toml`` holds its settings, and a
    digest of every source frame that was coded: the call must have the same frames and settings, except threads.
    ``<out>.lock`` keeps other encodes from the same output.
    The result's digest covers all decoded pictures, as in digest(). Raises CoolvidError.
    """
    config = config or EncodeConfig()
    _check_output(out, source)
    with open_source(source, source_spec) as video:
        frames, n_frames = _frames(video, config.n_frames)
        origin = {"name": Path(source).name, **asdict(source_spec)}
        del origin["size"], origin["fps"]  # the header has them
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
    check_writable(out)
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
    if str(source) == "-":
        raise InputError("a target needs several encodes, and standard input can be read once; give a file, or --lmbda")
    config = config or EncodeConfig()
    _check_output(out, source)
    with open_source(source, source_spec) as video:
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


def _check_output(out: str | Path, source: str | Path) -> None:
    """Raise OutputError if the stream cannot be written, ConfigError if it would overwrite the source."""
    check_writable(out)
    refuse_overwriting(source, *output_names(out))


def output_names(out: str | Path) -> tuple[Path, ...]:
    """The files of an encode or a search that writes `out`; each may have a part, as files.part_of() names it."""
    return Path(out), note_of(out), Path(f"{out}{LOCK}"), Path(f"{out}{MEMORY}")


@dataclass(frozen=True)
class _Track:
    """A source's description of its frames. origin: how they were read, so that a resume reads the same."""

    n_frames: int
    format: VideoFormat
    fps: Fraction
    color: ColorInfo
    source: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def _encode(
    frames: Iterator[Frame], track: _Track, out: str | Path, config: EncodeConfig, resume: bool, listen: Listener
) -> EncodeDone:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle torch threads must not spin on shared cores
    with unfinished(out, run_settings(config, track.origin), resume) as state:
        done = _encode_rest(state, frames, track, out, config, listen)
    listen(done)
    return done


def _encode_rest(
    state: Unfinished, frames: Iterator[Frame], track: _Track, out: str | Path, config: EncodeConfig, listen: Listener
) -> EncodeDone:
    """Encode what an earlier run has not."""
    from .encoding.manager import FrameEncoderManager
    from .settings.presets import fit_intra

    start = time.perf_counter()
    steps, buffer = plan(track.n_frames, config.structure), FrameBuffer(state.same(frames))
    config = fit_intra(config, buffer.look(steps[0].display_index))
    header = _header(track, steps, config)
    coded = state.kept(header, steps)
    manager = FrameEncoderManager(config, header, listen)
    listen(_started(track, steps, config, str(out), len(coded)))
    if state.problem:
        listen(PartCut(str(part_of(out)), len(coded), state.problem))
    tally = _Tally()
    with state.writing(header) as part:
        for i, step in enumerate(steps):
            frame = buffer.take(step.display_index)
            if i < len(coded):
                manager.restore(step, frame, coded[i])
                listen(_restored(step, coded[i].info, psnr(manager.decoded[step.display_index], frame)))
            else:
                manager.encode(step, frame, keep=partial(part.keep, step, frame))
            tally.add(step.display_index, frame, manager.decoded[step.display_index])
            manager.forget(steps[i + 1 :])
        n_bytes = part.close()
    bits_per_frame = 8 * n_bytes / track.n_frames
    return EncodeDone(
        n_frames=track.n_frames,
        n_bytes=n_bytes,
        psnr_db=tally.psnr_db,
        duration_s=time.perf_counter() - start,
        digest=tally.digest,
        rate_bpp=bits_per_frame / (track.format.height * track.format.width),
        bitrate_bps=float(bits_per_frame * track.fps),
    )


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

    frames: those to write, for example range(10, 20) for 10 to 19; only these and their references are decoded.
    threads: 0 for all cores. Returns the number of frames written. Raises CoolvidError.
    """
    refuse_overwriting(path, *sink_names(out))
    with StreamReader(path) as reader:
        header, shown = reader.header, _shown(reader, frames)
        with open_sink(out, header.format, header.fps, header.color, len(shown), shown.start) as sink:
            for frame in _decoded(reader, shown, threads, listen):
                sink.write(frame)
            return sink.n_written


def digest(path: str | Path, *, frames: range | None = None, threads: int = 0, listen: Listener = ignore) -> str:
    """SHA-256 over a stream's decoded pictures: hash of each picture's planes, then of these hashes in display order.

    frames: as in decode().
    """
    with StreamReader(path) as reader:
        pictures = _decoded(reader, _shown(reader, frames), threads, listen)
        return _digest(picture_digest(frame) for frame in pictures)


def _decoded(reader: StreamReader, shown: range, threads: int, listen: Listener) -> Iterator[Frame]:
    """Pictures of the shown frames, after an event with the number of frames to decode."""
    from .decoding.schedule import decode_stream, steps_for

    first, last = shown.start, shown.stop - 1
    listen(DecodeStarted(len(shown), len(steps_for(reader, first, last))))
    return decode_stream(reader, first, last, threads, listen)


def _shown(reader: StreamReader, frames: range | None) -> range:
    """The display indices to write. Raises ConfigError for an empty range and for a range with a step."""
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
        return StreamInfo(reader.header, tuple(reader.packets), Path(path).stat().st_size, reader.n_appended)


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
    )
