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
from .opening import AV_ERRORS, choose_stream, open_container, unreadable
from .pictures import PictureSource
from .raw import check_y4m_rate, y4m_display, y4m_frame, y4m_header
from .y4m import MAGIC, MAX_HEADER, check_header


class PipeSource(PictureSource):
    """y4m from standard input; the number of frames is known only at the end."""

    n_frames = None

    def __init__(self, fps: Fraction | None = None, stream: int | None = None) -> None:
        self.name = "standard input"
        self._bytes = _Counted(sys.stdin.buffer)
        check_header(self._bytes.header, self.name, fps)
        self._container = open_container(self._bytes, self.name, "yuv4mpegpipe")
        try:
            self._stream = choose_stream(self._container, self.name, stream)
            self.fps = check_rate(self.name, fps or self._stream.guessed_rate)
        except BaseException:
            self.close()
            raise
        self._begin(self._decode())

    def close(self) -> None:
        self._container.close()

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        return display_of(self._container, self._stream, first, self.name)

    def _decode(self) -> Iterator[av.VideoFrame]:
        end = n_whole = 0
        try:
            for packet in self._container.demux(self._stream):
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
    """Standard input as PyAV reads it, counting bytes. header: its first line."""

    def __init__(self, file: BinaryIO) -> None:
        if file.isatty():
            raise InputError("- reads y4m from standard input, but standard input is a terminal; " + _HOW)
        self._file, self.n_read = file, 0
        head = file.read(len(MAGIC))
        if not head:
            raise InputError("standard input is empty; " + _HOW)
        if head != MAGIC:
            raise InputError(f"standard input is not y4m: it starts with {head!r}; " + _HOW)
        self.header = self._unread = head + file.readline(MAX_HEADER)

    def read(self, size: int) -> bytes:
        data, self._unread = self._unread[:size] or self._file.read(size), self._unread[size:]
        self.n_read += len(data)
        return data


_HOW = "use a pipe, for example ffmpeg -i FILE -f yuv4mpegpipe -strict -1 - | coolvid encode - -o OUT.cvd"


class PipeSink(Sink):
    """y4m to standard output; raises BrokenPipeError when the reader closes the pipe."""

    def _check_target(self) -> None:
        if self.format.pixel_format is PixelFormat.RGB:
            raise OutputError("standard output is y4m, which cannot hold RGB; write to a .png, .rgb or .mp4 file")
        check_y4m_rate("standard output", self.fps)
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
