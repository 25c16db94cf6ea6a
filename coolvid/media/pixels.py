"""PyAV pictures <-> Frames: which formats are read exactly, and how others are converted.

Read exactly: 4:2:0 and 4:4:4 with 8 or 10 bits, RGB with 8 or 10 bits, and grey (as 4:2:0 with neutral chroma).
Other formats of up to 10 bits are converted to the nearest of these that keeps their resolution: 4:2:2 becomes 4:4:4,
alpha is dropped (colours stay, however transparent), palettes become RGB. More than 10 bits are rejected.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from coolvid.errors import InputError
from coolvid.picture.types import COLOR_POINTS, ColorInfo, Frame, PixelFormat, Plane, VideoFormat

from .turning import display_matrix

LIMITED, FULL = 1, 2
UNSPECIFIED = 2
_HD_LINES = 720
_EXACTLY = 0x2000 | 0x40000 | 0x80000
SWSCALE, SWSCALE_AREA = 0x4 | _EXACTLY, 0x20 | _EXACTLY
"""Flags for swscale, from libswscale/swscale.h: SWS_BICUBIC, or SWS_AREA for downscaling, with FULL_CHR_H_INT,
ACCURATE_RND and BITEXACT.

Without the last two, results differ between machines and even between runs. With them but without FULL_CHR_H_INT,
limited-range white becomes 253."""

_EXACT: dict[str, tuple[PixelFormat, int]] = {
    "yuv420p": (PixelFormat.YUV420, 8),
    "yuvj420p": (PixelFormat.YUV420, 8),
    "yuv420p10le": (PixelFormat.YUV420, 10),
    "yuv444p": (PixelFormat.YUV444, 8),
    "yuvj444p": (PixelFormat.YUV444, 8),
    "yuv444p10le": (PixelFormat.YUV444, 10),
    "rgb24": (PixelFormat.RGB, 8),
    "gbrp": (PixelFormat.RGB, 8),
    "gbrp10le": (PixelFormat.RGB, 10),
    "gray": (PixelFormat.YUV420, 8),
    "gray10le": (PixelFormat.YUV420, 10),
}
_WRITTEN = {
    (PixelFormat.YUV420, 8): "yuv420p",
    (PixelFormat.YUV420, 10): "yuv420p10le",
    (PixelFormat.YUV444, 8): "yuv444p",
    (PixelFormat.YUV444, 10): "yuv444p10le",
    (PixelFormat.RGB, 8): "gbrp",
    (PixelFormat.RGB, 10): "gbrp10le",
}
_PLANE_ORDER = {"gbrp": (2, 0, 1), "gbrp10le": (2, 0, 1)}


def nearest_format(name: str) -> str:
    """The exact format in which a picture of format `name` is read.

    Raises InputError for more than 10 bits per sample and for formats without samples in memory.
    """
    if name in _EXACT:
        return name
    described = av.VideoFormat(name)
    bits = max((component.bits for component in described.components), default=0)
    if not 0 < bits <= 10:
        raise InputError(
            f"pixel format {name} ({bits} bits per sample) is not supported; convert it to 8 or 10 bits first: "
            "ffmpeg -i FILE -pix_fmt yuv420p10le CONVERTED.mkv"
        )
    ten = bits > 8
    if described.is_rgb or described.has_palette or described.is_bayer:
        return "gbrp10le" if ten else "rgb24"
    if sum(not component.is_alpha for component in described.components) < 3:
        return "gray10le" if ten else "gray"
    halved = described.chroma_width(64) == 32 and described.chroma_height(64) == 32
    layout = "420" if halved else "444"
    return f"yuv{layout}p10le" if ten else f"yuv{'j' if name.startswith('yuvj') else ''}{layout}p"


def format_of(picture: av.VideoFrame, file_name: str) -> tuple[PixelFormat, int]:
    """Pixel format and bit depth in which a picture is read; raises InputError with the file's name."""
    try:
        return _EXACT[nearest_format(picture.format.name)]
    except InputError as error:
        raise InputError(f"{file_name}: {error}") from error


def is_grey(picture: av.VideoFrame) -> bool:
    """Whether a picture of a known format has no colour. Raises InputError for formats that are not read."""
    return nearest_format(picture.format.name).startswith("gray")


def color_of(picture: av.VideoFrame) -> ColorInfo:
    """The colour description of a picture. Formats that imply full range (yuvj420p, grey) have range 2."""
    range_ = int(getattr(picture, "color_range", 0))
    name = picture.format.name
    if name.startswith("yuvj") or (range_ == 0 and name.startswith(("gray", "ya", "mono"))):
        range_ = FULL
    return ColorInfo(
        primaries=int(getattr(picture, "color_primaries", UNSPECIFIED)),
        transfer=int(getattr(picture, "color_trc", UNSPECIFIED)),
        matrix=int(getattr(picture, "colorspace", UNSPECIFIED)),
        range=range_ if range_ in (LIMITED, FULL) else 0,
    )


def shown_size(picture: av.VideoFrame, file_name: str) -> tuple[int, int]:
    """(width, height) of the upright picture; raises InputError with the file's name if it cannot be rotated."""
    turn = _turn(picture, file_name)
    size = (picture.height, picture.width) if turn.swap else (picture.width, picture.height)
    halved = format_of(picture, file_name)[0].is_subsampled
    if halved and ((turn.flip_x and size[0] % 2) or (turn.flip_y and size[1] % 2)):
        raise InputError(
            f"{file_name}: its pictures are rotated or mirrored, and 4:2:0 of odd size ({size[0]}x{size[1]}) cannot "
            "be turned upright without loss; convert it first: ffmpeg -i FILE UPRIGHT.mkv"
        )
    return size


class _Turn(NamedTuple):
    """Makes stored planes upright: swap rows and columns, then mirror along x, along y."""

    swap: bool
    flip_x: bool
    flip_y: bool

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        plane = plane.T if self.swap else plane
        return plane[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def _turn(picture: av.VideoFrame, file_name: str = "") -> _Turn:
    """The rotation in a picture's display matrix: x' = a x + c y, y' = b x + d y, in 1/65536."""
    matrix = display_matrix(picture)
    if matrix is None:
        return _Turn(False, False, False)
    a, b, _, c, d, *_ = matrix
    if b == c == 0 and a and d:
        return _Turn(False, a < 0, d < 0)
    if a == d == 0 and b and c:
        return _Turn(True, c < 0, b < 0)
    raise InputError(
        f"{file_name}: its pictures are rotated by {picture.rotation} degrees, but only multiples of 90 are supported; "
        "convert it first: ffmpeg -i FILE UPRIGHT.mkv"
    )


def to_frame(picture: av.VideoFrame, format: VideoFormat) -> Frame:
    """The picture's code values, upright; `format` is that of the upright picture (see shown_size, format_of)."""
    turn = _turn(picture)
    first, second, third = (_own(turn.of(plane)) for plane in _stored_planes(picture, format))
    return Frame((first, second, third), format)


def _stored_planes(picture: av.VideoFrame, format: VideoFormat) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The y, u, v or r, g, b planes as stored."""
    name = nearest_format(picture.format.name)
    if name != picture.format.name:
        range_ = color_of(picture).range or None
        picture = picture.reformat(format=name, src_color_range=range_, dst_color_range=range_, interpolation=SWSCALE)
    if name == "rgb24":
        packed = _rows(picture.planes[0], np.dtype(np.uint8), picture.height, 3 * picture.width)
        colors = packed.reshape(picture.height, picture.width, 3)
        return colors[..., 0], colors[..., 1], colors[..., 2]
    sample: np.dtype[Any] = np.dtype(np.uint8) if format.bit_depth == 8 else np.dtype("<u2")
    planes = [_rows(plane, sample, plane.height, plane.width) for plane in picture.planes]
    if name.startswith("gray"):
        if format.pixel_format is PixelFormat.RGB:
            return planes[0], planes[0], planes[0]
        shape = format.pixel_format.plane_shapes(picture.height, picture.width)[1]
        planes += [np.full(shape, 1 << (format.bit_depth - 1), dtype=sample)] * 2
    first, second, third = _PLANE_ORDER.get(name, (0, 1, 2))
    return planes[first], planes[second], planes[third]


class Scaler:
    """Resizes frames to the size of a format: every plane separately, bicubic, with swscale."""

    def __init__(self, format: VideoFormat) -> None:
        self.format = format
        self._reformatters = tuple(VideoReformatter() for _ in range(3))

    def resize(self, frame: Frame) -> Frame:
        """The frame, resized to the scaler's format, which may differ only in size."""
        name, sample = ("gray", np.dtype(np.uint8)) if self.format.bit_depth == 8 else ("gray10le", np.dtype("<u2"))
        planes = []
        for plane, shape, scaler in zip(frame.planes, self.format.plane_shapes, self._reformatters, strict=True):
            picture = av.VideoFrame(plane.shape[1], plane.shape[0], name)
            _fill(picture.planes[0], plane, sample.itemsize)
            resized = scaler.reformat(picture, shape[1], shape[0], name, interpolation=SWSCALE)
            planes.append(_own(_rows(resized.planes[0], sample, *shape)))
        return Frame((planes[0], planes[1], planes[2]), self.format)


def from_frame(frame: Frame, color: ColorInfo) -> av.VideoFrame:
    """The frame as a picture with the same samples, tagged with its colour description."""
    name = _WRITTEN[frame.format.pixel_format, frame.format.bit_depth]
    picture = av.VideoFrame(frame.width, frame.height, name)
    order = _PLANE_ORDER.get(name, (0, 1, 2))
    for channel, plane in zip(order, (frame.planes[i] for i in range(3)), strict=True):
        _fill(picture.planes[channel], plane, 1 if frame.format.bit_depth == 8 else 2)
    mark(picture, color)
    return picture


def to_rgb(frame: Frame, color: ColorInfo, name: str, **scaling: Any) -> av.VideoFrame:
    """The frame as an RGB picture of full range in the format `name`; scaling: width, height, interpolation of PyAV.

    YUV is converted with the frame's matrix and range; if unspecified, with matrix_or_usual() and limited range.
    """
    scaling.setdefault("interpolation", SWSCALE)
    if frame.format.pixel_format is PixelFormat.RGB:
        return from_frame(frame, replace(color, range=FULL)).reformat(format=name, **scaling)
    return from_frame(frame, color).reformat(
        format=name,
        src_colorspace=matrix_or_usual(color, frame.height),
        src_color_range=color.range or LIMITED,
        dst_color_range=FULL,
        **scaling,
    )


def mark(target: Any, color: ColorInfo) -> None:
    """Tag a picture or encoder with a colour description, as far as this PyAV supports it; unknown code points become
    unspecified."""
    facts = {
        "color_primaries": _point("primaries", color.primaries),
        "color_trc": _point("transfer", color.transfer),
        "colorspace": _point("matrix", color.matrix),
        "color_range": color.range if color.range in (LIMITED, FULL) else 0,
    }
    for name, value in facts.items():
        if hasattr(target, name):
            setattr(target, name, value)


def matrix_or_usual(color: ColorInfo, height: int) -> int:
    """The matrix for conversion between YUV and RGB: the given one, else BT.709 from 720 lines on, BT.601 below."""
    if color.matrix in (1, 4, 5, 6, 7, 9):
        return color.matrix
    return 1 if height >= _HD_LINES else 5


def _point(kind: str, value: int) -> int:
    return value if value and value in COLOR_POINTS[kind] else UNSPECIFIED


def _own(plane: NDArray[Any]) -> Plane:
    return np.ascontiguousarray(plane, dtype=np.uint16)


def _rows(plane: Any, sample: np.dtype[Any], height: int, width: int) -> NDArray[Any]:
    """The samples [height, width] of a plane, without the padding at the end of its lines."""
    lines = np.frombuffer(plane, dtype=np.uint8)[: plane.line_size * height].reshape(height, plane.line_size)
    return np.ascontiguousarray(lines[:, : width * sample.itemsize]).view(sample)


def _fill(target: Any, plane: Plane, sample_bytes: int) -> None:
    lines = np.zeros((target.height, target.line_size), dtype=np.uint8)
    samples = plane.astype(np.uint8 if sample_bytes == 1 else "<u2").view(np.uint8)
    lines[:, : plane.shape[1] * sample_bytes] = samples.reshape(target.height, -1)
    buffer = np.zeros(target.buffer_size, dtype=np.uint8)
    buffer[: lines.size] = lines.ravel()
    target.update(buffer.tobytes())
