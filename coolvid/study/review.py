"""A video to inspect a stream visually: source, decoded picture and amplified difference, each under a text bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid.api import checked_threads
from coolvid.bitstream.packet import PacketInfo
from coolvid.bitstream.stream import StreamReader
from coolvid.decoding.schedule import decode_stream
from coolvid.errors import InputError, MissingExtra, StreamError, within
from coolvid.events import DecodeStarted, Listener, ignore
from coolvid.files import refuse_overwriting
from coolvid.media import Source, SourceSpec, open_sink, open_source, sink_names
from coolvid.picture.quality import bpp, psnr, psnr_planes
from coolvid.picture.types import MAX_PIXELS, ColorInfo, Frame, PixelFormat, VideoFormat
from coolvid.values import fit

from .originals import originals

DEFAULT_AMPLIFY = 4.0
MIN_TILE_WIDTH = 320
MAX_ROW_WIDTH = 4096
"""Above this width, the three pictures are stacked vertically: the limit of H.264 hardware decoders."""

_GAP = 8
_BLACK, _WHITE, _NEUTRAL = 16, 235, 128
_LARGEST_TEXT, _SMALLEST_TEXT = 48, 8
_LINE_HEIGHT = 1.35
_BT709, _LIMITED = 1, 1
_BT709_FROM_RGB = np.array(
    [[0.2126, 0.7152, 0.0722], [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5], [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748]]
)

Canvas = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]
"""An 8-bit 4:2:0 picture of even size."""


def make_review(
    stream: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    source_spec: SourceSpec = SourceSpec(),
    amplify: float = DEFAULT_AMPLIFY,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    listen: Listener = ignore,
) -> int:
    """Write source, decoded picture and difference of every frame side by side; returns the number of frames.

    The difference is decoded minus source, times amplify (0.1..256), around mid grey, in every plane. A bar above shows
    frame number, type, bits and PSNR. Small pictures are enlarged by an integer factor; the video is 8-bit 4:2:0, which
    every player opens. source_spec: how to read the source. max_pixels: as in decode(). Raises MissingExtra without
    Pillow, InputError when the source does not match the stream, and the errors of decoding and writing.
    """
    threads = checked_threads(threads, stream=stream, source=source, out=out)
    within("amplify", fit(amplify, float, "amplify"), 0.1, 256)
    for read in (stream, source):
        refuse_overwriting(read, *sink_names(out))
    with StreamReader(stream, max_pixels=max_pixels) as reader:
        header, packets = reader.header, sorted(reader.packets, key=lambda packet: packet.display_index)
        if not packets:
            raise StreamError("the stream has no complete frame yet")
        indices = [packet.display_index for packet in packets]
        with open_source(source, source_spec, indices[-1] + 1) as frames:
            _check_same(Path(stream).name, header.format, frames)
            board = Board.of(header.format, packets, amplify)
            color = _shown_color(header.format, header.color)
            with open_sink(out, board.format, header.fps, color, len(packets)) as sink:
                listen(DecodeStarted(len(packets), len(packets)))
                decoded = decode_stream(reader, threads=threads, listen=listen)
                for packet, picture, original in zip(packets, decoded, originals(frames, indices), strict=True):
                    sink.write(board.draw(packet, original, picture))
    return len(packets)


def difference(source: Frame, decoded: Frame, amplify: float) -> Frame:
    """decoded - source, times amplify, around mid grey in every plane, clipped."""
    format, middle = source.format, (source.format.peak + 1) // 2
    planes = (
        np.clip(np.round(middle + amplify * (b.astype(np.int64) - a)), 0, format.peak).astype(np.uint16)
        for a, b in zip(source.planes, decoded.planes, strict=True)
    )
    first, second, third = planes
    return Frame((first, second, third), format)


@dataclass(frozen=True)
class Board:
    """The layout of a review. scale: integer enlargement; bar_height in pixels; font: from Pillow."""

    source: VideoFormat
    scale: int
    bar_height: int
    is_row: bool
    amplify: float
    font: Any

    @classmethod
    def of(cls, source: VideoFormat, packets: Sequence[PacketInfo], amplify: float) -> Board:
        """The layout for pictures of this format, with the largest text that fits all packets. Raises MissingExtra."""
        scale = -(-MIN_TILE_WIDTH // source.width)
        width = _even(source.width) * scale
        font = _font(_widest_lines(source, packets, amplify), width - 2 * _GAP)
        bar_height = _even(round(2 * _LINE_HEIGHT * font.size) + _GAP)
        return cls(source, scale, bar_height, 3 * width + 2 * _GAP <= MAX_ROW_WIDTH, amplify, font)

    @property
    def format(self) -> VideoFormat:
        """The format of the review."""
        width = _even(self.source.width) * self.scale
        height = _even(self.source.height) * self.scale + self.bar_height
        if self.is_row:
            return VideoFormat(height, 3 * width + 2 * _GAP, PixelFormat.YUV420, 8)
        return VideoFormat(3 * height + 2 * _GAP, width, PixelFormat.YUV420, 8)

    def draw(self, packet: PacketInfo, source: Frame, decoded: Frame) -> Frame:
        """One frame of the review."""
        texts = captions(packet, source, decoded, self.amplify)
        pictures = (source, decoded, difference(source, decoded, self.amplify))
        tiles = [self._tile(picture, lines) for picture, lines in zip(pictures, texts, strict=True)]
        y, u, v = (
            self._join([tile[i] for tile in tiles], _BLACK if i == 0 else _NEUTRAL, _GAP if i == 0 else _GAP // 2)
            for i in range(3)
        )
        return Frame((y, u, v), self.format)

    def _tile(self, picture: Frame, lines: tuple[str, str]) -> Canvas:
        """A picture under its bar."""
        y, u, v = _shown(picture, self.scale)
        bar = self._bar(lines, y.shape[1])
        neutral = np.full((self.bar_height // 2, u.shape[1]), _NEUTRAL, dtype=np.uint16)
        return np.vstack((bar, y)), np.vstack((neutral, u)), np.vstack((neutral, v))

    def _bar(self, lines: tuple[str, str], width: int) -> NDArray[np.uint16]:
        from PIL import Image, ImageDraw  # type: ignore[import-not-found, unused-ignore]

        image = Image.new("L", (width, self.bar_height), _BLACK)
        draw = ImageDraw.Draw(image)
        for i, line in enumerate(lines):
            draw.text((_GAP, _GAP // 2 + i * _LINE_HEIGHT * self.font.size), line, fill=_WHITE, font=self.font)
        return np.asarray(image).astype(np.uint16)

    def _join(self, planes: list[NDArray[np.uint16]], fill: int, gap: int) -> NDArray[np.uint16]:
        axis = 1 if self.is_row else 0
        shape = (planes[0].shape[0], gap) if self.is_row else (gap, planes[0].shape[1])
        between = np.full(shape, fill, dtype=np.uint16)
        return np.concatenate((planes[0], between, planes[1], between, planes[2]), axis=axis)


def captions(packet: PacketInfo, source: Frame, decoded: Frame, amplify: float) -> tuple[tuple[str, str], ...]:
    """Two lines for each of the three pictures."""
    names = "RGB" if source.format.pixel_format is PixelFormat.RGB else "YUV"
    planes = "  ".join(f"{n} {db:.2f}" for n, db in zip(names, psnr_planes(source, decoded), strict=True))
    return (
        ("source", f"frame {packet.display_index}  {packet.frame_type.name}"),
        ("decoded", f"{_bits(packet, source.format)}  {psnr(source, decoded):.2f} dB"),
        (f"difference x{amplify:g}", f"{planes} dB"),
    )


def _bits(packet: PacketInfo, format: VideoFormat) -> str:
    return f"{8 * packet.n_bytes:,} bits  {bpp(packet.n_bytes, format):.4f} bpp"


def _widest_lines(format: VideoFormat, packets: Sequence[PacketInfo], amplify: float) -> list[str]:
    """The widest texts that captions() can return."""
    db = "100.00"
    largest = max(packets, key=lambda packet: packet.n_bytes)
    return [
        f"frame {len(packets)}  B",
        f"{_bits(largest, format)}  {db} dB",
        f"difference x{amplify:g}",
        f"Y {db}  U {db}  V {db} dB",
    ]


def _font(lines: Sequence[str], width: int) -> Any:
    """Pillow's default font at the largest size that fits all lines. Raises MissingExtra without Pillow or FreeType."""
    try:
        from PIL import ImageFont, features  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra("a review needs Pillow to draw text: pip install 'coolvid[review]'") from error
    if not features.check("freetype2"):
        raise MissingExtra("this Pillow lacks FreeType, which draws the text: pip install --force-reinstall pillow")
    for size in range(_LARGEST_TEXT, _SMALLEST_TEXT, -1):
        font = ImageFont.load_default(size)
        if all(font.getlength(line) <= width for line in lines):
            break
    return font


def _check_same(stream: str, format: VideoFormat, source: Source) -> None:
    if source.format != format:
        theirs, ours = (
            f"{f.width}x{f.height} {f.bit_depth}-bit {f.pixel_format.value}" for f in (source.format, format)
        )
        raise InputError(
            f"{source.name} is {theirs}, but {stream} is {ours}; give the source that was encoded, with the same "
            "start, crop and scale"
        )


def _shown_color(format: VideoFormat, color: ColorInfo) -> ColorInfo:
    """Colour description of the result of _shown()."""
    if format.pixel_format is PixelFormat.RGB:
        return ColorInfo(color.primaries, color.transfer, _BT709, _LIMITED)
    return color


def _shown(frame: Frame, scale: int) -> Canvas:
    """The frame in 8-bit 4:2:0, enlarged, of even size."""
    planes = _to_yuv(frame) if frame.format.pixel_format is PixelFormat.RGB else _to_8_bits(frame)
    height, width = (_even(side) for side in planes[0].shape)
    luma = _enlarge(np.pad(planes[0], ((0, height - frame.height), (0, width - frame.width)), mode="edge"), scale)
    if frame.format.pixel_format.is_subsampled:
        return luma, _enlarge(planes[1], scale), _enlarge(planes[2], scale)
    padding = ((0, height - frame.height), (0, width - frame.width))
    u, v = (_halve(_enlarge(np.pad(plane, padding, mode="edge"), scale)) for plane in planes[1:])
    return luma, u, v


def _to_8_bits(frame: Frame) -> list[NDArray[np.uint16]]:
    excess = frame.format.bit_depth - 8
    if not excess:
        return list(frame.planes)
    return [np.minimum((plane + (1 << excess >> 1)) >> excess, 255).astype(np.uint16) for plane in frame.planes]


def _to_yuv(frame: Frame) -> list[NDArray[np.uint16]]:
    """RGB to 8-bit YUV: BT.709, limited range."""
    rgb = np.stack([plane / frame.format.peak for plane in frame.planes])
    y, u, v = np.tensordot(_BT709_FROM_RGB, rgb, axes=1)
    return [np.round(plane).astype(np.uint16) for plane in (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)]


def _enlarge(plane: NDArray[np.uint16], scale: int) -> NDArray[np.uint16]:
    return plane.repeat(scale, axis=0).repeat(scale, axis=1)


def _halve(plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Means of 2x2 blocks of a plane of even size."""
    total = plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint16)


def _even(side: int) -> int:
    return side + side % 2
