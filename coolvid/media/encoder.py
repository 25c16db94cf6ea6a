"""Frames to files for viewing: .mp4 and .mkv (lossy, high quality) and .png."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

from coolvid.errors import OutputError
from coolvid.files import part_of
from coolvid.picture.rate import problem_of
from coolvid.picture.types import ChromaSiting, ColorInfo, DisplayInfo, Frame, PixelFormat, VideoFormat

from .base import Sink
from .display import encoder_options
from .numbering import is_pattern, numbered
from .opening import AV_ERRORS, file_url
from .pixels import FULL, LIMITED, SWSCALE, from_frame, mark, to_rgb

_MUXERS = {".mp4": "mp4", ".mkv": "matroska"}
_BT709 = 1
_QUALITY = {"crf": "12", "preset": "fast"}
# x265 4.2 reads and writes out of bounds (cutree) when a side is below its block size. With B frames it leaves the
# decoding times of clips of one or two frames unset, which mp4 rejects.
_X265_MIN_SIDE = 64
_X264 = ("libx264", _QUALITY)
_X265 = ("libx265", {**_QUALITY, "x265-params": "log-level=error:cutree=0:bframes=0"})


class ContainerSink(Sink):
    """A video for players: H.264 for 8 bits; H.265 for 10 bits, or H.264 if a side is below 64 pixels.

    4:2:0 of even size stays 4:2:0. 4:2:0 of odd size is stored as 4:4:4 with repeated chroma, because these encoders
    accept only even sizes in 4:2:0 and padding would change the frame size. RGB becomes 4:4:4, BT.709.
    """

    _container: av.container.OutputContainer | None = None
    _failures = AV_ERRORS

    def _check_target(self) -> None:
        super()._check_target()
        if problem := problem_of(self.fps):
            suffix = self.path.suffix
            raise OutputError(f"{self.path}: {suffix} cannot hold fps {self.fps}; use .yuv or .png ({problem})")
        if self.path.suffix.lower() == ".mp4" and self.path.is_fifo():
            raise OutputError(f"{self.path}: an .mp4 file cannot be written into a FIFO; use .mkv or .y4m")

    def _stored_format(self) -> str:
        f = self.format
        even = f.width % 2 == 0 and f.height % 2 == 0
        layout = "420" if f.pixel_format.is_subsampled and even else "444"
        return f"yuv{layout}p" + ("10le" if f.bit_depth == 10 else "")

    def _held(self) -> DisplayInfo:
        held, aspect = self.display, self.display.pixel_aspect
        if "444" in self._stored_format():
            held = replace(held, chroma_siting=ChromaSiting.UNSPECIFIED)
        is_shown = aspect * self.format.width >= 1 and aspect <= self.format.height  # FFmpeg drops other shapes
        return held if is_shown else replace(held, pixel_aspect=Fraction(1))

    @property
    def not_stored(self) -> tuple[str, ...]:
        reserved = (f"colour {name} {getattr(self.color, name)}" for name in self.color.reserved)
        return (*super().not_stored, *reserved)

    def _encoders(self) -> tuple[tuple[str, dict[str, str]], ...]:
        """(encoder, options) in order of preference."""
        f = self.format
        return (_X265, _X264) if f.bit_depth == 10 and min(f.width, f.height) >= _X265_MIN_SIDE else (_X264,)

    def _open(self) -> None:
        self._stored = self._stored_format()
        self._stored_color = _color_in_video(self.format, self.color)
        self._container = av.open(file_url(part_of(self.path)), "w", format=_MUXERS[self.path.suffix.lower()])
        codec, options = _available(self._encoders())
        stream = self._container.add_stream(codec, rate=self.fps, options=_joined(options, self._held(), codec))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = self.format.width, self.format.height, self._stored
        stream.codec_context.time_base = 1 / self.fps
        if codec == "libx265" and self.path.suffix.lower() == ".mp4":
            stream.codec_context.codec_tag = "hvc1"
        mark(stream.codec_context, self._stored_color)
        if self._held().pixel_aspect != 1:
            stream.codec_context.sample_aspect_ratio = self._held().pixel_aspect
        self._stream = stream

    def _write(self, frame: Frame) -> None:
        assert self._container is not None, "enter the sink first"
        picture = self._picture(frame)
        picture.pts, picture.time_base = self.n_written, 1 / self.fps
        self._container.mux(self._stream.encode(picture))

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """The frame in the stored format and colour."""
        if self.format.pixel_format is PixelFormat.RGB:
            picture = from_frame(frame, replace(self.color, range=FULL)).reformat(
                format=self._stored,
                dst_colorspace=_BT709,
                src_color_range=FULL,
                dst_color_range=LIMITED,
                interpolation=SWSCALE,
            )
            mark(picture, self._stored_color)
            return picture
        if self.format.pixel_format.is_subsampled and "444" in self._stored:
            frame = _repeat_chroma(frame)
        return from_frame(frame, self._stored_color)

    def _finish(self) -> None:
        assert self._container is not None
        self._container.mux(self._stream.encode(None))
        self._close()

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()


class PngSink(Sink):
    """Images: one frame gets the given name, several become NAME_0000.png and so on; DIR/%04d.png numbers any count.

    The number is that of the frame in its stream, so the first frame of a part is not 0.

    8 bits are stored as 8, 10 bits as 16 (scaled). YUV is converted to RGB with the frame's matrix and range. If they
    are unspecified: BT.709 from 720 lines on, BT.601 below, limited range.
    """

    _failures = AV_ERRORS

    def _open(self) -> None:
        pass  # a file for each frame

    def _write(self, frame: Frame) -> None:
        picture = self._picture(frame)
        encoder = av.CodecContext.create("png", "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, picture.format.name
        encoder.time_base = Fraction(1, 1)
        packets = [*encoder.encode(picture), *encoder.encode(None)]
        with part_of(self._numbered(self.n_written)).open("wb") as file:
            file.writelines(bytes(packet) for packet in packets)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        stored = "rgb24" if frame.format.bit_depth == 8 else "rgb48be"
        picture = to_rgb(frame, self.color, stored)
        mark(picture, replace(self.color, matrix=2, range=FULL))
        return picture

    def _numbered(self, index: int) -> Path:
        if is_pattern(self.path):
            return numbered(self.path, self.first + index)
        return self.path.with_name(f"{self.path.stem}_{self.first + index:04d}{self.path.suffix}")

    def _results(self) -> list[tuple[Path, Path]]:
        alone = self.n_written == 1 and self.n_frames in (None, 1) and not is_pattern(self.path)
        paths = [self._numbered(i) for i in range(self.n_written + 1)]
        return [(path, self.path if alone else path) for path in paths if part_of(path).exists()]

    def _finish(self) -> None:
        pass  # every file is closed already

    def _close(self) -> None:
        pass


def _available(choices: Any) -> tuple[str, dict[str, str]]:
    """The first (encoder, options) that this PyAV supports; raises OutputError if there is none."""
    for codec, options in choices:
        if codec in av.codecs_available:
            return codec, options
    names = " or ".join(codec for codec, _ in choices)
    raise OutputError(f"this PyAV has no encoder {names}; write .y4m, .yuv or .png instead")


def _joined(options: dict[str, str], display: DisplayInfo, codec: str) -> dict[str, str]:
    """The encoder's options and those for the display description."""
    more = encoder_options(display, codec)
    return options | {name: f"{options[name]}:{value}" if name in options else value for name, value in more.items()}


def _color_in_video(format: VideoFormat, color: ColorInfo) -> ColorInfo:
    """Colour description of the stored YUV video."""
    if format.pixel_format is PixelFormat.RGB:
        return replace(color, matrix=_BT709, range=LIMITED)
    return color


def _repeat_chroma(frame: Frame) -> Frame:
    """4:2:0 to 4:4:4 of the same size."""
    height, width = frame.height, frame.width
    u, v = (plane.repeat(2, axis=0).repeat(2, axis=1)[:height, :width] for plane in frame.planes[1:])
    return Frame((frame.planes[0], u, v), replace(frame.format, pixel_format=PixelFormat.YUV444))
