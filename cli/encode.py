"""`coolvid encode`: options -> EncodeConfig -> coolvid.encode -> a summary."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import coolvid
from coolvid.errors import ConfigError, StreamError
from coolvid.events import EncodeDone, Event, Listener, TargetDone
from coolvid.files import part_of
from coolvid.settings.config import PRESETS, EncodeConfig
from coolvid.settings.presets import INTRA, MOTION, RESIDUE
from coolvid.settings.toml import write_config as write_toml

from .console import FrameConsole, count_frames
from .journal import journals
from .options import (
    debug_option,
    parse_crop,
    parse_fps,
    parse_positions,
    parse_size,
    plugin_option,
    quiet_option,
    refuse_overwriting,
    take_source_spec,
    threads_option,
)
from .settings import CONFIG_OPTIONS, TARGET_OPTIONS, TARGETS, chosen_config, chosen_target

DEFAULTS = EncodeConfig()
PRESETS_OWN = "the preset's"
EFFORT = "Training effort; more of it makes smaller files (see coolvid presets)."
VERIFIED = "A separate `coolvid decode` of the file gives exactly the pictures of the encoder."

option = click.option
whole = click.IntRange(0)
out_path = click.Path(path_type=Path, dir_okay=False)


def points_option(flag: str, table: Mapping[str, Any], what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that names operating points of a table."""
    help = f"{what}: {', '.join(table)}; several with commas are all tried, frame by frame."
    return option(flag, metavar="NAME[,NAME...]", show_default=PRESETS_OWN, help=help)


STRUCTURE_OPTIONS = (
    option(
        "--gop",
        type=int,
        default=DEFAULTS.structure.gop,
        show_default=True,
        help="From one I or P frame to the next, B frames between; 1: all frames are I frames.",
    ),
    option(
        "--intra-period",
        type=int,
        default=0,
        show_default="first frame only",
        help="From one I frame to the next, a multiple of --gop.",
    ),
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
        help="Price of a bit: larger makes a smaller file of lower quality.",
    ),
    option("--preset", type=click.Choice(PRESETS), default=DEFAULTS.preset, show_default=True, help=EFFORT),
    option(
        "--iterations",
        type=int,
        default=0,
        show_default=PRESETS_OWN,
        help="Training iterations of an I frame; P and B frames get theirs in the preset's proportion.",
    ),
    points_option("--intra", INTRA, "Network size of I frames"),
    points_option("--residue", RESIDUE, "Network size of P and B frames"),
    points_option("--motion", MOTION, "Network size of motion"),
    option(
        "--warp-filter-size",
        type=int,
        default=DEFAULTS.warp_filter_size,
        show_default=True,
        help="Taps of the filter that fetches values between pixels.",
    ),
    option(
        "--inherit/--no-inherit",
        default=True,
        show_default=True,
        help="Predict networks from those of earlier frames or the codec's own.",
    ),
    option("--common-randomness", is_flag=True, help="Give the synthesis noise that encoder and decoder draw alike."),
)
PLUGIN_OPTIONS = (
    plugin_option("--quantizer", "Plugin that stands in for rounding during training."),
    plugin_option("--arm", "Plugin that predicts the latents."),
    plugin_option("--upsampling", "Plugin that brings latents to full size."),
    plugin_option("--synthesis", "Plugin that turns those into pixels."),
    plugin_option("--warper", "Plugin that fetches moved pixels from the references."),
    plugin_option("--distortion", "Plugin that says what is minimised beside the rate."),
    plugin_option("--motion-estimator", "Plugin for the optical flow that motion starts from."),
)
SOURCE_OPTIONS = (
    option("--frames", "n_frames", type=whole, default=0, show_default="all", metavar="N", help="Take N frames."),
    option(
        "--start",
        type=whole,
        default=0,
        show_default=True,
        metavar="N",
        help="Number of the first frame to take, from 0.",
    ),
    option("--crop", type=parse_crop, metavar="WxH+X+Y", help="Take this rectangle of every picture."),
    option("--scale", type=parse_size, metavar="WxH", help="Resize to this, after cropping."),
    option("--size", type=parse_size, metavar="WxH", help="Frame size of raw video whose name does not tell it."),
    option(
        "--fps",
        type=parse_fps,
        metavar="FPS",
        help="Frames per second, as 25 or 30000/1001: of raw video, or instead of the file's own.",
    ),
    option("--pix-fmt", metavar="NAME", help="Pixel format of raw video, as yuv420p10le."),
)
RECORD_OPTIONS = (
    option(
        "--log",
        type=out_path,
        metavar="FILE.jsonl",
        help="Write all settings, every frame and a summary as JSON lines.",
    ),
    option("--csv", type=out_path, metavar="FILE.csv", help="Write a table with a row for every frame."),
)
RUN_OPTIONS = (
    option("--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Start of the random numbers."),
    option("--device", default=DEFAULTS.device, show_default=True, help="Where to train, as cpu or cuda."),
    option("--resume", is_flag=True, help="Continue an interrupted encode or search that had the same settings."),
    option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Decode the finished file in a process of its own and compare the pictures.",
    ),
    threads_option,
    quiet_option,
    debug_option,
)


def all_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Attach every option, in the order in which help lists them."""
    quality = (*QUALITY_OPTIONS[:1], *TARGET_OPTIONS, *QUALITY_OPTIONS[1:])
    settings = STRUCTURE_OPTIONS + quality + PLUGIN_OPTIONS + CONFIG_OPTIONS
    for attach in reversed(settings + SOURCE_OPTIONS + RECORD_OPTIONS + RUN_OPTIONS):
        command = attach(command)
    return command


@click.command("encode")
@click.argument("source", type=click.Path(path_type=Path))
@option(
    "-o", "--out", type=click.Path(path_type=Path), show_default="SOURCE's name with .cvd", help="The stream to write."
)
@all_options
def command(
    source: Path,
    out: Path | None,
    resume: bool,
    verify: bool,
    quiet: bool,
    write_config: Path | None,
    log: Path | None,
    csv: Path | None,
    **settings: Any,
) -> None:
    """Encode SOURCE: a video, an image, numbered images (frames/%04d.png), or - for y4m from standard input.

    Raw .yuv files tell their format by their name (NAME_352x288_30p_yuv420_8b.yuv) or by --size, --fps and --pix-fmt.
    """
    target = stream_name(source, out)
    refuse_overwriting(source, target, write_config, log, csv)
    source_spec = take_source_spec(settings)
    wanted = chosen_target({name: settings.pop(name) for name in TARGETS}, settings)
    config = chosen_config(settings)
    if write_config is not None and wanted is None:
        write_toml(config, write_config)
    with FrameConsole(quiet) as console, journals(log, csv, resume) as others, telling_what_is_kept(target, wanted):
        listen = broadcast([console, *others])
        found = encode(source, target, config, wanted, source_spec=source_spec, resume=resume, listen=listen)
    config = replace(config, lmbda=found.lmbda)
    if write_config is not None and wanted is not None:
        write_toml(config, write_config)
    console.say(summary(target, found.encode, found.lmbda))
    if verify:
        check(target, found.encode)
        console.say(VERIFIED)
    if not found.is_met:
        raise ConfigError(missed(found, wanted))


def encode(
    source: Path, out: Path, config: EncodeConfig, target: coolvid.Target | None, *, listen: Listener, **options: Any
) -> TargetDone:
    """Encode at the configuration's lambda, or at one that meets the target."""
    if target is not None:
        return coolvid.encode_to_target(source, out, target, config, listen=listen, **options)
    done = coolvid.encode(source, out, config, listen=listen, **options)
    return TargetDone(1, config.lmbda, 0.0, "", True, str(out), done)


def missed(found: TargetDone, wanted: coolvid.Target | None) -> str:
    """What to say when no trial met the target."""
    return (
        f"no trial met {wanted}; {found.out} is the closest, {found.text} at lambda {found.lmbda:g}: with little "
        "training or at low quality, results jump from one lambda to the next; train longer (--preset, --iterations), "
        "or choose another target"
    )


def broadcast(listeners: Sequence[Listener]) -> Listener:
    """A listener that tells all of these."""

    def listen(event: Event) -> None:
        for each in listeners:
            each(event)

    return listen


def stream_name(source: Path, out: Path | None) -> Path:
    """What was given, else clip.mp4 -> clip.cvd, shot_%04d.png -> shot.cvd, frames/%04d.png -> frames.cvd.

    Raises UsageError where standard input has no name to take, and for standard output.
    """
    if str(out or source) == "-":
        raise click.UsageError("name the stream that is to be made, as -o clip.cvd")
    if out is not None:
        return out
    stem = re.sub(r"[._-]?%\d*d", "", source.stem) or source.absolute().parent.name
    return Path(f"{stem}.cvd")


@contextmanager
def telling_what_is_kept(out: Path, target: coolvid.Target | None) -> Iterator[None]:
    """Let an interruption say what was kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        kept = part_of(out) if target is None else Path(f"{out}.search")
        if kept == out or not kept.exists():
            raise
        what = "the finished frames" if target is None else "the search so far"
        raise KeyboardInterrupt(f"{kept} keeps {what}: add --resume to go on from there") from interruption


def summary(stream: Path, done: EncodeDone, lmbda: float) -> str:
    """The whole encode in one line; bits per pixel count luma pixels."""
    return (
        f"{stream}: {count_frames(done.n_frames)}, {done.n_bytes} bytes, {done.rate_bpp:.4f} bpp, "
        f"{done.bitrate_bps / 1000:.1f} kbit/s, PSNR {done.psnr_db:.2f} dB, lambda {lmbda:g}, {done.duration_s:.1f} s"
    )


def check(stream: Path, done: EncodeDone) -> None:
    """Decode the finished file by a `coolvid decode` of its own. Raises StreamError when a picture differs."""
    try:
        found = decode_elsewhere(stream)
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(f"{stream} is complete, but was not verified") from interruption
    if found != done.digest:
        raise StreamError(f"{stream} does not decode to the encoder's pictures; do not keep it, and encode again")


def decode_elsewhere(stream: Path) -> str:
    """The digest that another process prints for this stream, or what it says instead.

    -P keeps the current folder off the path: in a checkout it holds a coolvid without kernels.
    """
    command = [sys.executable, "-P", "-m", "coolvid_cli", "decode", str(stream), "--digest"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr).strip()
