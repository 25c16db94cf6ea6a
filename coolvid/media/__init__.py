"""Files <-> Frames. `open_source` reads any supported file, `open_sink` chooses the writer by the file's suffix."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.files import check_name
from coolvid.picture.types import ColorInfo, DisplayInfo, VideoFormat

from .base import Sink, Source
from .cut import CutSource
from .numbering import is_sequence
from .raw import RawSink, RawSource, Y4mSink
from .source_spec import Crop, SourceSpec

__all__ = [
    "RAW_SUFFIXES", "SINK_SUFFIXES", "Crop", "Sink", "Source", "SourceSpec", "open_sink", "open_source", "sink_names",
]  # fmt: skip

RAW_SUFFIXES = (".yuv", ".rgb", ".raw")
SINK_SUFFIXES = (".mp4", ".mkv", ".y4m", ".yuv", ".rgb", ".png")
PIPE = "-"


def open_source(path: str | os.PathLike[str], spec: SourceSpec = SourceSpec(), limit: int = 0) -> Source:
    """Frames of a video file, an image, several images, or y4m from standard input (-).

    Several images are numbered (frames/%04d.png), in a folder (frames), or match a name (frames/*.png). Files and
    images are read through once to know rate, number and format of their frames. limit: frames to be read, 0 for all;
    those after them are not checked, nor counted in n_frames.
    A raw file (.yuv, .rgb, .raw, or any other when spec has size and pix_fmt) is described by spec, or by its name:
    NAME_WxH_FPSp_yuv420_8b.yuv; spec wins. Everything else goes through PyAV; pixel formats as pixels.py says.
    Raises InputError when the file cannot be read as described, ConfigError when spec does not apply to it.
    """
    check_name(path, InputError)
    source = _whole_source(Path(path), spec, spec.start + limit if limit else None)
    if not spec.is_cut:
        return source
    try:
        return CutSource(source, spec)
    except BaseException:
        source.close()
        raise


def _whole_source(path: Path, spec: SourceSpec, n_wanted: int | None) -> Source:
    is_pipe = str(path) == PIPE
    if not is_pipe and (path.suffix.lower() in RAW_SUFFIXES or (spec.size and spec.pix_fmt)):
        if spec.stream is not None:
            raise ConfigError(f"stream {spec.stream} of {path.name}: raw files have no streams; leave it out")
        return RawSource(path, spec)
    if spec.size or spec.pix_fmt:
        name = "y4m from standard input" if is_pipe else path.name
        raise ConfigError(f"size and pixel format are for raw files only; {name} defines its own, so leave them out")
    if is_pipe:
        from .pipe import PipeSource

        return PipeSource(spec.fps, spec.stream)
    if is_sequence(path):
        from .sequence import SequenceSource

        return SequenceSource(path, spec.fps, spec.stream, n_wanted)
    from .container import ContainerSource

    return ContainerSource(path, spec.fps, spec.stream, n_wanted)


def open_sink(
    path: str | os.PathLike[str],
    format: VideoFormat,
    fps: Fraction,
    color: ColorInfo,
    n_frames: int | None = None,
    first: int = 0,
    display: DisplayInfo = DisplayInfo(),
) -> Sink:
    """A file for frames of this format, by its suffix, or - for standard output; see the sink classes.

    .yuv, .rgb, .y4m and - (y4m) are bit exact; .png is exact for 8-bit RGB; .mp4 and .mkv are lossy. A .png gets a
    number if n_frames is not 1, and with DIR/%04d.png always; first is the number of the first file. What
    the file cannot hold of `display` is in Sink.not_stored.
    Raises OutputError when a file of this suffix cannot hold the format, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if str(path) != PIPE and suffix not in SINK_SUFFIXES:
        raise OutputError(
            f"{path}: no writer for {suffix or 'a name without suffix'}; use {', '.join(SINK_SUFFIXES)}, or - for y4m "
            "on standard output"
        )
    return _sink_class(path)(path, format, fps, color, n_frames, first, display)


def sink_names(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The names under which open_sink() may write, numbers as %d; none for standard output."""
    path = Path(path)
    if str(path) == PIPE:
        return ()
    numbers = path.with_name(f"{path.stem}_%d{path.suffix}")
    return (path, numbers) if path.suffix.lower() == ".png" else (path,)


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
