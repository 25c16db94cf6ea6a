"""Frames out of everything PyAV opens: mp4, mkv, webm, y4m, images and more."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import av
from av.container import InputContainer

from coolvid.errors import InputError

from .base import check_readable
from .layout import check_rate
from .pictures import AV_ERRORS, PictureSource, open_container, unreadable
from .timing import constant_rate, usual_first

_STILL_RATE = Fraction(1)


class _Packet(NamedTuple):
    """What is kept of a coded frame: its time in ticks, its end in the file in bytes (0: unknown), if it is shown."""

    stamp: int | None
    end: int
    is_shown: bool

    @classmethod
    def of(cls, packet: Any) -> Self:
        stamp = packet.pts if packet.pts is not None else packet.dts
        end = packet.pos + packet.size if packet.pos is not None else 0
        return cls(stamp, end, not packet.is_discard)


class ContainerSource(PictureSource):
    """The first video stream of a file. Its packets are scanned once for the exact frame rate and the frame count.

    fps: take frame after frame at this rate, whatever the time stamps say. A still image is one frame, at 1 a second
    if not told otherwise.
    """

    def __init__(self, path: Path, fps: Fraction | None = None) -> None:
        check_readable(path)
        self.name = path.name
        self.n_frames, measured = self._scan(path, fps)
        self.fps = check_rate(self.name, measured)
        self._container = self._open(path)
        self._begin(self._decode())

    def close(self) -> None:
        self._container.close()

    def _open(self, path: Path) -> InputContainer:
        return open_container(str(path), self.name)

    def _scan(self, path: Path, fps: Fraction | None) -> tuple[int, Fraction]:
        """(frames, frames a second), from the packets alone."""
        with self._open(path) as container:
            stream = container.streams.video[0]
            try:
                packets = [_Packet.of(packet) for packet in container.demux(stream) if packet.size]
            except AV_ERRORS as error:
                raise unreadable(self.name, error) from error
            self._check_whole(path, container, packets)
            shown = [p for p in packets if p.is_shown]
            return len(shown), self._rate(container, shown) if fps is None else fps

    def _check_whole(self, path: Path, container: InputContainer, packets: list[_Packet]) -> None:
        """Raises InputError where the file announces more frames than it holds."""
        stream, n_found = container.streams.video[0], len(packets)
        if stream.frames > n_found:
            raise InputError(f"{self.name}: the file breaks off, {n_found} of {stream.frames} frames are there")
        if container.format.name == "yuv4mpegpipe" and _bytes_after(path, packets):
            raise InputError(f"{self.name}: the file breaks off in frame {n_found}")

    def _rate(self, container: InputContainer, packets: list[_Packet]) -> Fraction:
        stream = container.streams.video[0]
        candidates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
        if len(packets) < 2:
            is_image = container.format.name.endswith("_pipe") or container.format.name == "image2"
            rate = _STILL_RATE if is_image else usual_first(next(filter(None, candidates), _STILL_RATE))[0]
            self._check_duration(container, Fraction(0), 1 / rate)
            return rate
        stamps = sorted(p.stamp for p in packets if p.stamp is not None)
        if len(stamps) < len(packets) or stream.time_base is None:
            raise InputError(f"{self.name}: its frame rate is unknown (frames without a time stamp); give a frame rate")
        try:
            rate = constant_rate(stamps, stream.time_base, candidates)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        self._check_duration(container, (stamps[-1] - stamps[0]) * stream.time_base, 1 / rate)
        return rate

    def _check_duration(self, container: InputContainer, found_s: Fraction, frame_s: Fraction) -> None:
        """Raises InputError where a Matroska file of one stream announces more frames than it holds."""
        if "matroska" not in container.format.name or len(container.streams) > 1 or not container.duration:
            return
        announced_s = Fraction(container.duration, av.time_base) - Fraction(container.start_time or 0, av.time_base)
        if announced_s > found_s + 3 * frame_s / 2:
            raise InputError(
                f"{self.name}: the file breaks off, it announces {float(announced_s):.2f} s and holds "
                f"{float(found_s + frame_s):.2f} s; give a frame rate to take what is there"
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        try:
            yield from self._container.decode(self._container.streams.video[0])
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error


def _bytes_after(path: Path, packets: list[_Packet]) -> int:
    """Bytes of a .y4m file behind its last whole frame."""
    return path.stat().st_size - packets[-1].end if packets and packets[-1].end else 0
