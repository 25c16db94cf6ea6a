"""Samples without a container: the layout of frames in raw files, and the format in a raw file's name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError, InputError
from coolvid.picture.rate import problem_of, rate_of
from coolvid.picture.types import BIT_DEPTHS, Frame, PixelFormat, Plane, VideoFormat

PIXEL_FORMATS: dict[str, tuple[PixelFormat, int]] = {
    "yuv420": (PixelFormat.YUV420, 8),
    "yuv420p": (PixelFormat.YUV420, 8),
    "yuv420p10le": (PixelFormat.YUV420, 10),
    "yuv444": (PixelFormat.YUV444, 8),
    "yuv444p": (PixelFormat.YUV444, 8),
    "yuv444p10le": (PixelFormat.YUV444, 10),
    "rgb24": (PixelFormat.RGB, 8),
}
"""Names of raw layouts: planar yuv, 10 bits as little-endian 16-bit words; rgb24 packed r-g-b."""

EXAMPLE_NAME = "NAME_352x288_30p_yuv420_8b.yuv"

_NAMED_FORMATS = {**PIXEL_FORMATS, "rgb": (PixelFormat.RGB, 8)}


_TOLD = (
    ("frame size", "--size 352x288"),
    ("frame rate", "--fps 30"),
    ("pixel format", "--pix-fmt yuv420p"),
)


@dataclass(frozen=True)
class RawName:
    """The format in a raw file's name; None for what the name does not give."""

    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    pixel_format: PixelFormat | None = None
    bit_depth: int | None = None


def parse_name(stem: str) -> RawName:
    """Parse a name such as clip_352x288_29.97p_yuv420_8b: width x height, frames per second, format, bits.

    The usual decimals of NTSC rates (23.976, 29.97, 59.94, 119.88) mean the exact fractions over 1001.
    """
    found = RawName()
    for part in stem.split("_")[1:]:
        if match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", part):
            found = replace(found, size=(int(match[1]), int(match[2])))
        elif match := re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)p", part):
            found = replace(found, fps=rate_of(match[1]) or Fraction(0))
        elif match := re.fullmatch(r"(\d{1,2})b", part):
            found = replace(found, bit_depth=int(match[1]))
        elif part in _NAMED_FORMATS:
            pixel_format, depth = _NAMED_FORMATS[part]
            found = replace(found, pixel_format=pixel_format, bit_depth=found.bit_depth or depth)
    return found


def describe(
    file_name: str, size: tuple[int, int] | None, fps: Fraction | None, pix_fmt: str | None
) -> tuple[VideoFormat, Fraction]:
    """Format and frame rate of a raw file, from the caller or else from the name.

    pix_fmt: one of PIXEL_FORMATS. Raises InputError when neither gives a value.
    """
    name = parse_name(file_name.rpartition(".")[0] or file_name)
    pixel_format, depth = PIXEL_FORMATS[pix_fmt] if pix_fmt else (name.pixel_format, name.bit_depth)
    size, fps = size or name.size, fps if fps is not None else name.fps
    if missing := [words for words, value in zip(_TOLD, (size, fps, pixel_format), strict=True) if value is None]:
        whats, options = zip(*missing, strict=True)
        raise InputError(
            f"{file_name}: {_listed(whats)} of this raw file {'is' if len(whats) == 1 else 'are'} unknown; give "
            f"{' '.join(options)}, or name the file like {EXAMPLE_NAME}"
        )
    if depth not in BIT_DEPTHS:
        raise InputError(f"{file_name}: {depth} bits per sample are not supported, only 8 or 10; convert it first")
    assert size is not None and fps is not None and pixel_format is not None and depth is not None
    return make_format(file_name, size, pixel_format, depth), check_rate(file_name, fps)


def make_format(
    file_name: str, size: tuple[int, int], pixel_format: PixelFormat = PixelFormat.YUV420, depth: int = 8
) -> VideoFormat:
    """VideoFormat of a file with this (width, height); raises InputError when out of bounds."""
    try:
        return VideoFormat(size[1], size[0], pixel_format, depth)
    except ConfigError as error:
        raise InputError(f"{file_name}: {error}") from error


def check_rate(file_name: str, fps: Fraction) -> Fraction:
    """The rate itself; raises InputError when it is out of range."""
    if problem := problem_of(fps):
        raise InputError(f"{file_name}: frame rate {fps} is not supported; {problem} (--fps)")
    return fps


def _listed(whats: tuple[str, ...]) -> str:
    """size; size and rate; size, rate and format."""
    *most, last = whats
    return f"{', '.join(most)} and {last}" if most else last


def bytes_per_frame(format: VideoFormat) -> int:
    return format.n_samples * _sample_type(format).itemsize


def frame_to_bytes(frame: Frame) -> bytes:
    """The frame as bytes of a raw file."""
    sample = _sample_type(frame.format)
    if frame.format.pixel_format is PixelFormat.RGB:
        return np.stack(frame.planes, axis=-1).astype(sample).tobytes()
    return b"".join(plane.astype(sample).tobytes() for plane in frame.planes)


def frame_from_bytes(data: bytes, format: VideoFormat) -> Frame:
    """Inverse of frame_to_bytes; raises InputError for samples above the format's peak."""
    samples = np.frombuffer(data, dtype=_sample_type(format)).astype(np.uint16)
    highest = int(samples.max())
    if highest > format.peak:
        raise InputError(f"a sample of {highest} is above {format.peak}, the maximum for {format.bit_depth} bits")
    if format.pixel_format is PixelFormat.RGB:
        packed = samples.reshape(format.height, format.width, 3)
        return Frame((_channel(packed, 0), _channel(packed, 1), _channel(packed, 2)), format)
    planes, start = [], 0
    for height, width in format.plane_shapes:
        planes.append(samples[start : start + height * width].reshape(height, width))
        start += height * width
    return Frame((planes[0], planes[1], planes[2]), format)


def _channel(packed: NDArray[np.uint16], index: int) -> Plane:
    return np.ascontiguousarray(packed[..., index])


def _sample_type(format: VideoFormat) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    return np.dtype(np.uint8) if format.bit_depth == 8 else np.dtype("<u2")
