"""Conventional encoders in PyAV, tuned for PSNR, writing elementary streams: x264, x265 and SVT-AV1."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from coolvid.codec.gop import StructureConfig
from coolvid.errors import ConfigError, CoolvidError, InputError, MissingExtra, OutputError, choose
from coolvid.files import check_writable, replacing
from coolvid.media import SourceSpec, open_source
from coolvid.media.pixels import from_frame, mark
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat

NEVER = 1 << 16
"""Frames between I frames when only the first one is intra."""

B_FRAMES = 7
_X26X_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_CRF = range(1, 52)
# x265 4.2 writes out of bounds when a side is below its block size.
_X265_MIN_SIDE = 64
_H264_SEI, _USER_DATA = 6, 5
_AV_ERRORS = (av.error.FFmpegError, OSError, ValueError)


@dataclass(frozen=True)
class Placement:
    """Positions of I and B frames in a conventional encoder. intra_period: distance between I frames, in frames."""

    intra_period: int = NEVER
    b_frames: int = B_FRAMES

    @classmethod
    def of(cls, structure: StructureConfig) -> Placement:
        """The same I frames as in a coolvid encode with this structure, and B frames if it has them.

        Raises ConfigError for explicit positions, which these encoders do not support.
        """
        if structure.intra_pos or structure.p_pos:
            raise ConfigError("conventional encoders do not support intra_pos and p_pos; use gop and intra_period")
        if structure.low_delay:
            return cls(structure.intra_period or NEVER, 0)
        return cls(1, 0) if structure.gop == 1 else cls(structure.intra_period or NEVER)


Options = Callable[[str, Placement], dict[str, str]]


def _x264(preset: str, placement: Placement) -> dict[str, str]:
    """One thread and cpu-independent arithmetic; without them, the bits vary from run to run by 1 to 2 %."""
    key = str(placement.intra_period)
    return {
        "preset": preset, "tune": "psnr", "bf": str(placement.b_frames), "g": key, "keyint_min": key,
        "sc_threshold": "0", "threads": "1", "x264-params": "cpu-independent=1",
    }  # fmt: skip


def _x265(preset: str, placement: Placement) -> dict[str, str]:
    key, b_frames = placement.intra_period, placement.b_frames
    parameters = f"log-level=none:info=0:keyint={key}:min-keyint={key}:scenecut=0:bframes={b_frames}:frame-threads=1"
    return {"preset": preset, "tune": "psnr", "x265-params": parameters}


def _svtav1(preset: str, placement: Placement) -> dict[str, str]:
    low_delay = "" if placement.b_frames or placement.intra_period == 1 else ":pred-struct=1"
    return {"preset": preset, "g": str(placement.intra_period), "svtav1-params": f"tune=1{low_delay}"}


@dataclass(frozen=True)
class PeerEncoder:
    """An encoder of PyAV and its options. min_side: of pictures that it encodes safely."""

    codec: str
    suffix: str
    presets: tuple[str, ...]
    default_preset: str
    crfs: range
    options: Options
    min_side: int = 1


ENCODERS: Mapping[str, PeerEncoder] = {
    "x264": PeerEncoder("libx264", ".264", _X26X_PRESETS, "medium", _CRF, _x264),
    "x265": PeerEncoder("libx265", ".265", _X26X_PRESETS, "medium", _CRF, _x265, _X265_MIN_SIDE),
    "svtav1": PeerEncoder("libsvtav1", ".obu", tuple(map(str, range(14))), "4", range(1, 64), _svtav1),
}


@dataclass(frozen=True)
class Peer:
    """An encoder with its preset, written x265:veryslow. Raises ConfigError for an unknown encoder or preset."""

    name: str
    preset: str

    def __post_init__(self) -> None:
        choose("encoder", self.name, tuple(ENCODERS))
        choose(f"preset of {self.name}", self.preset, self.encoder.presets)

    @classmethod
    def parse(cls, text: str) -> Peer:
        """NAME or NAME:PRESET; the default is medium for x264 and x265, and 4 for svtav1."""
        name, _, preset = text.strip().partition(":")
        choose("encoder", name, tuple(ENCODERS))
        return cls(name, preset or ENCODERS[name].default_preset)

    @property
    def encoder(self) -> PeerEncoder:
        return ENCODERS[self.name]

    def __str__(self) -> str:
        return f"{self.name}:{self.preset}"

    def check(self, format: VideoFormat) -> None:
        """Raises MissingExtra if PyAV lacks this encoder, InputError if it does not support frames of this format."""
        if self.encoder.codec not in av.codecs_available:
            raise MissingExtra(f"this PyAV has no encoder {self.encoder.codec}; leave {self.name} out")
        taken = [known.name for known in av.codec.Codec(self.encoder.codec, "w").video_formats or ()]
        wanted = _stored_format(format)
        if wanted not in taken:
            raise InputError(f"{self.name} does not encode {wanted}; leave it out, or convert the source to yuv420")
        if min(format.width, format.height) < self.encoder.min_side:
            raise InputError(
                f"{self.name} cannot encode {format.width}x{format.height} safely, only sides of "
                f"{self.encoder.min_side} pixels or more; leave it out"
            )

    def settings(self, crf: int, placement: Placement) -> dict[str, str]:
        """Everything that determines the bytes, except the frames."""
        return {"av": av.__version__, "crf": str(crf), **self.encoder.options(self.preset, placement)}


@dataclass(frozen=True)
class PeerStream:
    """An elementary stream on disk; n_bytes is the sum of its packets."""

    n_frames: int
    n_bytes: int
    duration_s: float


def encode_peer(
    frames: Iterable[Frame], out: Path, peer: Peer, crf: int, placement: Placement, fps: Fraction, color: ColorInfo
) -> PeerStream:
    """Encode frames into an elementary stream; duration_s is the time spent in the encoder.

    4:2:0 of odd size is padded by one column or row (see decode_peer). Raises InputError for a format that the encoder
    does not support, OutputError.
    """
    check_writable(out)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("no frames to encode; give at least 1")
    peer.check(first.format)
    packets, start = _Packets(peer, crf, placement, fps, color, first.format), time.perf_counter()
    n_bytes = 0
    with replacing(out) as file:
        for packet in packets.of(chain([first], iterator)):
            n_bytes += file.write(packet)
    return PeerStream(packets.n_frames, n_bytes, time.perf_counter() - start - packets.waited_s)


def decode_peer(path: Path, format: VideoFormat, fps: Fraction) -> Iterator[Frame]:
    """Frames of an elementary stream, cropped to the format. Raises InputError for a stream of another format."""
    with open_source(path, SourceSpec(fps=fps)) as source:
        if source.format != _even(format):
            raise InputError(f"{path} contains {source.format}, not {_even(format)}; delete it")
        for frame in source:
            yield _crop(frame, format)


class _Packets:
    """One running encoder, with counts of its frames and waiting time."""

    def __init__(
        self, peer: Peer, crf: int, placement: Placement, fps: Fraction, color: ColorInfo, format: VideoFormat
    ) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to standard error: errors only
        self._peer, self._color, self.n_frames, self.waited_s = peer, color, 0, 0.0
        self._format = _even(format)
        context = av.CodecContext.create(peer.encoder.codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = self._format.width, self._format.height, _stored_format(format)
        context.time_base, context.framerate = 1 / fps, fps
        context.options = {**peer.encoder.options(peer.preset, placement), "crf": str(crf)}
        mark(context, color)
        self._context = context

    def of(self, frames: Iterable[Frame]) -> Iterator[bytes]:
        """Packets of all frames, without x264's note of its settings. waited_s counts the time spent reading frames."""
        n_packets = 0
        for picture in chain(self._pictures(frames), [None]):
            for packet in self._encode(picture):
                data = bytes(packet)
                yield without_settings(data) if self._peer.name == "x264" and not n_packets else data
                n_packets += 1
        if n_packets != self.n_frames and self._peer.name != "svtav1":
            raise OutputError(f"{self._peer} made {n_packets} packets of {self.n_frames} frames")

    def _pictures(self, frames: Iterable[Frame]) -> Iterator[Any]:
        start = time.perf_counter()
        for frame in frames:
            picture = from_frame(_widen(frame, self._format), self._color)
            picture.pts = self.n_frames
            self.n_frames += 1
            self.waited_s += time.perf_counter() - start
            yield picture
            start = time.perf_counter()

    def _encode(self, picture: Any) -> list[Any]:
        try:
            return self._context.encode(picture)
        except _AV_ERRORS as error:
            size = f"{self._format.width}x{self._format.height}"
            raise CoolvidError(f"{self._peer} cannot encode {size} pixels: {error}; leave it out") from error


def without_settings(packet: bytes) -> bytes:
    """An H.264 packet without the SEI user data message of about 700 bytes in which x264 stores its settings."""
    units = re.split(rb"(?=\x00\x00\x00\x01|(?<!\x00)\x00\x00\x01)", packet)
    return b"".join(unit for unit in units if not _is_note(unit.lstrip(b"\x00")))


def _is_note(unit: bytes) -> bool:
    """Whether a NAL unit, starting with 01, is an SEI message with user data."""
    return len(unit) > 2 and unit[1] & 31 == _H264_SEI and unit[2] == _USER_DATA


def _stored_format(format: VideoFormat) -> str:
    """PyAV's name for the pixel format of from_frame()."""
    layout = {PixelFormat.YUV420: "yuv420p", PixelFormat.YUV444: "yuv444p", PixelFormat.RGB: "gbrp"}
    return layout[format.pixel_format] + ("10le" if format.bit_depth == 10 else "")


def _even(format: VideoFormat) -> VideoFormat:
    """The format, with even size if chroma is subsampled."""
    if not format.pixel_format.is_subsampled:
        return format
    return replace(format, height=format.height + format.height % 2, width=format.width + format.width % 2)


def _widen(frame: Frame, format: VideoFormat) -> Frame:
    """The frame with its last luma column and row repeated up to the size of the format."""
    if frame.format == format:
        return frame
    luma = np.pad(frame.planes[0], ((0, format.height - frame.height), (0, format.width - frame.width)), mode="edge")
    return Frame((luma, *frame.planes[1:]), format)


def _crop(frame: Frame, format: VideoFormat) -> Frame:
    if frame.format == format:
        return frame
    luma = np.ascontiguousarray(frame.planes[0][: format.height, : format.width])
    return Frame((luma, *frame.planes[1:]), format)
