"""Rate-distortion curves: points, BD-rates, and their files (CSV, JSON, PNG)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from coolvid.errors import ConfigError, MissingExtra
from coolvid.files import check_writable, replacing, write_text
from coolvid.picture.quality import SequenceQuality, bd_rate
from coolvid.picture.types import PixelFormat, VideoFormat

FORMAT = "coolvid comparison 1"
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Point:
    """One encode, measured on its decoded pictures.

    codec: for example x265:medium; setting: for example crf 26; stream: file name. n_bytes: the whole stream with
    headers, without a container. duration_s: of the encoder alone, None if unknown. vmaf: None if not requested.
    """

    codec: str
    setting: str
    stream: str
    n_bytes: int
    bpp: float
    quality: SequenceQuality
    vmaf: float | None = None
    duration_s: float | None = None

    @property
    def psnr_db(self) -> float:
        return self.quality.psnr_db

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for a PSNR that is not finite."""
        return {key: _finite(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Point:
        """Inverse of to_json. Raises KeyError, TypeError or ValueError for anything else."""
        quality = dict(values["quality"])
        quality["psnr_db"] = _decibels(quality["psnr_db"])
        quality["psnr_planes_db"] = tuple(_decibels(value) for value in quality["psnr_planes_db"])
        return cls(**{**values, "quality": SequenceQuality(**quality)})


@dataclass(frozen=True)
class BdRate:
    """Bjontegaard delta rate of codec relative to anchor over the PSNRs that both reach.

    percent: negative when codec needs fewer bits; None if not defined, for the reason in `problem`.
    """

    codec: str
    anchor: str
    percent: float | None
    psnr_span_db: tuple[float, float] | None
    problem: str = ""

    @classmethod
    def of(cls, codec: Sequence[Point], anchor: Sequence[Point]) -> BdRate:
        """The BD-rate of two curves, neither of them empty."""
        names = codec[0].codec, anchor[0].codec
        a, b = _usable(anchor), _usable(codec)
        try:
            percent = bd_rate(
                [p.n_bytes for p in a], [p.psnr_db for p in a], [p.n_bytes for p in b], [p.psnr_db for p in b]
            )
        except ConfigError as error:
            return cls(*names, None, None, str(error))
        span = max(a[0].psnr_db, b[0].psnr_db), min(a[-1].psnr_db, b[-1].psnr_db)
        return cls(*names, percent, span)


@dataclass(frozen=True)
class Comparison:
    """Curves of one source. points: grouped by codec, in order of rising rate within each."""

    source: str
    format: VideoFormat
    fps: Fraction
    n_frames: int
    points: tuple[Point, ...]
    bd_rates: tuple[BdRate, ...]

    @property
    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Points by codec."""
        codecs = dict.fromkeys(point.codec for point in self.points)
        return {codec: tuple(p for p in self.points if p.codec == codec) for codec in codecs}

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump; FORMAT names the layout."""
        return {
            "format": FORMAT,
            "source": {
                "name": self.source,
                "width": self.format.width,
                "height": self.format.height,
                "pixel_format": self.format.pixel_format.value,
                "bit_depth": self.format.bit_depth,
                "fps": str(self.fps),
                "n_frames": self.n_frames,
            },
            "curves": [
                {"codec": codec, "points": [point.to_json() for point in points]}
                for codec, points in self.curves.items()
            ],
            "bd_rates": [asdict(rate) for rate in self.bd_rates],
        }

    def to_csv(self) -> str:
        """One row per point after a title row; unknown values are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("clip", "codec", "setting", "frames", "bytes", "bpp", "kbps", *self._titles, "seconds"))
        writer.writerows(self._row(point) for point in self.points)
        return text.getvalue()

    @property
    def _titles(self) -> tuple[str, ...]:
        planes = "rgb" if self.format.pixel_format is PixelFormat.RGB else "yuv"
        return (f"psnr_{planes}", *(f"psnr_{plane}" for plane in planes), "ssim", "ms_ssim", "vmaf")

    def _row(self, point: Point) -> list[object]:
        quality, kbps = point.quality, 8 * point.n_bytes * float(self.fps) / self.n_frames / 1000
        return [
            self.source, point.codec, point.setting, self.n_frames, point.n_bytes, f"{point.bpp:.5f}", f"{kbps:.2f}",
            *(f"{psnr:.4f}" for psnr in (quality.psnr_db, *quality.psnr_planes_db)), f"{quality.ssim:.5f}",
            "" if quality.ms_ssim is None else f"{quality.ms_ssim:.5f}",
            "" if point.vmaf is None else f"{point.vmaf:.3f}",
            "" if point.duration_s is None else f"{point.duration_s:.2f}",
        ]  # fmt: skip


def write_comparison(comparison: Comparison, folder: str | Path) -> tuple[Path, Path]:
    """comparison.csv and comparison.json in an existing folder. Raises OutputError."""
    csv_path, json_path = Path(folder) / "comparison.csv", Path(folder) / "comparison.json"
    write_text(csv_path, comparison.to_csv())
    write_text(json_path, json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n")
    return csv_path, json_path


def plot_comparison(comparison: Comparison, path: str | Path) -> None:
    """PSNR over bits per pixel, one line per codec, as PNG. Raises MissingExtra without matplotlib, OutputError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # type: ignore[import-not-found, unused-ignore]
        from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]
        from matplotlib.ticker import FuncFormatter, LogLocator  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra("the plot needs matplotlib: pip install 'coolvid[plot]'") from error
    check_writable(path)
    figure = Figure(figsize=(8, 5.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (codec, points) in enumerate(comparison.curves.items()):
        shown = [p for p in points if math.isfinite(p.psnr_db)]
        axes.plot(
            [p.bpp for p in shown], [p.psnr_db for p in shown], marker=_MARKERS[i % len(_MARKERS)],
            linewidth=1 if i else 2.2, markersize=5 if i else 7, label=_label(codec, comparison.bd_rates),
            zorder=2 if i else 3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("bits per pixel (logarithmic)")
    axes.set_ylabel("PSNR over all samples, dB")
    axes.set_title(f"{comparison.source}, {comparison.n_frames} frame{'s' if comparison.n_frames > 1 else ''}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _usable(points: Sequence[Point]) -> list[Point]:
    """Points of finite PSNR, in order of rising PSNR; of points with equal PSNR, only the smallest."""
    best: dict[float, Point] = {}
    for point in sorted(points, key=lambda point: -point.n_bytes):
        best[point.psnr_db] = point
    return [best[psnr_db] for psnr_db in sorted(best) if math.isfinite(psnr_db)]


def _label(codec: str, rates: Sequence[BdRate]) -> str:
    """The codec; for an anchor, with the BD-rate against it."""
    found = [rate for rate in rates if rate.anchor == codec and rate.percent is not None]
    return f"{codec} ({found[0].codec} {found[0].percent:+.1f} % BD-rate)" if found else codec


def _finite(value: Any) -> Any:
    """The value with None in place of infinite numbers, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _decibels(value: float | None) -> float:
    return math.inf if value is None else float(value)
