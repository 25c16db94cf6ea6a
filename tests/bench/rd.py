"""Bits and quality of real streams, against figures of other codecs.

    python -m tests.bench.rd city foliage --frames 33 --preset medium --lmbda 4e-3,2e-3,1e-3,5e-4 --tsv rd.tsv
    python -m tests.bench.rd kodim15 --lmbda 1e-3,4e-4

Every point is a file written by `coolvid encode` and decoded by `coolvid decode`; bits are those of the whole file,
PSNR is over all samples of the decoded pictures. Options that are not listed go to `coolvid encode` as they are. Clips,
images and the CSV files of other codecs lie in ../shared. A point whose file is still in --folder, made by the same
command from the same commit, is not encoded again.
"""

import argparse
import csv
import itertools
import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coolvid.api import read_info
from coolvid.errors import ConfigError
from coolvid.media import open_source
from coolvid.picture.quality import bd_rate, mse

from . import ROOT, require_kernels

SHARED = ROOT.parent / "shared"
ANCHORS = SHARED / "anchors"
LAMBDAS = "4e-3,2e-3,1e-3,5e-4"
SHORT = 9  # frames of the short anchors


@dataclass(frozen=True)
class Point:
    """One stream. by_type: bytes of the packets of each frame type; loss: 1000 * (MSE + lmbda * bits per pixel)."""

    clip: str
    lmbda: float
    n_frames: int
    n_bytes: int
    bpp: float
    psnr_db: float
    loss: float
    seconds: float
    by_type: dict
    networks: int
    commit: str
    settings: str


# -- one point ------------------------------------------------------------------------------------------------


def find(name):
    """The one clip or image whose name starts so."""
    found = sorted(path for folder in ("clips", "images") for path in (SHARED / folder).glob(f"{name}*"))
    if len(found) != 1:
        raise SystemExit(f"'{name}' stands for {len(found)} files in {SHARED}; name one")
    return found[0]


def coolvid(*arguments):
    command = [sys.executable, "-P", "-m", "coolvid_cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def commit():
    """The commit that is checked out, with + when files differ from it."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def measured(source, lmbda, options, settings):
    """The point of this clip at this lambda, from disk where it is there."""
    stream = options.folder / f"{source.stem}-{options.name}-{lmbda:g}.cvd"
    record, version = stream.with_suffix(".json"), commit()
    known = json.loads(record.read_text()) if record.exists() else {}
    if known.get("settings") == " ".join(settings) and (known["commit"] == version or options.reuse):
        return Point(**known)
    start = time.perf_counter()
    coolvid("encode", source, "-o", stream, "--lmbda", lmbda, *settings, "--quiet", "--no-verify")
    point = judge(source, stream, lmbda, time.perf_counter() - start, version, settings)
    record.write_text(json.dumps(asdict(point)))
    return point


def judge(source, stream, lmbda, seconds, version, settings):
    """Decode the stream by `coolvid decode` and compare."""
    info = read_info(stream)
    form, n_frames = info.header.format, info.header.n_frames
    decoded = stream.with_suffix(".png" if source.suffix == ".png" else ".y4m")
    coolvid("decode", stream, decoded, "--quiet")
    with open_source(source) as original, open_source(decoded) as pictures:
        errors = [mse(a, b) for a, b in zip(original, pictures, strict=False)]
    decoded.unlink()
    error, n_bytes = sum(errors) / len(errors), stream.stat().st_size
    bpp = 8 * n_bytes / (form.height * form.width * n_frames)
    by_type, networks = {}, 0
    for packet in info.packets:
        by_type[packet.frame_type.name] = by_type.get(packet.frame_type.name, 0) + packet.n_bytes
        networks += packet.bits_by_part.get("networks", 0)  # a copy has none
    return Point(
        clip=source.stem.split("_")[0],
        lmbda=lmbda,
        n_frames=len(errors),
        n_bytes=n_bytes,
        bpp=bpp,
        psnr_db=-10 * math.log10(error),
        loss=1000 * (error + lmbda * bpp),
        seconds=seconds,
        by_type=by_type,
        networks=networks // 8,
        commit=version,
        settings=" ".join(settings),
    )


# -- the others -----------------------------------------------------------------------------------------------


def curve(clip, encoder, n_frames):
    """(bits per pixel, PSNRs) of another codec for these frames of the clip."""
    name = "conventional-9f.csv" if n_frames <= SHORT else "conventional.csv"
    with open(ANCHORS / name, newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["clip"], row["encoder"]) == (clip.stem, encoder)]
    return [float(row["bpp"]) for row in rows], [float(row["psnr_yuv"]) for row in rows]


def reference_loss(image, lmbda):
    """1000 * loss of the reference for an image of the Kodak set, None where it is not known."""
    text = (ANCHORS / "coolchic-5.0-kodak.csv").read_bytes().decode().replace("\r", "")  # some numbers end in one
    known = {(row["image"], float(row["lmbda"])): float(row["loss"]) for row in csv.DictReader(text.splitlines())}
    return known.get((image.stem, lmbda))


def at_equal_quality(point, rates, qualities):
    """The point's bits, in percent more than those of a curve at its PSNR; None outside the curve."""
    pairs = sorted(zip(qualities, rates, strict=True))
    for (low, less), (high, more) in itertools.pairwise(pairs):
        if low <= point.psnr_db <= high:
            share = (point.psnr_db - low) / (high - low)
            return 100 * (point.bpp / (less ** (1 - share) * more**share) - 1)
    return None


def compared(source, points, options):
    """A line that says how a clip's points stand."""
    if source.suffix == ".png":
        pairs = [(p.loss, reference_loss(source, p.lmbda)) for p in points]
        known = [100 * (own / other - 1) for own, other in pairs if other]
        return f"loss against the reference: {', '.join(f'{x:+.1f} %' for x in known) or 'not known'}"
    rates, qualities = curve(source, options.against, options.frames)
    try:
        rate = bd_rate(rates, qualities, [p.bpp for p in points], [p.psnr_db for p in points])
        return f"BD-rate against {options.against}: {rate:+.1f} %"
    except ConfigError as error:
        return f"no BD-rate against {options.against}: {error}"


# -- the table ------------------------------------------------------------------------------------------------


def table_of(points, options):
    table = Table("clip", title=f"{options.frames} frames, preset {options.preset}", title_justify="left")
    for heading in ("lmbda", "bytes", "bpp", "PSNR dB", "loss", f"% at PSNR of {options.against}", "networks",
                    "I", "P", "B", "s"):  # fmt: skip
        table.add_column(heading, justify="right")
    for source, point in points:
        rates = curve(source, options.against, options.frames)
        more = at_equal_quality(point, *rates) if rates[0] else None
        by_type = [str(point.by_type.get(kind, "")) for kind in "IPB"]
        table.add_row(point.clip, f"{point.lmbda:g}", str(point.n_bytes), f"{point.bpp:.4f}", f"{point.psnr_db:.3f}",
                      f"{point.loss:.4f}", "" if more is None else f"{more:+.1f}", str(point.networks), *by_type,
                      f"{point.seconds:.0f}")  # fmt: skip
    return table


def write_tsv(path, points):
    titles = list(Point.__dataclass_fields__)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(titles)
        writer.writerows([getattr(point, title) for title in titles] for _, point in points)


def parsed():
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.rd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", help="beginnings of names in ../shared/clips and ../shared/images")
    parser.add_argument("--frames", type=int, default=33, help="of each clip (default: 33)")
    parser.add_argument("--lmbda", default=LAMBDAS, help=f"with commas (default: {LAMBDAS})")
    parser.add_argument("--preset", default="medium")
    parser.add_argument("--against", default="x265-medium", help="an encoder of the CSV files (default: x265-medium)")
    parser.add_argument("--jobs", type=int, default=1, help="streams at a time, each with its share of the cores")
    parser.add_argument("--threads", type=int, default=0, help="of each encode (default: all cores)")
    parser.add_argument("--folder", type=Path, default=Path("rd"), help="where streams are kept (default: rd)")
    parser.add_argument("--name", default="coolvid", help="part of the streams' names, for variants side by side")
    parser.add_argument("--reuse", action="store_true", help="take known points of other commits too")
    parser.add_argument("--tsv", metavar="FILE", help="also write the points as tab-separated values")
    return parser.parse_known_args()


def main():
    options, further = parsed()
    require_kernels()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.folder = options.folder.resolve()
    settings = ["--frames", str(options.frames), "--preset", options.preset, "--threads", str(options.threads),
                "--gop", "8", "--intra-period", "32", *further]  # fmt: skip
    sources, console = [find(name) for name in options.clips], Console()
    console.width = max(console.width, 120)
    tasks = [(source, float(text)) for source in sources for text in options.lmbda.split(",")]
    points = []
    with ThreadPoolExecutor(options.jobs) as pool:
        made = pool.map(lambda task: (task[0], measured(*task, options, settings)), tasks)
        for source, point in made:
            console.log(f"{point.clip} {point.lmbda:g}: {point.n_bytes} bytes, {point.psnr_db:.3f} dB")
            points.append((source, point))
    console.print(table_of(points, options))
    for source in sources:
        console.print(source.stem, compared(source, [p for s, p in points if s == source], options))
    if options.tsv:
        write_tsv(options.tsv, points)


if __name__ == "__main__":
    main()
