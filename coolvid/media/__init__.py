"""Files <-> Frames. `open_source` reads whatever it is given, `open_sink` chooses the writer by the file's suffix."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from coolvid.errors import ConfigError, OutputError
from coolvid.types import ColorInfo, VideoFormat

from .base import Sink, Source
from .raw import RawSink, RawSource, Y4mSink

__all__ = ["RAW_SUFFIXES", "SINK_SUFFIXES", "Sink", "Source", "open_sink", "open_source"]

RAW_SUFFIXES = (".yuv", ".rgb", ".raw")
SINK_SUFFIXES = (".mp4", ".mkv", ".y4m", ".yuv", ".rgb", ".png")


def open_source(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    pix_fmt: str | None = None,
) -> Source:
    """Frames of a video or image file.

    A raw file (.yuv, .rgb, .raw, or any other when size and pix_fmt are given) is described by size (width, height),
    fps and pix_fmt (see layout.PIXEL_FORMATS), or by its name: NAME_WxH_FPSp_yuv420_8b.yuv; arguments win over the
    name. Everything else goes through PyAV, where fps overrides the file's own time stamps.
    Raises InputError when the file cannot be read as described, ConfigError when the arguments do not apply to it.
    """
    path = Path(path)
    if path.suffix.lower() in RAW_SUFFIXES or (size and pix_fmt):
        return RawSource(path, size, fps, pix_fmt)
    if size or pix_fmt:
        raise ConfigError(f"size and pixel format are for raw files; {path.name} has its own, so leave them out")
    from .container import ContainerSource

    return ContainerSource(path, fps)


def open_sink(
    path: str | os.PathLike[str], format: VideoFormat, fps: Fraction, color: ColorInfo, n_frames: int | None = None
) -> Sink:
    """A file for frames of this format, by its suffix; see the sink classes for what each one stores.

    .yuv, .rgb, .y4m are bit exact; .png is for RGB of 8 bits; .mp4 and .mkv are lossy. n_frames, where known, says
    whether a .png gets a number. Raises OutputError when the suffix does not hold the format, or cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SINK_SUFFIXES:
        raise OutputError(f"{path}: no writer for {suffix or 'a name without suffix'}; use {', '.join(SINK_SUFFIXES)}")
    return _sink_class(suffix)(path, format, fps, color, n_frames)


def _sink_class(suffix: str) -> type[Sink]:
    if suffix == ".y4m":
        return Y4mSink
    if suffix in (".yuv", ".rgb"):
        return RawSink
    from .encoder import ContainerSink, PngSink

    return PngSink if suffix == ".png" else ContainerSink
