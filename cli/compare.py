"""`coolvid compare`: rate-distortion curves and BD-rates of coolvid against conventional encoders."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from coolvid.errors import ConfigError, MissingExtra, count_frames
from coolvid.events import Event, PointDone, PointStarted
from coolvid.study.compare import compare
from coolvid.study.curves import BdRate, Comparison, Point, plot_comparison, write_comparison
from coolvid.study.peers import ENCODERS, Peer

from . import encode
from .console import FrameConsole, make_table
from .options import SOURCE_NAMES, debug_option, quiet_option, refuse_overwriting, take_source_spec
from .settings import chosen_config

DEFAULT_LMBDAS = "1e-2,3e-3,1e-3,3e-4"
SHARED = (
    "gop", "intra_period", "low_delay", "preset", "iterations", "intra", "residue", "motion", "warp_filter_size",
    "inherit", "common_randomness", "quantizer", "arm", "upsampling", "synthesis", "warper", "distortion",
    "motion_estimator", "config_file", "assignments", "n_frames", *SOURCE_NAMES, "seed", "device", "threads",
)  # fmt: skip
TITLES = ("codec", "setting", "bytes", "bpp", "PSNR", "SSIM", "MS-SSIM", "seconds")
PLANES_OVER = "PSNR in dB over all samples of all frames"


def parse_lmbdas(text: str) -> tuple[float, ...]:
    """1e-2,1e-3 -> (0.01, 0.001)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"cannot read lambdas '{text}'; write comma-separated numbers, for example {DEFAULT_LMBDAS}"
        ) from error


def parse_peers(text: str) -> tuple[Peer, ...]:
    """x264,x265:veryslow -> peers."""
    return tuple(Peer.parse(part) for part in text.split(","))


@click.command("compare")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="compare", show_default=True, help="Folder to write to."
)
@click.option(
    "--lmbda",
    "lmbdas",
    type=parse_lmbdas,
    metavar="L,L,...",
    default=DEFAULT_LMBDAS,
    show_default=True,
    help="Encode with coolvid at each of these lambdas.",
)
@click.option(
    "--against",
    type=parse_peers,
    metavar="NAME[:PRESET],...",
    default="x264,x265,svtav1",
    show_default=True,
    help=f"Encoders to compare with: {', '.join(ENCODERS)}; x265:veryslow selects a preset.",
)
@click.option("--vmaf", is_flag=True, help="Add VMAF (needs an ffmpeg with libvmaf).")
@click.option("--force", is_flag=True, help="Encode points again that are already in the folder.")
@quiet_option
@debug_option
def command(
    source: Path,
    out: Path,
    lmbdas: tuple[float, ...],
    against: tuple[Peer, ...],
    vmaf: bool,
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Encode SOURCE with coolvid and other encoders over the same PSNR range, and compare rates at equal quality.

    The other encoders run inside PyAV, tuned for PSNR, with I frames at the same positions as coolvid. Their sizes
    count packets only, without a container. The folder --out receives comparison.csv, comparison.json, comparison.png
    (needs matplotlib) and all streams. Points that are already there are not encoded again. To add the curves to a
    report: `coolvid report STREAM --compare compare/comparison.json`.
    """
    refuse_overwriting(source, *(out / f"comparison.{suffix}" for suffix in ("csv", "json", "png")))
    source_spec = take_source_spec(settings)
    config = chosen_config(settings)
    with PointConsole(quiet) as console, telling_how_to_go_on(out):
        comparison = compare(
            source, out, lmbdas, against, config, source_spec=source_spec, with_vmaf=vmaf, force=force, listen=console
        )
    files = [*write_comparison(comparison, out)]
    problem = ""
    try:
        plot_comparison(comparison, out / "comparison.png")
        files.append(out / "comparison.png")
    except MissingExtra as error:
        problem = str(error)
    if not quiet:
        show(console, comparison, files, problem)


# The options of `coolvid encode` set how coolvid encodes.
command.params[-2:-2] = [param for param in encode.command.params if param.name in SHARED]


class PointConsole(FrameConsole):
    """Draws coolvid's frames during an encode; prints one line for each finished point."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, PointDone):
            self.say(point_line(event.point, event.is_new))
        elif not isinstance(event, PointStarted):
            super().__call__(event)


def point_line(point: Point, is_new: bool) -> str:
    """A point in one line."""
    seconds = "already in the folder" if not is_new else _number(point.duration_s, ".1f", " s")
    return (
        f"{point.codec:16s} {point.setting:14s} {point.n_bytes:9d} bytes  {point.bpp:8.4f} bpp  "
        f"{point.psnr_db:6.2f} dB  {seconds}"
    )


def show(console: FrameConsole, comparison: Comparison, files: list[Path], problem: str) -> None:
    """Print the table, the BD-rates and the files."""
    form = comparison.format
    with_vmaf = any(point.vmaf is not None for point in comparison.points)
    titles = (*TITLES[:-1], "VMAF", TITLES[-1]) if with_vmaf else TITLES
    console.say("")
    console.say(f"{comparison.source}, {form.width}x{form.height}, {count_frames(comparison.n_frames)}; {PLANES_OVER}")
    console.say("")
    console.console.print(make_table(titles, (_row(p, with_vmaf) for p in comparison.points), left=2))
    console.say("")
    for rate in comparison.bd_rates:
        console.say(rate_line(rate))
    console.say("")
    console.say(f"written: {', '.join(map(str, files))}")
    if problem:
        console.say(f"no plot: {problem}")


def _row(point: Point, with_vmaf: bool) -> list[str]:
    quality = point.quality
    figures = [f"{point.bpp:.4f}", f"{point.psnr_db:.2f}", f"{quality.ssim:.4f}", _number(quality.ms_ssim, ".4f")]
    vmaf = [_number(point.vmaf, ".2f")] if with_vmaf else []
    return [point.codec, point.setting, str(point.n_bytes), *figures, *vmaf, _number(point.duration_s, ".2f")]


def rate_line(rate: BdRate) -> str:
    """The BD-rate in words."""
    if rate.percent is None or rate.psnr_span_db is None:
        return f"BD-rate of {rate.codec} against {rate.anchor}: none, {rate.problem}"
    low, high = rate.psnr_span_db
    word = "fewer" if rate.percent < 0 else "more"
    return (
        f"BD-rate of {rate.codec} against {rate.anchor}: {rate.percent:+.1f} % "
        f"({abs(rate.percent):.1f} % {word} bits at equal PSNR, {low:.2f} to {high:.2f} dB)"
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


@contextmanager
def telling_how_to_go_on(out: Path) -> Iterator[None]:
    """Note on an interruption, or on an error that left finished frames, how to continue."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or hasattr(error, "__notes__"):
            again = shlex.join(argument for argument in sys.argv[1:] if argument != "--force")
            error.__notes__ = [f"{out} holds the finished points; continue with: coolvid {again}"]
        raise
