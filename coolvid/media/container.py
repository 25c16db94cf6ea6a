"""Frames from any file that PyAV opens: mp4, mkv, webm, y4m, images and more."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import av
from av.container import InputContainer

from coolvid.errors import InputError
from coolvid.picture.types import DisplayInfo

from .base import check_readable
from .display import display_of
from .layout import check_rate
from .pictures import AV_ERRORS, PictureSource, open_container, unreadable
from .timing import constant_rate, usual_first

_STILL_RATE = Fraction(1)


class _Packet(NamedTuple):
    """Facts of a coded frame: time in ticks, end in the file in bytes (0: unknown), and whether it is shown."""

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

    fps: assign this rate to the frames and ignore the time stamps. A still image is one frame, by default at 1 frame
    per second.
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

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        return display_of(self._container, self._container.streams.video[0], first, self.name)

    def _open(self, path: Path) -> InputContainer:
        return open_container(str(path), self.name)

    def _scan(self, path: Path, fps: Fraction | None) -> tuple[int, Fraction]:
        """(number of frames, frames per second), from the packets alone."""
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
        """Raises InputError when the file declares more frames than it contains."""
        stream, n_found = container.streams.video[0], len(packets)
        if stream.frames > n_found:
            raise InputError(f"{self.name} is truncated: it contains {n_found} of {stream.frames} frames")
        if container.format.name == "yuv4mpegpipe" and _bytes_after(path, packets):
            raise InputError(f"{self.name} is truncated in frame {n_found}")

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
            raise InputError(f"{self.name}: frame rate unknown (no time stamps); give a frame rate (--fps 30)")
        try:
            rate = constant_rate(stamps, stream.time_base, candidates)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        self._check_duration(container, (stamps[-1] - stamps[0]) * stream.time_base, 1 / rate)
        return rate

    def _check_duration(self, container: InputContainer, found_s: Fraction, frame_s: Fraction) -> None:
        """Raises InputError when a Matroska file with one stream declares a longer duration than it contains."""
        if "matroska" not in container.format.name or len(container.streams) > 1 or not container.duration:
            return
        announced_s = Fraction(container.duration, av.time_base) - Fraction(container.start_time or 0, av.time_base)
        if announced_s > found_s + 3 * frame_s / 2:
            raise InputError(
                f"{self.name} is truncated: it declares {float(announced_s):.2f} s and contains "
                f"{float(found_s + frame_s):.2f} s; give a frame rate (--fps) to use the frames that it contains"
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        try:
            yield from self._container.decode(self._container.streams.video[0])
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error


def _bytes_after(path: Path, packets: list[_Packet]) -> int:
    """Bytes of a .y4m file after its last whole frame."""
    return path.stat().st_size - packets[-1].end if packets and packets[-1].end else 0
