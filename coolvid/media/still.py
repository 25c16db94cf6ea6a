"""One frame as a small lossless image for browsers."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext

from coolvid.picture.types import ColorInfo, Frame

from .pixels import SWSCALE_AREA, to_rgb

# (encoder, MIME type, pixel format, options), smallest result first.
_ENCODERS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("libwebp", "image/webp", "bgra", {"lossless": "1", "compression_level": "2"}),
    ("png", "image/png", "rgb24", {}),
)


def still(frame: Frame, color: ColorInfo, divisor: int = 1) -> tuple[str, bytes]:
    """(MIME type, file) of the frame in 8-bit RGB, its sides divided by `divisor` and rounded up: WebP, else PNG.

    Only the conversion to 8-bit RGB and the scaling lose information.
    """
    encoder, mime, name, options = next(each for each in _ENCODERS if each[0] in av.codecs_available)
    width, height = -(-frame.width // divisor), -(-frame.height // divisor)
    picture = to_rgb(frame, color, name, width=width, height=height, interpolation=SWSCALE_AREA)
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, name
    context.time_base, context.options = Fraction(1), dict(options)
    return mime, b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
