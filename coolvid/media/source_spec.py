"""How to read a source: what raw video does not tell, and which part of it to take."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from coolvid.errors import ConfigError, choose
from coolvid.picture.rate import problem_of
from coolvid.picture.types import PixelFormat, VideoFormat
from coolvid.values import Within, check_fields

from .layout import PIXEL_FORMATS

Crop = tuple[int, int, int, int]
"""(width, height, x, y) of a rectangle in pixels, x and y from the upper left corner."""


@dataclass(frozen=True)
class SourceSpec:
    """How to read a source; the defaults take all of a file that describes itself. Raises ConfigError.

    size (width, height), pix_fmt (one of layout.PIXEL_FORMATS) and fps describe raw video and win over its name; for
    other files, fps overrides the file's time stamps. start is the number of the first frame to take; crop (width,
    height, x, y) cuts a rectangle of every picture, which scale (width, height) resizes. stream is the number of the
    video stream to take from a file with several, counted as ffprobe does; without it, the default one is taken.
    """

    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    pix_fmt: str | None = None
    start: Annotated[int, Within(0, 2**31 - 1)] = 0
    crop: Crop | None = None
    scale: tuple[int, int] | None = None
    stream: Annotated[int, Within(0, 2**31 - 1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.size is not None:
            check_size("size of", self.size)
        if self.scale is not None:
            check_size("scale to", self.scale)
        if self.fps is not None and (problem := problem_of(self.fps)):
            raise ConfigError(f"fps is {self.fps}; {problem}")
        if self.pix_fmt is not None:
            choose("pix_fmt", self.pix_fmt, tuple(PIXEL_FORMATS))
        if self.crop is not None:
            _check_crop(self.crop)

    @property
    def is_cut(self) -> bool:
        """Whether a part of the source is taken, or its size changes."""
        return self.start > 0 or self.crop is not None or self.scale is not None


def check_size(what: str, size: tuple[int, int]) -> None:
    """Raise ConfigError unless pictures may have this (width, height)."""
    try:
        VideoFormat(size[1], size[0], PixelFormat.YUV420, 8)
    except ConfigError as error:
        raise ConfigError(f"{what} {size[0]}x{size[1]}: {error}") from error


def crop_text(crop: Crop) -> str:
    """The rectangle as the command line writes it: 352x288+16+8."""
    return "{}x{}+{}+{}".format(*crop)


def _check_crop(crop: Crop) -> None:
    if min(crop[2:]) < 0:
        raise ConfigError(f"crop {crop_text(crop)} starts outside the picture; x and y are 0 or more")
    check_size("crop to", crop[:2])
