"""`coolvid decode`: a stream -> a video or images."""

from __future__ import annotations

from pathlib import Path

import click

import coolvid

from .console import FrameConsole, count_frames
from .options import debug_option, quiet_option, refuse_overwriting, threads_option


@click.command("decode")
@click.argument("stream", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--digest", is_flag=True, help="Write no file; print the SHA-256 of all decoded pictures.")
@threads_option
@quiet_option
@debug_option
def command(stream: Path, out: Path | None, digest: bool, threads: int, quiet: bool) -> None:
    """Decode STREAM to OUT: .yuv and .y4m keep every bit, .png does for RGB; .mp4 and .mkv are for watching.

    Several frames to a .png become NAME_0000.png and so on.
    """
    if (out is None) != digest:
        raise click.UsageError("give either a file to write, as review.mp4, or --digest")
    if out is None:
        click.echo(coolvid.digest(stream, threads=threads))
        return
    refuse_overwriting(stream, out)
    n_frames = coolvid.read_info(stream).header.n_frames
    with FrameConsole(quiet, n_frames) as console:
        coolvid.decode(stream, out, threads=threads, listen=console)
    console.say(f"{out}: {count_frames(n_frames)}")
