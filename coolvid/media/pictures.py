"""Frames from pictures that PyAV decodes, whatever their origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from coolvid.errors import InputError
from coolvid.picture.types import DisplayInfo, Frame, VideoFormat

from .base import Source
from .layout import make_format
from .pixels import color_of, format_of, shown_size, to_frame

AV_ERRORS = (av.error.FFmpegError, OSError, ValueError)


class PictureSource(Source):
    """Frames from pictures of one format, upright: the file's rotation and mirroring are applied.

    Interlaced pictures are rejected.
    """

    _pictures: Iterator[av.VideoFrame]
    _n_read = 0

    def __next__(self) -> Frame:
        picture = self._take()
        try:
            return to_frame(picture, self.format)
        except AV_ERRORS as error:
            raise unreadable(self.name, error) from error

    def skip(self, n: int) -> int:
        for i in range(n):
            try:
                self._take()
            except StopIteration:
                return i
        return n

    def _begin(self, pictures: Iterator[av.VideoFrame]) -> None:
        """Set format, color and display from the first picture; closes the source on any error. Raises InputError."""
        try:
            self._pictures = pictures
            first = next(pictures, None)
            if first is None:
                raise InputError(f"{self.name} contains no picture that can be decoded")
            self.format, self.color = self._format(first), color_of(first)
            self.display = self._display(first)
        except BaseException:
            self.close()
            raise
        self._first: av.VideoFrame | None = first

    @abstractmethod
    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        """What the file states about showing its pictures, of which this is the first."""

    def _take(self) -> av.VideoFrame:
        """The next picture, in the source's format. Raises InputError for another one."""
        picture, self._first = self._first or next(self._pictures, None), None
        if picture is None:
            if self.n_frames is not None and self._n_read != self.n_frames:
                raise InputError(f"{self.name}: only {self._n_read} of {self.n_frames} frames could be decoded")
            raise StopIteration
        if (found := self._format(picture)) != self.format:
            raise InputError(self._change(found))
        self._n_read += 1
        return picture

    def _format(self, picture: av.VideoFrame) -> VideoFormat:
        """The format in which a picture is read. Raises InputError for what is not supported."""
        if picture.interlaced_frame:
            raise InputError(
                f"{self.name}: frame {self._n_read} is interlaced, but only progressive video is supported; "
                "deinterlace it first: ffmpeg -i FILE -vf bwdif PROGRESSIVE.mkv"
            )
        return make_format(self.name, shown_size(picture, self.name), *format_of(picture, self.name))

    def _change(self, found: VideoFormat) -> str:
        """The error message for a picture whose format differs from the first."""
        return (
            f"{self.name}: the format changes at frame {self._n_read}, from {in_words(self.format)} to "
            f"{in_words(found)}; cut the file there"
        )


def in_words(format: VideoFormat) -> str:
    """The format in words: 96x64 8-bit yuv420."""
    return f"{format.width}x{format.height} {format.bit_depth}-bit {format.pixel_format.value}"


def open_container(source: Any, name: str, format: str | None = None) -> InputContainer:
    """A video file (or an object with read()), opened by PyAV. Raises InputError."""
    try:
        container: InputContainer = av.open(source, "r", format=format, metadata_errors="replace")
    except AV_ERRORS as error:
        if isinstance(source, str) and _lacks_its_index(Path(source)):
            raise InputError(
                f"{name} is truncated: an mp4 without its index (moov); copy or download it again"
            ) from error
        raise unreadable(name, error) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{name} contains no video")
    return container


def unreadable(name: str, error: BaseException) -> InputError:
    """An error from PyAV as an InputError."""
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{name} is not a readable video or image: {reason}")


def _lacks_its_index(path: Path) -> bool:
    """Whether a file starts as mp4 or mov but has no complete `moov` box, usually the last one."""
    at, n_bytes = 0, path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(16)) == 16:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if at == 0 and kind != b"ftyp":
                return False
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8 or (kind == b"moov" and at + size <= n_bytes):
                return False
            at += size
            file.seek(at)
    return at > 0
