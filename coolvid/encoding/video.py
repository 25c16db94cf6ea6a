"""A whole video: its frames in coding order into a stream, and their totals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import PacketInfo
from coolvid.codec.gop import CodingStep, plan
from coolvid.errors import InputError, count_frames
from coolvid.events import EncodeDone, EncodeStarted, FrameRestored, Listener, PartCut, PlannedFrame
from coolvid.files import part_of
from coolvid.picture.digest import digest_of, picture_digest
from coolvid.picture.quality import mse, psnr
from coolvid.picture.types import ColorInfo, DisplayInfo, Frame, VideoFormat
from coolvid.settings.config import EncodeConfig

from .resume import Unfinished, run_settings, unfinished


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
                raise InputError(
                    f"the source ends after {count_frames(self._next)}; frame {display_index} was announced"
                )
            self._waiting[self._next] = frame
            self._next += 1
        return self._waiting[display_index]

    def take(self, display_index: int) -> Frame:
        """The frame, which leaves the buffer. Raises InputError as look() does."""
        self.look(display_index)
        return self._waiting.pop(display_index)


@dataclass(frozen=True)
class Track:
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


def encode_video(
    frames: Iterator[Frame], track: Track, out: str | Path, config: EncodeConfig, resume: bool, listen: Listener
) -> EncodeDone:
    """Encode the frames of a track, in display order, to `out`; resume goes on with its part. Raises CoolvidError."""
    with unfinished(out, run_settings(config, track.origin), resume) as state:
        done = _encode_rest(state, frames, track, out, config, listen)
    listen(done)
    return done


def _encode_rest(
    state: Unfinished, frames: Iterator[Frame], track: Track, out: str | Path, config: EncodeConfig, listen: Listener
) -> EncodeDone:
    """Encode what an earlier run has not."""
    from coolvid.settings.presets import fit_intra

    from .manager import FrameEncoderManager

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
    track: Track, steps: tuple[CodingStep, ...], config: EncodeConfig, out: str, n_restored: int
) -> EncodeStarted:
    from coolvid.kernels import description
    from coolvid.settings.presets import frame_configs

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


def _header(track: Track, steps: tuple[CodingStep, ...], config: EncodeConfig) -> StreamHeader:
    from coolvid.settings.config import frame_architecture
    from coolvid.settings.presets import frame_configs

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
        return digest_of(self._digests[i] for i in sorted(self._digests))
