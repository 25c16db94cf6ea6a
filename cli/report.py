"""`coolvid report`: a stream -> an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import coolvid
from coolvid.errors import count_frames
from coolvid.events import Event, FrameDecoded
from coolvid.files import check_writable
from coolvid.picture.rate import parse_fps

from .console import make_console
from .options import (
    debug_option,
    given_source_flag,
    max_pixels_option,
    parse_crop,
    parse_positions,
    parse_size,
    quiet_option,
    refuse_overwriting,
    take_source_spec,
    threads_option,
)

option = click.option


@click.command("report")
@click.argument("stream", type=click.Path(path_type=Path))
@option(
    "-o", "--out", type=click.Path(path_type=Path), show_default="STREAM's name with .html", help="The page to write."
)
@option(
    "--source",
    type=click.Path(path_type=Path),
    help="The video that STREAM was encoded from; adds its pictures, PSNR and SSIM.",
)
@option("--compare", type=click.Path(path_type=Path), help="comparison.json from `coolvid compare`; adds its curves.")
@option(
    "--frames",
    type=parse_positions,
    metavar="N,N,...",
    show_default="evenly spaced",
    help="Frames to show with pictures, motion and latents; -1 is the last.",
)
@option("--start", type=click.IntRange(0), metavar="N", help="As in encode, for the source.")
@option("--crop", type=parse_crop, metavar="WxH+X+Y", help="As in encode, for the source.")
@option("--scale", type=parse_size, metavar="WxH", help="As in encode, for the source.")
@option("--size", type=parse_size, metavar="WxH", help="Frame size of a raw source, unless in its name.")
@option("--fps", type=parse_fps, metavar="FPS", help="Frame rate of a raw source, for example 25 or 30000/1001.")
@option("--pix-fmt", metavar="NAME", help="Pixel format of a raw source, for example yuv420p10le.")
@option("--stream", "stream_number", type=click.IntRange(0), metavar="N", help="As in encode, for the source.")
@max_pixels_option
@threads_option
@quiet_option
@debug_option
def command(
    stream: Path,
    out: Path | None,
    source: Path | None,
    compare: Path | None,
    frames: tuple[int, ...] | None,
    max_pixels: int,
    threads: int,
    quiet: bool,
    **settings: Any,
) -> None:
    """Write an HTML page about STREAM: bits by part, prediction structure, pictures, motion and latents.

    The page is one file that works offline. It lists every frame, and shows some of them in detail; many or large
    pictures are scaled down.
    """
    if (flag := given_source_flag(settings)) and source is None:
        raise click.UsageError(f"{flag} describes a source; give --source as well")
    out = out or stream.with_suffix(".html")
    check_writable(out)
    for given in (stream, source, compare):
        if given is not None:
            refuse_overwriting(given, out)
    console = make_console()
    console.quiet = quiet
    with console.status("starting") as status:

        def show(event: Event) -> None:
            if isinstance(event, FrameDecoded):
                status.update(f"frame {event.display_index} {event.frame_type.name}")

        done = coolvid.report(
            stream,
            out,
            source=source,
            source_spec=take_source_spec(settings),
            compare=compare,
            frames=frames,
            threads=threads,
            max_pixels=max_pixels,
            listen=show,
        )
    console.print(f"{out}: {_words(done)}", soft_wrap=True)


def _words(done: coolvid.ReportDone) -> str:
    some = "all" if len(done.shown) == done.n_frames else ", ".join(map(str, done.shown))
    small = f" at 1/{done.divisor} size" if done.divisor > 1 else ""
    return f"{count_frames(done.n_frames)}, pictures of {some}{small}, {done.n_bytes / 1e6:.1f} MB"
