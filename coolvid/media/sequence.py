"""Frames from numbered image files, for example frames/%04d.png."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from coolvid.errors import InputError
from coolvid.picture.types import DisplayInfo, VideoFormat

from .base import check_readable
from .display import display_of
from .layout import check_rate
from .numbering import find_numbered
from .pictures import AV_ERRORS, PictureSource, in_words, open_container, unreadable

SEQUENCE_RATE = Fraction(25)


class SequenceSource(PictureSource):
    """The images of a pattern (see numbering.py) from the lowest number on, one frame each; by default 25 frames per
    second. Raises InputError if a number is missing, or an image has another format than the first."""

    def __init__(self, pattern: Path, fps: Fraction | None = None) -> None:
        self.name = str(pattern)
        self._paths = find_numbered(pattern)
        self.n_frames = len(self._paths)
        self.fps = check_rate(self.name, SEQUENCE_RATE if fps is None else fps)
        self._begin(map(_read, self._paths))

    def skip(self, n: int) -> int:
        if n == 0:
            return 0
        self._n_read = min(n, len(self._paths))
        self._first, self._pictures = None, map(_read, self._paths[self._n_read :])
        return self._n_read

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        with open_container(str(self._paths[0]), self.name) as container:
            return display_of(container, container.streams.video[0], first, self.name)

    def close(self) -> None:
        """Nothing to close: no file stays open."""

    def _change(self, found: VideoFormat) -> str:
        return (
            f"{self._paths[self._n_read]} is {in_words(found)}, but {self._paths[0]} is {in_words(self.format)}; "
            "convert the images of a sequence to one size and format"
        )


def _read(path: Path) -> av.VideoFrame:
    """The picture in an image file."""
    check_readable(path)
    with open_container(str(path), str(path)) as container:
        try:
            picture = next(container.decode(video=0), None)
        except AV_ERRORS as error:
            raise unreadable(str(path), error) from error
    if picture is None:
        raise InputError(f"{path} contains no picture that can be decoded")
    return picture
