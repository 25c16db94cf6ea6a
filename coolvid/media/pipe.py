"""Frames through standard input and output, as y4m."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from coolvid.errors import InputError, OutputError
from coolvid.picture.types import DisplayInfo, Frame, PixelFormat

from .base import Sink
from .display import display_of
from .layout import check_rate
from .pictures import AV_ERRORS, PictureSource, open_container, unreadable
from .raw import y4m_display, y4m_frame, y4m_header
from .timing import rate_problem

_MAGIC = b"YUV4MPEG2"


class PipeSource(PictureSource):
    """y4m from standard input; the number of frames is known only at the end."""

    n_frames = None

    def __init__(self, fps: Fraction | None = None) -> None:
        self.name = "standard input"
        self._bytes = _Counted(sys.stdin.buffer)
        self._container = open_container(self._bytes, self.name, "yuv4mpegpipe")
        stream = self._container.streams.video[0]
        self.fps = check_rate(self.name, fps or stream.average_rate or stream.guessed_rate or Fraction(0))
        self._begin(self._decode())

    def close(self) -> None:
        self._container.close()

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        return display_of(self._container, self._container.streams.video[0], first, self.name)

    def _decode(self) -> Iterator[av.VideoFrame]:
        end = n_whole = 0
        try:
            for packet in self._container.demux(video=0):
                if packet.size:
                    end, n_whole = (packet.pos or 0) + packet.size, n_whole + 1
                yield from packet.decode()
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error
        if self._bytes.n_read != end:
            raise InputError(
                f"{self.name} ends inside frame {n_whole}; check for errors from the program that writes it"
            )


class _Counted:
    """Standard input as PyAV reads it, counting bytes."""

    def __init__(self, file: BinaryIO) -> None:
        if file.isatty():
            raise InputError("- reads y4m from standard input, but standard input is a terminal; " + _HOW)
        self._file, self._head, self.n_read = file, file.read(len(_MAGIC)), 0
        if not self._head:
            raise InputError("standard input is empty; " + _HOW)
        if self._head != _MAGIC:
            raise InputError(f"standard input is not y4m: it starts with {self._head!r}; " + _HOW)

    def read(self, size: int) -> bytes:
        data = self._head or self._file.read(size)
        self._head = b""
        self.n_read += len(data)
        return data


_HOW = "use a pipe, for example ffmpeg -i FILE -f yuv4mpegpipe -strict -1 - | coolvid encode - -o OUT.cvd"


class PipeSink(Sink):
    """y4m to standard output; raises BrokenPipeError when the reader closes the pipe."""

    def _check_target(self) -> None:
        if self.format.pixel_format is PixelFormat.RGB:
            raise OutputError("standard output is y4m, which cannot hold RGB; write to a .png, .rgb or .mp4 file")
        if problem := rate_problem(self.fps):
            raise OutputError(f"standard output: {problem}; write a .yuv or .png file, which holds no rate")
        if sys.stdout.isatty():
            raise OutputError(
                "- writes y4m to standard output, but standard output is a terminal; use a pipe or name a file"
            )

    def _held(self) -> DisplayInfo:
        return y4m_display(self.format, self.display)

    def _open(self) -> None:
        self._file = sys.stdout.buffer
        self._file.write(y4m_header(self.format, self.fps, self.color, self.display))

    def _write(self, frame: Frame) -> None:
        self._file.write(y4m_frame(frame))

    def _results(self) -> list[tuple[Path, Path]]:
        return []

    def _finish(self) -> None:
        self._file.flush()

    def _close(self) -> None:
        """Standard output stays open."""
