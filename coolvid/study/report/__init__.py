"""An HTML page about a stream: bits by part, dependencies between frames, and the contents of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coolvid.api import checked_threads
from coolvid.errors import ConfigError
from coolvid.events import Listener, ignore
from coolvid.media import SourceSpec
from coolvid.picture.types import MAX_PIXELS


@dataclass(frozen=True)
class ReportDone:
    """A finished page. shown: display indices of the frames with pictures, which are scaled by 1 / divisor."""

    n_frames: int
    shown: tuple[int, ...]
    divisor: int
    n_bytes: int


def report(
    stream: str | Path,
    out: str | Path,
    *,
    source: str | Path | None = None,
    source_spec: SourceSpec = SourceSpec(),
    compare: str | Path | None = None,
    frames: Sequence[int] | None = None,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    listen: Listener = ignore,
) -> ReportDone:
    """Write a self-contained HTML page about a .cvd stream; it works offline, in any current browser.

    source: the encoded video, for PSNR, SSIM and source pictures; source_spec: how to read it, as in encode().
    compare: a file of rate and quality points, for example from `coolvid compare`; see points.read_points().
    frames: display indices of the frames to show with pictures, motion and latents (None: evenly spaced, with the first
    I, P and B frame). Many or large pictures are scaled down to limit the size of the page. max_pixels: as in decode().
    Raises CoolvidError.
    """
    from coolvid.bitstream.stream import StreamReader

    from .page import write_page
    from .points import read_points
    from .quality import compare_with_source
    from .summary import choose_frames, summarise
    from .views import choose_divisor, view

    threads = checked_threads(threads, stream=stream, out=out)
    if source is None and source_spec != SourceSpec():
        raise ConfigError("source_spec describes a source; give source as well")
    with StreamReader(stream, max_pixels=max_pixels) as reader:
        curves = None if compare is None else read_points(compare)
        shown = choose_frames(reader, frames)
        divisor = choose_divisor(reader.header.format, len(shown))
        quality = compare_with_source(reader, source, source_spec, shown, threads, listen)
        views = view(reader, shown, divisor, quality.pictures, ignore if source is not None else listen)
        content = summarise(Path(stream), reader, quality) | {"curves": curves, "views": views, "divisor": divisor}
        return ReportDone(len(reader), shown, divisor, write_page(Path(out), content))
