"""Uncompressed files: reads and writes raw .yuv and .rgb, writes .y4m. All are bit exact."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from coolvid.errors import InputError, OutputError
from coolvid.files import check_writable, part_of
from coolvid.picture.types import ChromaSiting, ColorInfo, DisplayInfo, Frame, PixelFormat, VideoFormat

from .base import Sink, Source, check_readable
from .layout import bytes_per_frame, describe, frame_from_bytes, frame_to_bytes
from .source_spec import SourceSpec

_Y4M_CHROMA = {
    (PixelFormat.YUV420, 8): "420jpeg",
    (PixelFormat.YUV420, 10): "420p10",
    (PixelFormat.YUV444, 8): "444",
    (PixelFormat.YUV444, 10): "444p10",
}
_Y4M_SITING = {
    ChromaSiting.UNSPECIFIED: "420jpeg",
    ChromaSiting.CENTER: "420jpeg",
    ChromaSiting.LEFT: "420mpeg2",
    ChromaSiting.TOP_LEFT: "420paldv",
}
_MAX_Y4M_TERM = (1 << 31) - 1
_Y4M_RANGE = {1: " XCOLORRANGE=LIMITED", 2: " XCOLORRANGE=FULL"}


class RawSource(Source):
    """Raw frames, whose layout comes from the caller or from a name like NAME_WxH_FPSp_yuv420_8b.yuv."""

    def __init__(self, path: Path, spec: SourceSpec) -> None:
        check_readable(path)
        self.name = path.name
        self.format, self.fps = describe(path.name, spec.size, spec.fps, spec.pix_fmt)
        self.color = ColorInfo()
        self._frame_size = bytes_per_frame(self.format)
        self.n_frames = self._count(path.stat().st_size)
        self._path, self._next = path, 0
        self._file: BinaryIO = path.open("rb")

    def _count(self, file_size: int) -> int:
        count, over = divmod(file_size, self._frame_size)
        if over:
            f = self.format
            raise InputError(
                f"{self.name}: {file_size} bytes are {count} frames of {f.width}x{f.height} {f.pixel_format.value} at "
                f"{f.bit_depth} bits ({self._frame_size} bytes each) and {over} bytes more; check size and pixel format"
            )
        return count

    def __next__(self) -> Frame:
        assert self.n_frames is not None
        if self._next >= self.n_frames:
            raise StopIteration
        data = self._file.read(self._frame_size)
        if len(data) != self._frame_size:
            raise InputError(f"{self.name} is truncated in frame {self._next} of {self.n_frames}")
        self._next += 1
        try:
            return frame_from_bytes(data, self.format)
        except InputError as error:
            raise InputError(f"{self.name}, frame {self._next - 1}: {error}; check the pixel format") from error

    def skip(self, n: int) -> int:
        assert self.n_frames is not None
        self._next = min(n, self.n_frames)
        self._file.seek(self._next * self._frame_size)
        return self._next

    def close(self) -> None:
        self._file.close()


class RawSink(Sink):
    """Raw frames in sequence: planar .yuv, or packed .rgb."""

    _file: BinaryIO | None = None

    def _check_target(self) -> None:
        super()._check_target()
        is_rgb = self.format.pixel_format is PixelFormat.RGB
        if is_rgb != (self.path.suffix.lower() == ".rgb"):
            held, other = ("RGB", ".rgb, .png or .mp4") if is_rgb else ("YUV", ".yuv, .y4m or .mp4")
            raise OutputError(f"{self.path}: a {self.path.suffix} file cannot hold {held}; use {other}")

    def _open(self) -> None:
        self._file = part_of(self.path).open("wb")

    def _write(self, frame: Frame) -> None:
        assert self._file is not None, "enter the sink first"
        self._file.write(frame_to_bytes(frame))

    def _finish(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


class Y4mSink(RawSink):
    """YUV4MPEG2: raw planes after a line of text, which holds the range but no other colour description, the pixels'
    shape, and in 4:2:0 of 8 bits three chroma sitings."""

    def _check_target(self) -> None:
        check_writable(self.path)
        if self.format.pixel_format is PixelFormat.RGB:
            raise OutputError(f"{self.path}: a .y4m file cannot hold RGB; use .png or .mp4")
        check_y4m_rate(self.path, self.fps)

    def _held(self) -> DisplayInfo:
        return y4m_display(self.format, self.display)

    def _open(self) -> None:
        super()._open()
        assert self._file is not None
        self._file.write(y4m_header(self.format, self.fps, self.color, self.display))

    def _write(self, frame: Frame) -> None:
        assert self._file is not None, "enter the sink first"
        self._file.write(y4m_frame(frame))


def y4m_header(format: VideoFormat, fps: Fraction, color: ColorInfo, display: DisplayInfo = DisplayInfo()) -> bytes:
    """First line of a progressive .y4m file."""
    chroma, held = _Y4M_CHROMA[format.pixel_format, format.bit_depth], y4m_display(format, display)
    if chroma == "420jpeg":
        chroma = _Y4M_SITING[held.chroma_siting]
    rate, aspect = (f"{ratio.numerator}:{ratio.denominator}" for ratio in (fps, held.pixel_aspect))
    extra = _Y4M_RANGE.get(color.range, "")
    return f"YUV4MPEG2 W{format.width} H{format.height} F{rate} Ip A{aspect} C{chroma}{extra}\n".encode()


def check_y4m_rate(name: Path | str, fps: Fraction) -> None:
    """Raises OutputError for a rate that readers of y4m take for another."""
    if max(fps.numerator, fps.denominator) > _MAX_Y4M_TERM:
        raise OutputError(f"{name}: y4m cannot hold fps {fps}; use .yuv or .png, which hold no rate")


def y4m_display(format: VideoFormat, display: DisplayInfo) -> DisplayInfo:
    """The part of a display description that a .y4m file of this format holds."""
    is_sited = format.pixel_format.is_subsampled and format.bit_depth == 8 and display.chroma_siting in _Y4M_SITING
    siting = display.chroma_siting if is_sited else ChromaSiting.UNSPECIFIED
    return DisplayInfo(pixel_aspect=display.pixel_aspect, chroma_siting=siting)


def y4m_frame(frame: Frame) -> bytes:
    """One frame of a .y4m file."""
    return b"FRAME\n" + frame_to_bytes(frame)
