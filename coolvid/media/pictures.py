"""Frames from pictures that PyAV decodes, whatever their origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import av

from coolvid.errors import InputError
from coolvid.picture.types import DisplayInfo, Frame, VideoFormat

from .base import Source
from .layout import make_format
from .opening import AV_ERRORS, unreadable
from .pixels import color_of, format_of, shown_size, to_frame


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
        if self._n_read == self.n_frames:
            raise StopIteration
        picture, self._first = self._first or next(self._pictures, None), None
        if picture is None:
            if self.n_frames is not None:
                raise InputError(f"{self.name}: only {self._n_read} of {self.n_frames} frames could be decoded")
            raise StopIteration
        self._check(picture, self._n_read)
        self._n_read += 1
        return picture

    def _check(self, picture: av.VideoFrame, index: int) -> None:
        """Raises InputError for a picture of another format than the source's. index: of its frame."""
        if (found := self._format(picture, index)) != self.format:
            raise InputError(
                f"{self.name}: the format changes at frame {index}, from {in_words(self.format)} to {in_words(found)}; "
                "cut the file there"
            )

    def _format(self, picture: av.VideoFrame, index: int = 0) -> VideoFormat:
        """The format in which a picture is read. Raises InputError for what is not supported."""
        name = self._file_of(index)
        if picture.interlaced_frame:
            raise InputError(
                f"{name}: frame {index} is interlaced, but only progressive video is supported; "
                "deinterlace it first: ffmpeg -i FILE -vf bwdif PROGRESSIVE.mkv"
            )
        return make_format(name, shown_size(picture, name), *format_of(picture, name))

    def _file_of(self, index: int) -> str:
        """The file that the frame of this index comes from."""
        return self.name


def in_words(format: VideoFormat) -> str:
    """The format in words: 96x64 8-bit yuv420."""
    return f"{format.width}x{format.height} {format.bit_depth}-bit {format.pixel_format.value}"
