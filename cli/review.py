"""`coolvid review`: source, decoded pictures and their difference in one video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coolvid.errors import count_frames
from coolvid.study.review import DEFAULT_AMPLIFY, make_review

from . import encode
from .console import FrameConsole
from .options import (
    SOURCE_NAMES,
    debug_option,
    max_pixels_option,
    quiet_option,
    take_source_spec,
    threads_option,
)


@click.command("review")
@click.argument("stream", type=click.Path(path_type=Path))
@click.option(
    "--source", type=click.Path(path_type=Path), required=True, help="The video that STREAM was encoded from."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    show_default="STREAM's name with _review.mp4",
    help="The video to write.",
)
@click.option(
    "--amplify",
    type=float,
    default=DEFAULT_AMPLIFY,
    show_default=True,
    metavar="X",
    help="Amplification of the difference.",
)
@max_pixels_option
@threads_option
@quiet_option
@debug_option
def command(
    stream: Path,
    source: Path,
    out: Path | None,
    amplify: float,
    max_pixels: int,
    threads: int,
    quiet: bool,
    **settings: Any,
) -> None:
    """Write a video of source, decoded picture and amplified difference of STREAM side by side, for visual inspection.

    A bar above shows frame number, type, bits and PSNR. The output may be .mp4, .mkv, .y4m, .yuv or .png. If
    encoding used --start, --crop or --scale, give the same options here.
    """
    target = out or Path(f"{stream.stem}_review.mp4")
    spec = take_source_spec(settings)
    with FrameConsole(quiet) as console:
        n_frames = make_review(
            stream,
            source,
            target,
            source_spec=spec,
            amplify=amplify,
            threads=threads,
            max_pixels=max_pixels,
            listen=console,
        )
    console.say(f"{target}: {count_frames(n_frames)}")


# The options of `coolvid encode` set how the source is read.
command.params[-4:-4] = [param for param in encode.command.params if param.name in SOURCE_NAMES]
