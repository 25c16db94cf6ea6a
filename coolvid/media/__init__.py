"""Files <-> Frames. `open_source` reads any supported file, `open_sink` chooses the writer by the file's suffix."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from coolvid.errors import ConfigError, OutputError
from coolvid.picture.types import ColorInfo, VideoFormat

from .base import Sink, Source
from .cut import Crop, CutSource
from .numbering import is_pattern
from .raw import RawSink, RawSource, Y4mSink

__all__ = ["RAW_SUFFIXES", "SINK_SUFFIXES", "Crop", "Sink", "Source", "open_sink", "open_source"]

RAW_SUFFIXES = (".yuv", ".rgb", ".raw")
SINK_SUFFIXES = (".mp4", ".mkv", ".y4m", ".yuv", ".rgb", ".png")
PIPE = "-"


def open_source(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    pix_fmt: str | None = None,
    *,
    start: int = 0,
    crop: Crop | None = None,
    scale: tuple[int, int] | None = None,
) -> Source:
    """Frames of a video file, an image, numbered images (frames/%04d.png), or y4m from standard input (-).

    A raw file (.yuv, .rgb, .raw, or any other when size and pix_fmt are given) is described by size (width, height),
    fps and pix_fmt (see layout.PIXEL_FORMATS), or by its name: NAME_WxH_FPSp_yuv420_8b.yuv; arguments override the
    name. PyAV reads everything else; fps then overrides the file's time stamps, and pixels.py lists the pixel formats.
    start, crop (width, height, x, y) and scale (width, height) select a part, see CutSource.
    Raises InputError when the file cannot be read as described, ConfigError when the arguments do not apply to it.
    """
    source = _whole_source(Path(path), size, fps, pix_fmt)
    if not start and crop is None and scale is None:
        return source
    try:
        return CutSource(source, start, crop, scale)
    except BaseException:
        source.close()
        raise


def _whole_source(path: Path, size: tuple[int, int] | None, fps: Fraction | None, pix_fmt: str | None) -> Source:
    is_pipe = str(path) == PIPE
    if not is_pipe and (path.suffix.lower() in RAW_SUFFIXES or (size and pix_fmt)):
        return RawSource(path, size, fps, pix_fmt)
    if size or pix_fmt:
        name = "y4m from standard input" if is_pipe else path.name
        raise ConfigError(f"size and pixel format are for raw files only; {name} defines its own, so leave them out")
    if is_pipe:
        from .pipe import PipeSource

        return PipeSource(fps)
    if is_pattern(path):
        from .sequence import SequenceSource

        return SequenceSource(path, fps)
    from .container import ContainerSource

    return ContainerSource(path, fps)


def open_sink(
    path: str | os.PathLike[str],
    format: VideoFormat,
    fps: Fraction,
    color: ColorInfo,
    n_frames: int | None = None,
    first: int = 0,
) -> Sink:
    """A file for frames of this format, by its suffix, or - for standard output; see the sink classes.

    .yuv, .rgb, .y4m and - (y4m) are bit exact; .png is exact for 8-bit RGB; .mp4 and .mkv are lossy. A .png gets a
    number if n_frames is not 1, and with DIR/%04d.png always; first is the number of the first file.
    Raises OutputError when a file of this suffix cannot hold the format, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if str(path) != PIPE and suffix not in SINK_SUFFIXES:
        raise OutputError(
            f"{path}: no writer for {suffix or 'a name without suffix'}; use {', '.join(SINK_SUFFIXES)}, or - for y4m "
            "on standard output"
        )
    return _sink_class(path)(path, format, fps, color, n_frames, first)


def _sink_class(path: Path) -> type[Sink]:
    suffix = path.suffix.lower()
    if str(path) == PIPE:
        from .pipe import PipeSink

        return PipeSink
    if suffix == ".y4m":
        return Y4mSink
    if suffix in (".yuv", ".rgb"):
        return RawSink
    from .encoder import ContainerSink, PngSink

    return PngSink if suffix == ".png" else ContainerSink
