"""Frames from any file that PyAV opens: mp4, mkv, webm, y4m, images and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import av
from av.container import InputContainer

from coolvid.errors import InputError, count_frames
from coolvid.picture.types import DisplayInfo

from .base import check_readable
from .display import display_of
from .layout import check_rate, make_format
from .opening import AV_ERRORS, choose_stream, describe_choice, is_photo, open_container, unreadable
from .pictures import PictureSource
from .timing import constant_rate, usual_first
from .whole import ends_early
from .y4m import check_y4m

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
    """One video stream of a file (see choose_stream). Its frames are decoded twice: headers are not the truth.

    The first time, when the source is opened, gives the exact frame rate, the frame count and any error of a file that
    cannot be read to its end. n_wanted: frames to be read, None for all; more are neither checked nor counted.
    fps: assign this rate to the frames and ignore the time stamps. A still image is one frame, by default at 1 frame
    per second.
    """

    def __init__(
        self, path: Path, fps: Fraction | None = None, stream: int | None = None, n_wanted: int | None = None
    ) -> None:
        check_readable(path)
        self.name, self._number = path.name, stream
        check_y4m(path, self.name, fps)
        with open_container(path, self.name) as container:
            self._survey(path, container, fps, n_wanted)
        self._container = open_container(path, self.name)
        self._begin(self._decode())

    def close(self) -> None:
        self._container.close()

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        stream = choose_stream(self._container, self.name, self._number)
        return display_of(self._container, stream, first, self.name)

    def _survey(self, path: Path, container: InputContainer, fps: Fraction | None, n_wanted: int | None) -> None:
        """Set number and rate of the frames, from all packets and the pictures of those that are wanted."""
        stream = choose_stream(container, self.name, self._number)
        self._check_size(stream)
        packets, stamps, problem = self._decode_once(container, stream, n_wanted)
        self._check_whole(path, container, stream, packets, is_timed=fps is not None, is_decodable=problem is None)
        if problem is not None:
            raise problem
        shown = [packet.stamp for packet in packets if packet.is_shown]
        self.n_frames, self.choice = len(stamps), describe_choice(container, stream)
        if len(stamps) < len(shown) and len(stamps) != n_wanted:
            undecodable = f"{len(stamps)} of its {len(shown)} frames can be decoded"
            self.choice = "; ".join(filter(None, (self.choice, undecodable)))
            shown = stamps
        self.fps = check_rate(self.name, self._rate(container, stream, shown) if fps is None else fps)

    def _check_size(self, stream: Any) -> None:
        """Raises InputError, before a picture is decoded, for a size that no source may have."""
        context = stream.codec_context
        if context is not None and context.width and context.height:
            make_format(self.name, (context.width, context.height))

    def _decode_once(
        self, container: InputContainer, stream: Any, n_wanted: int | None
    ) -> tuple[list[_Packet], list[int | None], InputError | None]:
        """All packets, times of the pictures that are wanted, and what went wrong in decoding these."""
        packets: list[_Packet] = []
        stamps: list[int | None] = []
        problem: InputError | None = None
        try:
            for packet in container.demux(stream):
                if packet.size and not (is_photo(container) and packets):
                    packets.append(_Packet.of(packet))
                if problem is None and not (is_photo(container) and stamps) and len(stamps) != n_wanted:
                    try:
                        stamps += self._checked(packet.decode(), len(stamps), n_wanted)
                    except AV_ERRORS as error:
                        problem = unreadable(self.name, error)
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error
        if not stamps and problem is None:
            problem = InputError(f"{self.name} contains no picture that can be decoded")
        return packets, stamps, problem

    def _checked(self, pictures: Sequence[av.VideoFrame], n_before: int, n_wanted: int | None) -> list[int | None]:
        """Times of decoded pictures up to the wanted number. Raises InputError for those that cannot be read."""
        wanted = pictures[: None if n_wanted is None else n_wanted - n_before]
        for index, picture in enumerate(wanted, n_before):
            if index == 0:
                self.format = self._format(picture)
            self._check(picture, index)
        return [picture.pts for picture in wanted]

    def _check_whole(
        self,
        path: Path,
        container: InputContainer,
        stream: Any,
        packets: Sequence[_Packet],
        *,
        is_timed: bool,
        is_decodable: bool,
    ) -> None:
        """Raises InputError when the file breaks off. Fewer frames than its header announces do not show that alone.

        A file that does not announce their number is accepted up to its end if it is_timed and is_decodable.
        """
        n_found, kind = len(packets), container.format.name
        last = max((packet.end for packet in packets), default=0)
        breaks_off = ends_early(path, kind)
        if stream.frames > n_found and (last >= path.stat().st_size if breaks_off is None else breaks_off):
            raise InputError(f"{self.name} is truncated: it contains {n_found} of {stream.frames} frames")
        if kind == "yuv4mpegpipe" and 0 < last < path.stat().st_size:
            raise InputError(f"{self.name} is truncated in frame {n_found}")
        if breaks_off and not stream.frames and not (is_timed and is_decodable):
            hint = "; give a frame rate (--fps) to use these" if is_decodable else "; copy or download it again"
            raise InputError(f"{self.name} is truncated: it breaks off after {count_frames(n_found)}{hint}")

    def _rate(self, container: InputContainer, stream: Any, stamps: Sequence[int | None]) -> Fraction:
        """Frames per second of pictures with these times. Raises InputError when they are not evenly spaced."""
        candidates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
        if len(stamps) < 2:
            is_image = container.format.name.endswith("_pipe") or container.format.name == "image2"
            return _STILL_RATE if is_image else usual_first(next(filter(None, candidates), _STILL_RATE))[0]
        known = sorted(stamp for stamp in stamps if stamp is not None)
        if len(known) < len(stamps) or stream.time_base is None:
            raise InputError(f"{self.name}: frame rate unknown (no time stamps); give a frame rate (--fps 30)")
        try:
            return constant_rate(known, stream.time_base, candidates)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def _decode(self) -> Iterator[av.VideoFrame]:
        try:
            yield from self._container.decode(choose_stream(self._container, self.name, self._number))
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error
