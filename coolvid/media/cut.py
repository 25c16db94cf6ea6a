"""A part of a source: frames from a start on, cropped and scaled."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from coolvid.errors import ConfigError, InputError, count_frames
from coolvid.picture.types import DisplayInfo, Frame, Plane, VideoFormat, bounded_aspect

from .base import Source
from .source_spec import Crop, SourceSpec, crop_text


class CutSource(Source):
    """The frames of another source from number spec.start on, cropped, then scaled (bicubic, by swscale).

    Scaling keeps the shape of what is shown, so pixels become wider or higher where the sides change unequally.

    Raises ConfigError for a rectangle that does not lie in the picture or, in 4:2:0, does not start at even positions;
    InputError for a start beyond the end.
    """

    def __init__(self, source: Source, spec: SourceSpec) -> None:
        self._source, self._crop = source, spec.crop
        self._first: Frame | None = None
        self.name, self.fps, self.color, self.choice = source.name, source.fps, source.color, source.choice
        cropped = source.format if spec.crop is None else _cropped(source.format, spec.crop)
        self.format = cropped if spec.scale is None else _sized(cropped, spec.scale)
        self.display = _scaled(source.display, cropped, self.format)
        self._scaler = None
        if self.format != cropped:
            from .pixels import Scaler

            self._scaler = Scaler(self.format)
        self.n_frames = self._skip(spec.start)

    def _skip(self, start: int) -> int | None:
        """Go to the first frame and return the number of frames from there, None if the source does not know it."""
        n_frames = self._source.n_frames
        if n_frames is None or start < n_frames:
            n_there = self._source.skip(start)
            self._first = next(self._source, None)
            if self._first is not None:
                return None if n_frames is None else n_frames - start
            n_frames = n_there
        choices = "0" if n_frames == 1 else f"0..{n_frames - 1}"
        raise InputError(f"start is {start}, but {self.name} has only {count_frames(n_frames)}; choose {choices}")

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
    if x + width > format.width or y + height > format.height:
        raise ConfigError(
            f"crop {crop_text(crop)} exceeds the picture, which is {format.width}x{format.height}; "
            f"{crop_text(_inside(format, crop))} fits"
        )
    if format.pixel_format.is_subsampled and (x % 2 or y % 2):
        nearest = width, height, x - x % 2, y - y % 2
        raise ConfigError(
            f"crop {crop_text(crop)} starts at an odd position, but 4:2:0 needs an even one; use {crop_text(nearest)}"
        )
    return _sized(format, (width, height))


def _inside(format: VideoFormat, crop: Crop) -> Crop:
    """The nearest rectangle inside the picture: as large as possible, moved as little as possible."""
    width, height = min(crop[0], format.width), min(crop[1], format.height)
    x, y = min(crop[2], format.width - width), min(crop[3], format.height - height)
    return (width, height, x - x % 2, y - y % 2) if format.pixel_format.is_subsampled else (width, height, x, y)


def _sized(format: VideoFormat, size: tuple[int, int]) -> VideoFormat:
    return replace(format, width=size[0], height=size[1])


def _scaled(display: DisplayInfo, before: VideoFormat, after: VideoFormat) -> DisplayInfo:
    """The display description after scaling, which changes the pixels' shape and not the picture's."""
    stretch = Fraction(before.width * after.height, before.height * after.width)
    return replace(display, pixel_aspect=bounded_aspect(display.pixel_aspect * stretch))


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
