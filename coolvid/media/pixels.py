"""Pictures of PyAV <-> Frames: which formats are taken as they are, and what the others become.

Taken exactly: 4:2:0 and 4:4:4 with 8 or 10 bits, RGB with 8 or 10 bits, and grey (as 4:2:0 with neutral chroma).
Other formats of up to 10 bits go to the nearest of these that keeps their resolution: 4:2:2 becomes 4:4:4,
alpha is dropped, palettes become RGB. More than 10 bits are refused.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from coolvid.errors import InputError
from coolvid.types import ColorInfo, Frame, PixelFormat, Plane, VideoFormat

LIMITED, FULL = 1, 2
UNSPECIFIED = 2
_HD_LINES = 720

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
_KNOWN_POINTS = {
    "primaries": frozenset((1, *range(4, 13), 22)),
    "transfer": frozenset((1, *range(4, 19))),
    "matrix": frozenset((1, *range(4, 15))),
}


def nearest_format(name: str) -> str:
    """The exactly handled format that a picture of format `name` is read as.

    Raises InputError for more than 10 bits a sample and for formats without samples in memory.
    """
    if name in _EXACT:
        return name
    described = av.VideoFormat(name)
    bits = max((component.bits for component in described.components), default=0)
    if not 0 < bits <= 10:
        raise InputError(
            f"pixel format {name} ({bits} bits a sample) is not supported; convert it to 8 or 10 bits first"
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
    """Pixel format and bit depth a picture is read as; raises InputError with the file's name."""
    try:
        return _EXACT[nearest_format(picture.format.name)]
    except InputError as error:
        raise InputError(f"{file_name}: {error}") from error


def color_of(picture: av.VideoFrame) -> ColorInfo:
    """The colour facts a picture carries. Formats of full range by name (yuvj420p, grey) are range 2."""
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


def to_frame(picture: av.VideoFrame, format: VideoFormat) -> Frame:
    """The picture's code values; `format` is the one its file was opened with, and the picture has its size."""
    name = nearest_format(picture.format.name)
    if name != picture.format.name:
        range_ = color_of(picture).range or None
        picture = picture.reformat(format=name, src_color_range=range_, dst_color_range=range_)
    if name == "rgb24":
        packed = _rows(picture.planes[0], np.dtype(np.uint8), picture.height, 3 * picture.width)
        colors = packed.reshape(picture.height, picture.width, 3)
        return Frame((_own(colors[..., 0]), _own(colors[..., 1]), _own(colors[..., 2])), format)
    sample: np.dtype[Any] = np.dtype(np.uint8) if format.bit_depth == 8 else np.dtype("<u2")
    planes = [_own(_rows(plane, sample, plane.height, plane.width)) for plane in picture.planes]
    if name.startswith("gray"):
        neutral = np.full(format.plane_shapes[1], 1 << (format.bit_depth - 1), dtype=np.uint16)
        planes += [neutral, neutral.copy()]
    first, second, third = _PLANE_ORDER.get(name, (0, 1, 2))
    return Frame((planes[first], planes[second], planes[third]), format)


def from_frame(frame: Frame, color: ColorInfo) -> av.VideoFrame:
    """The frame as a picture of the same samples, marked with its colour facts."""
    name = _WRITTEN[frame.format.pixel_format, frame.format.bit_depth]
    picture = av.VideoFrame(frame.width, frame.height, name)
    order = _PLANE_ORDER.get(name, (0, 1, 2))
    for channel, plane in zip(order, (frame.planes[i] for i in range(3)), strict=True):
        _fill(picture.planes[channel], plane, 1 if frame.format.bit_depth == 8 else 2)
    mark(picture, color)
    return picture


def mark(target: Any, color: ColorInfo) -> None:
    """Set colour facts on a picture or encoder, where this PyAV offers them; unknown code points stay unspecified."""
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
    """The matrix to convert between YUV and RGB with: the given one, else BT.709 from 720 lines on, BT.601 below."""
    if color.matrix in (1, 4, 5, 6, 7, 9):
        return color.matrix
    return 1 if height >= _HD_LINES else 5


def _point(kind: str, value: int) -> int:
    return value if value in _KNOWN_POINTS[kind] else UNSPECIFIED


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
