"""Frames from image files, one each: numbered, in a folder, or those that a name with * matches (see numbering.py)."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

from coolvid.errors import InputError
from coolvid.picture.types import DisplayInfo, VideoFormat

from .base import check_readable
from .display import display_of
from .layout import check_rate
from .numbering import find_images, is_pattern
from .opening import AV_ERRORS, choose_stream, is_photo, open_container, unreadable
from .pictures import PictureSource, in_words
from .pixels import color_of, is_grey

SEQUENCE_RATE = Fraction(25)


class SequenceSource(PictureSource):
    """Images in this order, by default 25 frames per second. Grey ones among coloured ones are read as these.

    All images are read twice: the first time, when the source is opened, to find those that do not fit. Raises
    InputError for an image that cannot be read, or has another size or format than the others.
    stream: as in SourceSpec. n_wanted: images to be read, None for all.
    """

    def __init__(
        self, path: Path, fps: Fraction | None = None, stream: int | None = None, n_wanted: int | None = None
    ) -> None:
        paths = find_images(path)
        self.name, self._number, self._paths = str(path), stream, paths[:n_wanted]
        if not is_pattern(path):
            self.choice = f"{len(paths)} images, {paths[0].name} to {paths[-1].name}"
        self.n_frames = len(self._paths)
        self.fps = check_rate(self.name, SEQUENCE_RATE if fps is None else fps)
        self._survey()
        self.skip(0)

    def skip(self, n: int) -> int:
        self._n_read = min(n, len(self._paths))
        self._first, self._pictures = None, map(self._read, self._paths[self._n_read :])
        return self._n_read

    def close(self) -> None:
        """Nothing to close: no file stays open."""

    def _survey(self) -> None:
        """Set format and color: those of the first image in colour, else of the first. Checks all images."""
        all_grey, self._model = True, self._paths[0]
        for index, path in enumerate(self._paths):
            picture = self._read(path)
            found = self._format(picture, index)
            if not index or (all_grey and not is_grey(picture)):
                if index and not _fits_among(self.format, found):
                    raise self._misfit(path, found)
                self.format, self.color, self._model = found, color_of(picture), path
                self.display = self._display(picture)
            self._check(picture, index)
            all_grey = all_grey and is_grey(picture)

    def _display(self, first: av.VideoFrame) -> DisplayInfo:
        with open_container(self._model, self.name) as container:
            return display_of(container, choose_stream(container, self.name, self._number), first, self.name)

    def _check(self, picture: av.VideoFrame, index: int) -> None:
        found = self._format(picture, index)
        if found != self.format and not (is_grey(picture) and _fits_among(found, self.format)):
            raise self._misfit(self._paths[index], found)

    def _file_of(self, index: int) -> str:
        return str(self._paths[index])

    def _misfit(self, path: Path, found: VideoFormat) -> InputError:
        return InputError(
            f"{path} is {in_words(found)}, but {self._model} is {in_words(self.format)}; "
            "convert the images of a sequence to one size and format"
        )

    def _read(self, path: Path) -> av.VideoFrame:
        """The picture in an image file."""
        check_readable(path)
        with open_container(path, str(path)) as container:
            stream = choose_stream(container, str(path), self._number)
            try:
                pictures: list[av.VideoFrame] = list(islice(container.decode(stream), 1 if is_photo(container) else 2))
            except AV_ERRORS as error:
                raise unreadable(str(path), error) from error
        if len(pictures) != 1:
            number = "several pictures" if pictures else "no picture that can be decoded"
            raise InputError(f"{path} contains {number}; a sequence is made of images with one picture each")
        return pictures[0]


def _fits_among(grey: VideoFormat, others: VideoFormat) -> bool:
    """Whether grey pictures of the first format can be read in the second."""
    return (grey.width, grey.height, grey.bit_depth) == (others.width, others.height, others.bit_depth)
