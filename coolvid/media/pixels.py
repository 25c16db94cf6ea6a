"""Pictures of PyAV <-> Frames: which formats are taken as they are, and what the others become.

Taken exactly: 4:2:0 and 4:4:4 with 8 or 10 bits, RGB with 8 or 10 bits, and grey (as 4:2:0 with neutral chroma).
Other formats of up to 10 bits go to the nearest of these that keeps their resolution: 4:2:2 becomes 4:4:4,
alpha is dropped (the colour under it stays, however transparent), palettes become RGB. More than 10 bits are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from coolvid.errors import InputError
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, Plane, VideoFormat

LIMITED, FULL = 1, 2
UNSPECIFIED = 2
_HD_LINES = 720
_EXACTLY = 0x2000 | 0x40000 | 0x80000
SWSCALE, SWSCALE_AREA = 0x4 | _EXACTLY, 0x20 | _EXACTLY
"""How swscale converts and resizes: SWS_BICUBIC, or SWS_AREA to make pictures smaller, with FULL_CHR_H_INT,
ACCURATE_RND, BITEXACT of libswscale/swscale.h.

Without the last two, results differ between machines, and even runs; with them but without FULL_CHR_H_INT, white of
limited range becomes 253."""

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
            f"pixel format {name} ({bits} bits a sample) is not supported; convert it to 8 or 10 bits first, "
            "as ffmpeg -i FILE -pix_fmt yuv420p10le CONVERTED.mkv"
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


def shown_size(picture: av.VideoFrame, file_name: str) -> tuple[int, int]:
    """(width, height) of the upright picture; raises InputError, with the file's name, where it cannot be turned."""
    turn = _turn(picture, file_name)
    size = (picture.height, picture.width) if turn.swap else (picture.width, picture.height)
    halved = format_of(picture, file_name)[0].is_subsampled
    if halved and ((turn.flip_x and size[0] % 2) or (turn.flip_y and size[1] % 2)):
        raise InputError(
            f"{file_name}: its pictures are turned or mirrored, which 4:2:0 of odd size ({size[0]}x{size[1]}) "
            "cannot be without loss; convert it first: ffmpeg -i FILE UPRIGHT.mkv"
        )
    return size


class _Turn(NamedTuple):
    """How stored planes become upright: rows and columns swapped, then mirrored along x, along y."""

    swap: bool
    flip_x: bool
    flip_y: bool

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        plane = plane.T if self.swap else plane
        return plane[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def _turn(picture: av.VideoFrame, file_name: str = "") -> _Turn:
    """What the display matrix of a picture asks for: x' = a x + c y, y' = b x + d y, in 1/65536."""
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn(False, False, False)
    a, b, _, c, d, *_ = (int(entry) for entry in np.frombuffer(bytes(matrix), "=i4"))
    if b == c == 0 and a and d:
        return _Turn(False, a < 0, d < 0)
    if a == d == 0 and b and c:
        return _Turn(True, c < 0, b < 0)
    raise InputError(
        f"{file_name}: its pictures are to be shown turned by {picture.rotation} degrees, and only multiples of 90 are "
        "supported; convert it first: ffmpeg -i FILE UPRIGHT.mkv"
    )


def to_frame(picture: av.VideoFrame, format: VideoFormat) -> Frame:
    """The picture's code values, upright; `format` is that of the upright picture (see shown_size, format_of)."""
    turn = _turn(picture)
    first, second, third = (_own(turn.of(plane)) for plane in _stored_planes(picture, format))
    return Frame((first, second, third), format)


def _stored_planes(picture: av.VideoFrame, format: VideoFormat) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """y-u-v or r-g-b as they are stored."""
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
        shape = PixelFormat.YUV420.plane_shapes(picture.height, picture.width)[1]
        planes += [np.full(shape, 1 << (format.bit_depth - 1), dtype=sample)] * 2
    first, second, third = _PLANE_ORDER.get(name, (0, 1, 2))
    return planes[first], planes[second], planes[third]


class Scaler:
    """Resizes frames to the size of a format: every plane by itself, bicubic, by swscale."""

    def __init__(self, format: VideoFormat) -> None:
        self.format = format
        self._reformatters = tuple(VideoReformatter() for _ in range(3))

    def resize(self, frame: Frame) -> Frame:
        """The frame, which differs from the scaler's format in its size only, in that size."""
        name, sample = ("gray", np.dtype(np.uint8)) if self.format.bit_depth == 8 else ("gray10le", np.dtype("<u2"))
        planes = []
        for plane, shape, scaler in zip(frame.planes, self.format.plane_shapes, self._reformatters, strict=True):
            picture = av.VideoFrame(plane.shape[1], plane.shape[0], name)
            _fill(picture.planes[0], plane, sample.itemsize)
            resized = scaler.reformat(picture, shape[1], shape[0], name, interpolation=SWSCALE)
            planes.append(_own(_rows(resized.planes[0], sample, *shape)))
        return Frame((planes[0], planes[1], planes[2]), self.format)


def from_frame(frame: Frame, color: ColorInfo) -> av.VideoFrame:
    """The frame as a picture of the same samples, marked with its colour facts."""
    name = _WRITTEN[frame.format.pixel_format, frame.format.bit_depth]
    picture = av.VideoFrame(frame.width, frame.height, name)
    order = _PLANE_ORDER.get(name, (0, 1, 2))
    for channel, plane in zip(order, (frame.planes[i] for i in range(3)), strict=True):
        _fill(picture.planes[channel], plane, 1 if frame.format.bit_depth == 8 else 2)
    mark(picture, color)
    return picture


def to_rgb(frame: Frame, color: ColorInfo, name: str, **scaling: Any) -> av.VideoFrame:
    """The frame as an RGB picture of full range in the format `name`; scaling: width, height, interpolation of PyAV.

    YUV is converted by the frame's matrix and range; where they are unspecified, see matrix_or_usual(), limited range.
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
