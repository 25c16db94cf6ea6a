"""`coolvid decode`: a stream -> a video or images."""

from __future__ import annotations

import re
from pathlib import Path

import click

import coolvid
from coolvid import events
from coolvid.errors import ConfigError, OutputError, count_frames

from .console import FrameConsole, not_stored_line
from .options import debug_option, max_pixels_option, quiet_option, refuse_appended, strict_option, threads_option
from .process import CLOSED

STANDARD_OUTPUT = Path("-")


def parse_range(text: str) -> slice:
    """10:20 -> slice(10, 20). As in Python, either end may be omitted or negative."""
    if not (match := re.fullmatch(r"(-?\d{1,9})?:(-?\d{1,9})?", text)):
        raise ConfigError(
            f"cannot read range '{text}'; write FIRST:END, for example 10:20 for frames 10 to 19, :20 or 10:"
        )
    return slice(*(None if end is None else int(end) for end in match.groups()))


@click.command("decode")
@click.argument("stream", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option(
    "--range",
    "part",
    type=parse_range,
    metavar="FIRST:END",
    show_default="all",
    help="Frames to write: 10:20 for frames 10 to 19, :20 for the first 20, 10: for all from frame 10, "
    "-5: for the last 5.",
)
@click.option("--digest", is_flag=True, help="Write no file; print the SHA-256 of all decoded pictures.")
@strict_option
@max_pixels_option
@threads_option
@quiet_option
@debug_option
def command(
    stream: Path,
    out: Path | None,
    part: slice | None,
    digest: bool,
    strict: bool,
    max_pixels: int,
    threads: int,
    quiet: bool,
) -> None:
    """Decode STREAM to OUT: .yuv and .y4m are lossless, and so is .png for RGB; .mp4 and .mkv are lossy, for viewing.

    For several frames, NAME.png becomes NAME_0000.png, NAME_0001.png and so on, and DIR/%04d.png becomes DIR/0000.png
    and so on, numbered by frame. Use - as OUT to write y4m to standard output. With --range, only these frames and
    those they depend on are decoded.
    """
    if (out is None) != digest:
        raise click.UsageError("give either an output file, for example clip.mp4, or --digest")
    if 1 in CLOSED and out in (None, STANDARD_OUTPUT):
        raise OutputError("standard output is closed; name a file, for example clip.mp4")
    if strict:
        refuse_appended(stream)
    frames = chosen_frames(stream, part)
    if out is None:
        click.echo(coolvid.digest(stream, frames=frames, threads=threads, max_pixels=max_pixels))
        return
    with FrameConsole(quiet or out == STANDARD_OUTPUT) as console:

        def listen(event: events.Event) -> None:
            if isinstance(event, events.NotStored) and out == STANDARD_OUTPUT and not quiet:
                click.echo(not_stored_line(event), err=True)
            console(event)

        n_frames = coolvid.decode(stream, out, frames=frames, threads=threads, max_pixels=max_pixels, listen=listen)
    console.say(f"{out}: {count_frames(n_frames)}")


def chosen_frames(stream: Path, part: slice | None) -> range | None:
    """The frames in a --range; None for all. Raises ConfigError when the range is empty."""
    if part is None:
        return None
    n_frames = 1 + max((packet.display_index for packet in coolvid.read_info(stream).packets), default=-1)
    frames = range(*part.indices(n_frames))
    if not frames:
        ends = ["" if end is None else end for end in (part.start, part.stop)]
        raise ConfigError(f"range {ends[0]}:{ends[1]} contains no frame; {stream} has frames 0:{n_frames}")
    return frames
