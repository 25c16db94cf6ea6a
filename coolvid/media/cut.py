"""A part of a source: frames from a start on, cropped and scaled."""

from __future__ import annotations

from dataclasses import replace

from coolvid.errors import ConfigError, InputError
from coolvid.picture.types import Frame, Plane, VideoFormat

from .base import Source

Crop = tuple[int, int, int, int]


class CutSource(Source):
    """The frames of another source from number `start` on, cropped, then scaled.

    crop: (width, height, x, y) in pixels, x and y from the upper left corner. scale: (width, height), bicubic with
    swscale. Raises ConfigError for a rectangle outside the picture, for an odd position in 4:2:0, and for sizes out of
    bounds; InputError for a start beyond the end.
    """

    def __init__(
        self, source: Source, start: int = 0, crop: Crop | None = None, scale: tuple[int, int] | None = None
    ) -> None:
        self._source, self._crop = source, crop
        self._first: Frame | None = None
        self.name, self.fps, self.color = source.name, source.fps, source.color
        cropped = source.format if crop is None else _cropped(source.format, crop)
        self.format = cropped if scale is None else _sized(cropped, scale, "scale")
        self._scaler = None
        if self.format != cropped:
            from .pixels import Scaler

            self._scaler = Scaler(self.format)
        self.n_frames = self._skip(start)

    def _skip(self, start: int) -> int | None:
        """Go to the first frame and return the number of frames from there, None if the source does not know it."""
        if start < 0:
            raise ConfigError(f"start is {start}; choose 0 or more")
        n_frames = self._source.n_frames
        if n_frames is None or start < n_frames:
            n_there = self._source.skip(start)
            self._first = next(self._source, None)
            if self._first is not None:
                return None if n_frames is None else n_frames - start
            n_frames = n_there
        raise InputError(f"start is {start}, but {self.name} has only {n_frames} frames; choose 0..{n_frames - 1}")

    def __next__(self) -> Frame:
        frame, self._first = self._first or next(self._source), None
        if self._crop is not None:
            frame = _crop_frame(frame, self._crop)
        return frame if self._scaler is None else self._scaler.resize(frame)

    def close(self) -> None:
        self._source.close()


def _cropped(format: VideoFormat, crop: Crop) -> VideoFormat:
    """The format of the rectangle; raises ConfigError if it is not valid."""
    width, height, x, y = crop
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > format.width or y + height > format.height:
        raise ConfigError(
            f"crop {_text(crop)} exceeds the picture, which is {format.width}x{format.height}; "
            f"{_text(_inside(format, crop))} fits"
        )
    if format.pixel_format.is_subsampled and (x % 2 or y % 2):
        nearest = width, height, x - x % 2, y - y % 2
        raise ConfigError(
            f"crop {_text(crop)} starts at an odd position, but 4:2:0 needs an even one; use {_text(nearest)}"
        )
    return _sized(format, (width, height), "crop")


def _inside(format: VideoFormat, crop: Crop) -> Crop:
    """The nearest rectangle inside the picture: as large as possible, moved as little as possible."""
    width, height = min(max(1, crop[0]), format.width), min(max(1, crop[1]), format.height)
    x, y = min(max(0, crop[2]), format.width - width), min(max(0, crop[3]), format.height - height)
    return (width, height, x - x % 2, y - y % 2) if format.pixel_format.is_subsampled else (width, height, x, y)


def _text(crop: Crop) -> str:
    return "{}x{}+{}+{}".format(*crop)


def _sized(format: VideoFormat, size: tuple[int, int], what: str) -> VideoFormat:
    try:
        return replace(format, width=size[0], height=size[1])
    except ConfigError as error:
        raise ConfigError(f"{what} to {size[0]}x{size[1]}: {error}") from error


def _crop_frame(frame: Frame, crop: Crop) -> Frame:
    """The rectangle of a frame; its position is even in 4:2:0."""
    width, height, x, y = crop
    cropped = replace(frame.format, width=width, height=height)
    planes: list[Plane] = []
    for plane, (h, w) in zip(frame.planes, cropped.plane_shapes, strict=True):
        halved = plane.shape != (frame.height, frame.width)
        top, left = (y // 2, x // 2) if halved else (y, x)
        planes.append(plane[top : top + h, left : left + w].copy())
    return Frame((planes[0], planes[1], planes[2]), cropped)
