"""How the pictures of a source should be shown: pixel shape, place of the chroma samples, HDR metadata."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import av
from av.container import InputContainer

from coolvid.errors import ConfigError
from coolvid.picture.types import ChromaSiting, DisplayInfo, LightLevel, MasteringDisplay, bounded_aspect

from .pixels import format_of
from .side_data import Kind, side_data
from .turning import display_matrix

_IMAGE_FORMATS = ("image2", "_pipe")
# How FFmpeg writes chroma siting: in y4m a label, in Matroska the elements ChromaSitingHorz and ChromaSitingVert.
_Y4M_LABEL, _MATROSKA_ELEMENTS = rb" C420(jpeg|mpeg2|paldv)", rb"\x55\xb7\x81([\1\2]\x55\xb8\x81[\1\2])"
_SITINGS = {
    b"jpeg": ChromaSiting.CENTER,
    b"mpeg2": ChromaSiting.LEFT,
    b"paldv": ChromaSiting.TOP_LEFT,
    b"\1\x55\xb8\x81\1": ChromaSiting.TOP_LEFT,
    b"\1\x55\xb8\x81\2": ChromaSiting.LEFT,
    b"\2\x55\xb8\x81\1": ChromaSiting.TOP,
    b"\2\x55\xb8\x81\2": ChromaSiting.CENTER,
}
T = TypeVar("T")
_MASTERING = struct.Struct("=22i")
_LIGHT = struct.Struct("=2I")


def display_of(container: InputContainer, stream: av.VideoStream, picture: av.VideoFrame, name: str) -> DisplayInfo:
    """What a stream and its first picture state, for upright pictures; name: the file's name.

    The pixel density of an image is about printing and not read. Siting is that of 4:2:0. Turning moves it, so that of
    turned pictures is not stated, unless it is the center.
    """
    matrix, is_image = display_matrix(picture), container.format.name.endswith(_IMAGE_FORMATS)
    is_turned = matrix is not None and not (matrix[0] > 0 and matrix[4] > 0)
    siting = _siting(container, stream) if format_of(picture, name)[0].is_subsampled else ChromaSiting.UNSPECIFIED
    if is_turned and siting is not ChromaSiting.CENTER:
        siting = ChromaSiting.UNSPECIFIED
    aspect = Fraction(1) if is_image else _aspect(stream)
    swaps_sides = matrix is not None and matrix[0] == 0
    return DisplayInfo(1 / aspect if swaps_sides else aspect, siting, *_hdr(picture))


def _aspect(stream: av.VideoStream) -> Fraction:
    """Width / height of a pixel; 1 where the file does not say."""
    aspect = stream.sample_aspect_ratio
    return bounded_aspect(aspect) if aspect and aspect > 0 else Fraction(1)


def _siting(container: InputContainer, stream: av.VideoStream) -> ChromaSiting:
    """PyAV does not expose the siting, so FFmpeg writes the head of a file for a copy of the stream."""
    is_y4m = container.format.name == "yuv4mpegpipe"
    head = io.BytesIO()
    try:
        with av.open(head, "w", format="yuv4mpegpipe" if is_y4m else "matroska") as copy:
            copy.add_stream_from_template(stream, opaque=True)
            copy.start_encoding()
    except (av.error.FFmpegError, ValueError):  # a codec that this container does not hold
        return ChromaSiting.UNSPECIFIED
    found = re.search(_Y4M_LABEL if is_y4m else _MATROSKA_ELEMENTS, head.getvalue())
    return _SITINGS[found[1]] if found else ChromaSiting.UNSPECIFIED


def _hdr(picture: av.VideoFrame) -> tuple[MasteringDisplay | None, LightLevel | None]:
    """The mastering display and light level of a picture, whether its file or its codec states them."""
    mastering = side_data(picture, Kind.MASTERING_DISPLAY_METADATA)
    light = side_data(picture, Kind.CONTENT_LIGHT_LEVEL)
    return (
        None if mastering is None else _mastering(*_MASTERING.unpack_from(mastering)),
        None if light is None else _stated(LightLevel, *_LIGHT.unpack_from(light)),
    )


def _mastering(*numbers: int) -> MasteringDisplay | None:
    """AVMasteringDisplayMetadata: numerators and denominators of r, g, b, white (x, y each), of the least and the
    greatest luminance, and whether colours and luminances are stated. Values beyond the standard's are not."""
    values = [n / d if d else 0.0 for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    points = [round(value * 50000) for value in values[:8]]
    colors = tuple(zip(points[::2], points[1::2], strict=True)) if numbers[20] else None
    luminance = tuple(round(value * 10000) for value in values[8:]) if numbers[21] else None
    found = _stated(MasteringDisplay, colors, None), _stated(MasteringDisplay, None, luminance)
    return _stated(MasteringDisplay, found[0] and found[0].colors, found[1] and found[1].luminance)


def _stated(kind: Callable[..., T], *values: Any) -> T | None:
    """The object of these values, None if they state nothing or lie outside its limits."""
    try:
        return kind(*values)
    except ConfigError:
        return None


def encoder_options(display: DisplayInfo, encoder: str) -> dict[str, str]:
    """Options of libx264 and libx265 that write the siting and HDR metadata."""
    siting, mastering, light = display.chroma_siting, display.mastering, display.light
    out = {} if siting is ChromaSiting.UNSPECIFIED else {"chroma_sample_location": siting.value}
    names: Any = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll")}[encoder]
    params = []
    if mastering is not None:  # zeros: not stated
        red, green, blue, white = mastering.colors or ((0, 0),) * 4
        least, greatest = mastering.luminance or (0, 0)
        places = zip(("G", "B", "R", "WP"), (green, blue, red, white), strict=True)
        params.append(f"{names[0]}={''.join(f'{tag}({x},{y})' for tag, (x, y) in places)}L({greatest},{least})")
    if light is not None:
        params.append(f"{names[1]}={light.max_cll},{light.max_fall}")
    return out | ({f"{encoder.removeprefix('lib')}-params": ":".join(params)} if params else {})
