"""`coolvid encode`: options -> EncodeConfig -> coolvid.encode -> a summary."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import coolvid
from coolvid.errors import ConfigError, StreamError, count_frames
from coolvid.events import EncodeDone, Event, Listener, TargetDone
from coolvid.files import check_writable, is_in_place, is_standard_output
from coolvid.picture.rate import parse_fps
from coolvid.settings.config import PRESETS, TUNES, EncodeConfig
from coolvid.settings.presets import INTRA, MOTION, RESIDUE
from coolvid.settings.toml import write_config as write_toml

from .console import FrameConsole
from .journal import journals
from .options import (
    debug_option,
    parse_crop,
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
PRESETS_OWN = "from the preset"
EFFORT = "Training effort: slower presets give smaller files (see coolvid presets)."
VERIFIED = "Verified: a separate `coolvid decode` reproduces the encoder's pictures exactly."

option = click.option
whole = click.IntRange(0)
out_path = click.Path(path_type=Path, dir_okay=False)


def points_option(flag: str, table: Mapping[str, Any], what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that names operating points of a table."""
    help = f"{what}: {', '.join(table)}. With several, the encoder tries each on every frame and keeps the best."
    return option(flag, metavar="NAME[,NAME...]", show_default=PRESETS_OWN, help=help)


STRUCTURE_OPTIONS = (
    option(
        "--gop",
        type=int,
        default=DEFAULTS.structure.gop,
        show_default=True,
        help="Distance from one I or P frame to the next, with B frames between; 1: I frames only.",
    ),
    option(
        "--intra-period",
        type=int,
        default=0,
        show_default="first frame only",
        help="Distance between I frames, a multiple of --gop.",
    ),
    option("--low-delay", is_flag=True, help="No B frames: predict every frame from the previous one."),
    option("--intra-pos", type=parse_positions, metavar="N,N,...", help="Positions of I frames; -1 is the last."),
    option("--p-pos", type=parse_positions, metavar="N,N,...", help="Positions of P frames."),
)
QUALITY_OPTIONS = (
    option(
        "--lmbda",
        type=float,
        default=DEFAULTS.lmbda,
        show_default=True,
        help="Weight of the rate: larger values give smaller files of lower quality.",
    ),
    option("--preset", type=click.Choice(PRESETS), default=DEFAULTS.preset, show_default=True, help=EFFORT),
    option(
        "--iterations",
        type=int,
        default=0,
        show_default=PRESETS_OWN,
        help="Training iterations per I frame; P and B frames scale in the preset's proportions.",
    ),
    option(
        "--tune",
        type=click.Choice(TUNES),
        show_default="mse",
        help="What to preserve: mse for PSNR, ms_ssim for structure, wasserstein for textures.",
    ),
    option(
        "--alpha",
        type=float,
        metavar="A",
        show_default="from the tune",
        help="Weight of the perceptual distortion beside mean squared error, 0 to 1.",
    ),
    points_option("--intra", INTRA, "Network size for I frames"),
    points_option("--residue", RESIDUE, "Residue network size for P and B frames"),
    points_option("--motion", MOTION, "Motion network size for P and B frames"),
    option(
        "--warp-filter-size",
        type=int,
        default=DEFAULTS.warp_filter_size,
        show_default=True,
        help="Taps of the interpolation filter for subpixel motion.",
    ),
    option(
        "--inherit/--no-inherit",
        default=True,
        show_default=True,
        help="Predict networks from those of an earlier frame or from the built-in prior.",
    ),
    option(
        "--common-randomness",
        is_flag=True,
        help="Feed the synthesis with noise that encoder and decoder generate identically.",
    ),
)
PLUGIN_OPTIONS = (
    plugin_option("--quantizer", "Plugin that replaces rounding during training."),
    plugin_option("--arm", "Plugin for the autoregressive model of the latents."),
    plugin_option("--upsampling", "Plugin that upsamples latents to full resolution."),
    plugin_option("--synthesis", "Plugin that computes pixels from upsampled latents."),
    plugin_option("--warper", "Plugin that warps the reference frames."),
    plugin_option("--distortion", "Plugin for the distortion to minimize."),
    plugin_option("--motion-estimator", "Plugin for the optical flow that initializes motion."),
)
SOURCE_OPTIONS = (
    option("--frames", "n_frames", type=whole, default=0, show_default="all", metavar="N", help="Encode N frames."),
    option(
        "--start",
        type=whole,
        default=0,
        show_default=True,
        metavar="N",
        help="First frame to use, counted from 0.",
    ),
    option("--crop", type=parse_crop, metavar="WxH+X+Y", help="Crop every picture to this rectangle."),
    option("--scale", type=parse_size, metavar="WxH", help="Resize to this size, after cropping."),
    option("--size", type=parse_size, metavar="WxH", help="Frame size of raw video, unless in its name."),
    option(
        "--fps",
        type=parse_fps,
        metavar="FPS",
        help="Frames per second, for example 25 or 30000/1001; overrides that of the file.",
    ),
    option("--pix-fmt", metavar="NAME", help="Pixel format of raw video, for example yuv420p10le."),
    option(
        "--stream",
        "stream_number",
        type=whole,
        metavar="N",
        show_default="the default one",
        help="Video stream of a file with several, counted as by ffprobe.",
    ),
)
RECORD_OPTIONS = (
    option(
        "--log",
        type=out_path,
        metavar="FILE.jsonl",
        help="Write all settings, every frame and a summary as JSON lines.",
    ),
    option("--csv", type=out_path, metavar="FILE.csv", help="Write a table with one row per frame."),
)
RUN_OPTIONS = (
    option("--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Random seed."),
    option("--device", default=DEFAULTS.device, show_default=True, help="Training device, for example cpu or cuda."),
    option("--resume", is_flag=True, help="Continue an interrupted encode or search with the same settings."),
    option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Decode the finished file in a separate process and compare the pictures.",
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
    """Encode SOURCE: a video, an image, several images, or - for y4m from standard input.

    Several images are numbered (frames/%04d.png), in a folder (frames), or match a quoted name ('frames/*.png').
    The format of raw .yuv files comes from the name (NAME_352x288_30p_yuv420_8b.yuv) or from --size, --fps and
    --pix-fmt.
    """
    target = stream_name(source, out)
    for read in filter(None, (source, settings["config_file"])):
        refuse_overwriting(read, *coolvid.api.output_names(target), write_config, log, csv)
    check_outputs((target, write_config), (log, csv))
    source_spec = take_source_spec(settings)
    wanted = chosen_target({name: settings.pop(name) for name in TARGETS}, settings)
    config = chosen_config(settings)
    if write_config is not None and wanted is None:
        write_toml(config, write_config)
    with FrameConsole(quiet or is_standard_output(target)) as console, journals(log, csv, resume) as others:
        listen = broadcast([console, *others])
        found = encode(source, target, config, wanted, source_spec=source_spec, resume=resume, listen=listen)
    config = replace(config, lmbda=found.lmbda)
    if write_config is not None and wanted is not None:
        write_toml(config, write_config)
    console.say(summary(target, found.encode, found.lmbda))
    if verify and not is_in_place(target):  # a pipe or a device cannot be read again
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
    """The error message when no trial met the target."""
    return (
        f"no trial met {wanted}; {found.out} is the closest, with {found.text} at lambda {found.lmbda:g}; with little "
        "training or at low quality, results jump between nearby lambdas: train longer (--preset, --iterations), or "
        "choose another target"
    )


def check_outputs(whole: Iterable[Path | None], growing: Iterable[Path | None]) -> None:
    """Raise OutputError unless these files can be written, whole or line by line."""
    for each in filter(None, whole):
        check_writable(each)
    for each in filter(None, growing):
        check_writable(each, as_it_stands=True)


def broadcast(listeners: Sequence[Listener]) -> Listener:
    """A listener that passes every event to all of these."""

    def listen(event: Event) -> None:
        for each in listeners:
            each(event)

    return listen


def stream_name(source: Path, out: Path | None) -> Path:
    """`out` if given, else clip.mp4 -> clip.cvd; for images shot_%04d.png -> shot.cvd, frames/*.png -> frames.cvd.

    Raises UsageError for standard input without `out`, and for standard output.
    """
    if str(out or source) == "-":
        raise click.UsageError("the stream needs a file name; give one, for example -o clip.cvd")
    if out is not None:
        return out
    if source.is_file():
        return Path(f"{source.stem}.cvd")
    if source.is_dir():
        return Path(f"{source.resolve().name}.cvd")
    stem = re.sub(r"[._-]?(%\d*d|[*?]+)", "", source.stem) or source.absolute().parent.name
    return Path(f"{stem}.cvd")


def summary(stream: Path, done: EncodeDone, lmbda: float) -> str:
    """The whole encode in one line; bits per pixel count luma pixels."""
    return (
        f"{stream}: {count_frames(done.n_frames)}, {done.n_bytes} bytes, {done.rate_bpp:.4f} bpp, "
        f"{done.bitrate_bps / 1000:.1f} kbit/s, PSNR {done.psnr_db:.2f} dB, lambda {lmbda:g}, {done.duration_s:.1f} s"
    )


def check(stream: Path, done: EncodeDone) -> None:
    """Decode the finished file with a separate `coolvid decode`. Raises StreamError when a picture differs."""
    try:
        found = decode_elsewhere(stream)
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(f"{stream} is complete, but not verified") from interruption
    if found != done.digest:
        raise StreamError(f"{stream} does not decode to the encoder's pictures; discard it and encode again")


def decode_elsewhere(stream: Path) -> str:
    """The digest of this stream as another process prints it, or the error message of that process.

    -P keeps the current folder off the path: in a checkout it holds a coolvid without kernels.
    """
    command = [sys.executable, "-P", "-m", "coolvid_cli", "decode", str(stream), "--digest"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr).strip()
