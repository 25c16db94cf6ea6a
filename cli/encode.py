"""`coolvid encode`: options -> EncodeConfig -> coolvid.encode -> a summary."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

import coolvid
from coolvid.config import PRESETS, EncodeConfig, StructureConfig
from coolvid.errors import StreamError
from coolvid.events import EncodeDone
from coolvid.presets import INTRA, MOTION, RESIDUE

from .console import FrameConsole, count_frames
from .options import (
    debug_option,
    parse_fps,
    parse_positions,
    parse_size,
    plugin_option,
    quiet_option,
    refuse_overwriting,
    threads_option,
)

DEFAULTS = EncodeConfig()
STRUCTURE_NAMES = ("gop", "intra_period", "low_delay", "intra_pos", "p_pos")
NORMATIVE_KINDS = ("arm", "upsampling", "synthesis", "warper")
VERIFIED = "A separate `coolvid decode` of the file gives exactly the pictures of the encoder."

option = click.option
whole = click.IntRange(0)

STRUCTURE_OPTIONS = (
    option(
        "--gop", type=int, default=DEFAULTS.structure.gop, show_default=True, help="Frames of a B hierarchy; 1: no B."
    ),
    option("--intra-period", type=int, default=0, show_default="first frame only", help="Frames between I frames."),
    option("--low-delay", is_flag=True, help="Predict every frame from the one before it."),
    option("--intra-pos", type=parse_positions, metavar="N,N,...", help="I frames at these positions; -1 is the last."),
    option("--p-pos", type=parse_positions, metavar="N,N,...", help="P frames at these positions."),
)
QUALITY_OPTIONS = (
    option(
        "--lmbda",
        type=float,
        default=DEFAULTS.lmbda,
        show_default=True,
        help="Price of a bit; larger makes smaller files.",
    ),
    option("--preset", type=click.Choice(PRESETS), default=DEFAULTS.preset, show_default=True, help="Training effort."),
    option("--iterations", type=int, default=0, show_default="the preset's", help="Iterations of an I frame."),
    option("--intra", type=click.Choice(tuple(INTRA)), help="Network size of I frames."),
    option("--residue", type=click.Choice(tuple(RESIDUE)), help="Network size of P and B frames."),
    option("--motion", type=click.Choice(tuple(MOTION)), help="Network size of motion."),
    option(
        "--warp-filter-size", type=int, default=DEFAULTS.warp_filter_size, show_default=True, help="Taps of the warper."
    ),
    option(
        "--inherit/--no-inherit", default=True, show_default=True, help="Let frames take networks of earlier frames."
    ),
    option("--common-randomness", is_flag=True, help="Feed noise that both sides know to the synthesis."),
)
PLUGIN_OPTIONS = (
    plugin_option("--quantizer", "Rounding during training."),
    plugin_option("--arm", "Probability model of the latents."),
    plugin_option("--upsampling", "Latents to full size."),
    plugin_option("--synthesis", "Full-size latents to pixels."),
    plugin_option("--warper", "Motion compensation."),
    plugin_option("--distortion", "What is minimised beside the rate."),
    plugin_option("--motion-estimator", "Optical flow that motion starts from."),
)
SOURCE_OPTIONS = (
    option("--frames", "n_frames", type=whole, default=0, show_default="all", help="Encode the first N frames."),
    option("--size", type=parse_size, metavar="WxH", help="Of raw video whose name does not tell."),
    option("--fps", type=parse_fps, metavar="FPS", help="Of raw video, as 25 or 30000/1001."),
    option("--pix-fmt", metavar="NAME", help="Of raw video, as yuv420p10le."),
)
RUN_OPTIONS = (
    option("--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Start of the random numbers."),
    option("--device", default=DEFAULTS.device, show_default=True, help="Where to train, as cpu or cuda."),
    option("--resume", is_flag=True, help="Continue the unfinished OUT.part of an encode that was killed."),
    option("--verify/--no-verify", default=True, show_default=True, help="Decode the finished file and compare."),
    threads_option,
    quiet_option,
    debug_option,
)


def all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Attach every option, in the order in which help lists them."""
    for attach in reversed(STRUCTURE_OPTIONS + QUALITY_OPTIONS + PLUGIN_OPTIONS + SOURCE_OPTIONS + RUN_OPTIONS):
        command = attach(command)
    return command


@click.command("encode")
@click.argument("source", type=click.Path(path_type=Path))
@option("-o", "--out", type=click.Path(path_type=Path), show_default="SOURCE's name with .cvd")
@all_options
def command(
    source: Path,
    out: Path | None,
    size: tuple[int, int] | None,
    fps: Fraction | None,
    pix_fmt: str | None,
    resume: bool,
    verify: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Encode SOURCE, a video or an image.

    Raw .yuv files tell their format by their name (NAME_352x288_30p_yuv420_8b.yuv) or by --size, --fps and --pix-fmt.
    """
    target = out or Path(f"{source.stem}.cvd")
    refuse_overwriting(source, target)
    config = make_config(settings)
    with FrameConsole(quiet) as console, telling_how_to_resume(target):
        done = coolvid.encode(
            source, target, config, size=size, fps=fps, pix_fmt=pix_fmt, resume=resume, listen=console
        )
    console.say(summary(target, done))
    if verify:
        check(target, done)
        console.say(VERIFIED)


@contextmanager
def telling_how_to_resume(target: Path) -> Iterator[None]:
    """Let an interruption say what was kept."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        part = f"{target}.part"
        if not Path(part).exists():
            raise
        hint = f"{part} keeps the finished frames: add --resume to go on from there"
        raise KeyboardInterrupt(hint) from interruption


def make_config(settings: dict[str, Any]) -> EncodeConfig:
    """EncodeConfig from the values of the options; those that were not given are None. Raises ConfigError."""
    chosen = {name: value for name, value in settings.items() if value is not None}
    structure = StructureConfig(**{name: chosen.pop(name) for name in STRUCTURE_NAMES if name in chosen})
    plugins = tuple((kind, chosen.pop(kind)) for kind in NORMATIVE_KINDS if kind in chosen)
    return EncodeConfig(structure=structure, plugins=plugins, **chosen)


def summary(stream: Path, done: EncodeDone) -> str:
    """The whole encode in one line; bits per pixel count luma pixels."""
    form = coolvid.read_info(stream).header.format
    bpp = 8 * done.n_bytes / (form.height * form.width * done.n_frames)
    return (
        f"{stream}: {count_frames(done.n_frames)}, {done.n_bytes} bytes, {bpp:.4f} bpp, "
        f"PSNR {done.psnr_db:.2f} dB, {done.duration_s:.1f} s"
    )


def check(stream: Path, done: EncodeDone) -> None:
    """Decode the finished file by a `coolvid decode` of its own. Raises StreamError when a picture differs."""
    if decode_elsewhere(stream) != done.digest:
        raise StreamError(f"{stream} does not decode to the encoder's pictures; do not keep it, and encode again")


def decode_elsewhere(stream: Path) -> str:
    """The digest that another process prints for this stream, or what it says instead."""
    command = [sys.executable, "-m", "coolvid_cli", "decode", str(stream), "--digest"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr).strip()
