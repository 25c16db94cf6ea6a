"""A rate or a quality is wanted instead of a lambda: a search over lambda, by few encodes.

The quantity falls as lambda grows, nearly on a line: log rate, or dB, over log lambda. A search starts from a usual
line, goes on by the secant, and once the target lies between two trials by the regula falsi. Where training is long,
short trials with fewer iterations come first; they are off by about the same amount everywhere, so they find the
neighbourhood and the slope. What counts is the real size and quality of a whole encode.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coolvid.errors import ConfigError, InputError, choose, within
from coolvid.events import EncodeDone, Listener, TargetDone, TrialDone, TrialStarted
from coolvid.files import discard, move, part_of, write_text
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import effective_preset, intra_total
from coolvid.settings.toml import settings_of_bytes

LMBDA_RANGE = (1e-7, 10.0)
# Short trials have a fifth of the iterations, and at least so many: with 114 instead of 570, files were twice as big.
SHORT_SHARE = 5
MIN_SHORT = 600
MAX_SHORT = 6
# A short trial this close (in what Target.excess counts) ends the short ones; one this far off at an end of lambda's
# range shows that whole encodes cannot meet the target either.
NEAR = 0.1
HOPELESS = 1.5
MAX_STEP = math.log(30)
# Of Target.excess() over log lambda: what is usual, and the steepest and flattest that are believed.
USUAL_SLOPE = -0.5
SLOPES = (-2.0, -0.08)


@dataclass(frozen=True)
class Target:
    """quantity "bpp" (bits per luma pixel), "bitrate" (bits per second) or "psnr" (dB over all samples), of the whole
    file. Met within 2 % of a rate or 0.1 dB. Raises ConfigError."""

    quantity: str
    value: float

    def __post_init__(self) -> None:
        choose("target", self.quantity, ("bpp", "bitrate", "psnr"))
        within(f"target {self.quantity}", self.value, *{"psnr": (1, 120)}.get(self.quantity, (1e-6, 1e12)))

    def __str__(self) -> str:
        return self.text(self.value)

    def text(self, value: float) -> str:
        """A value of this quantity, with its unit."""
        if self.quantity == "psnr":
            return f"{value:.2f} dB"
        return f"{value:.4g} bpp" if self.quantity == "bpp" else f"{value / 1000:.4g} kbit/s"

    def of(self, done: EncodeDone) -> float:
        """The quantity of a finished encode."""
        return {"bpp": done.rate_bpp, "bitrate": done.bitrate_bps, "psnr": min(200.0, done.psnr_db)}[self.quantity]

    def excess(self, value: float) -> float:
        """How far above the target: log of the ratio for rates, decibels / 5 for PSNR (which makes the two alike)."""
        return (value - self.value) / 5 if self.quantity == "psnr" else math.log(value / self.value)

    def is_met(self, value: float) -> bool:
        """Whether a value is close enough."""
        if self.quantity == "psnr":
            return abs(value - self.value) <= 0.1
        return abs(value / self.value - 1) <= 0.02

    def usual_lmbda(self, pixels_per_second: float) -> float:
        """Where a search starts: at lambda 1e-3, 0.1 bpp and 34 dB are usual for small natural clips."""
        usual = {"bpp": 0.1, "bitrate": 0.1 * pixels_per_second, "psnr": 34.0}[self.quantity]
        return clamp(1e-3 * math.exp(-self.excess(usual) / USUAL_SLOPE))


def clamp(lmbda: float) -> float:
    """The nearest lambda that may be used, to four digits."""
    return min(LMBDA_RANGE[1], max(LMBDA_RANGE[0], float(f"{lmbda:.4g}")))


@dataclass(frozen=True)
class Point:
    """A measured trial. excess: of its value over the target, as Target.excess()."""

    lmbda: float
    excess: float


def propose(points: Sequence[Point], slope: float) -> float | None:
    """The lambda to try next, to four digits; None when the end of lambda's range was tried and does not reach.

    points: what was measured, at least one. slope: of excess over log lambda, to be used as long as there is one point.
    """
    above = [p for p in points if p.excess > 0]
    below = [p for p in points if p.excess <= 0]
    low = max(above, key=lambda p: p.lmbda, default=None)
    high = min(below, key=lambda p: p.lmbda, default=None)
    if low and high and low.lmbda < high.lmbda:
        share = min(0.95, max(0.05, low.excess / (low.excess - high.excess)))
        wanted = low.lmbda * (high.lmbda / low.lmbda) ** share
    else:  # the target lies outside, or training is noisier than the trials are apart
        near = nearest(points)
        step = -near.excess / local_slope(points, slope)
        wanted = near.lmbda * math.exp(min(MAX_STEP, max(-MAX_STEP, step)))
    return _fresh(wanted, points)


def _fresh(wanted: float, points: Sequence[Point]) -> float | None:
    """The nearest untried lambda inside the range, from `wanted` in the direction of the target."""
    tried = {p.lmbda for p in points}
    factor = 1.01 if nearest(points).excess > 0 else 1 / 1.01
    for power in range(len(points) + 1):
        lmbda = clamp(wanted * factor**power)
        if lmbda not in tried:
            return lmbda
    return None


def nearest(points: Sequence[Point]) -> Point:
    """The point with the least excess in magnitude."""
    return min(points, key=lambda p: abs(p.excess))


def local_slope(points: Sequence[Point], usual: float) -> float:
    """Of excess over log lambda, between the two points nearest to the target; within reason, whatever the noise."""
    if len(points) < 2:
        return usual
    one, other = sorted(points, key=lambda p: abs(p.excess))[:2]
    slope = (other.excess - one.excess) / math.log(other.lmbda / one.lmbda)
    return min(SLOPES[1], max(SLOPES[0], slope))


Encode = Callable[..., EncodeDone]
"""api.encode(), or what stands in for it: (source, out, config, *, resume, listen, **source_options)."""


def search(
    encode: Encode,
    source: str | Path,
    out: Path,
    target: Target,
    start: float,
    config: EncodeConfig,
    *,
    max_encodes: int,
    resume: bool,
    listen: Listener,
    source_options: Mapping[str, Any],
) -> TargetDone:
    """Call encode() at one lambda after the other until the file meets the target; see api.encode_to_target().

    start: the first lambda, in MSE + lambda * bits per pixel. Raises ConfigError when the target is out of reach for
    this source, and what encode() raises.
    """
    within("max_encodes", max_encodes, 1, 100)
    trials = _Trials(encode, source, out, target, config, listen, source_options)
    trials.start(resume)
    try:
        return trials.finish(_settle(trials, *_approach(trials, start), max_encodes))
    except Exception:
        trials.abandon()
        raise


def _approach(trials: _Trials, lmbda: float) -> tuple[float, float]:
    """Short trials: (lambda for the first whole encode, slope around it)."""
    points: list[Point] = []
    if trials.short_iterations < MIN_SHORT:
        return lmbda, USUAL_SLOPE
    while len(points) < MAX_SHORT and (not points or abs(nearest(points).excess) > NEAR):
        points.append(trials.run(lmbda, is_short=True))
        found = propose(points, USUAL_SLOPE)
        if found is None:
            if abs(points[-1].excess) > HOPELESS:
                raise trials.out_of_reach(points[-1])
            return points[-1].lmbda, USUAL_SLOPE
        lmbda = found
    return lmbda, local_slope(points, USUAL_SLOPE)


def _settle(trials: _Trials, lmbda: float, slope: float, max_encodes: int) -> Point:
    """Whole encodes until one meets the target; the closest."""
    points: list[Point] = []
    while len(points) < max_encodes:
        points.append(trials.run(lmbda, is_short=False))
        if trials.is_met:
            break
        found = propose(points, slope)
        if found is None:
            raise trials.out_of_reach(points[-1])
        lmbda = found
    return nearest(points)


class _Trials:
    """Runs trials and remembers what they came to, on disk too; keeps the file of the closest whole one."""

    def __init__(
        self,
        encode: Encode,
        source: str | Path,
        out: Path,
        target: Target,
        config: EncodeConfig,
        listen: Listener,
        options: Mapping[str, Any],
    ) -> None:
        self.encode, self.source, self.out, self.target, self.config = encode, source, out, target, config
        self.listen, self.options = listen, options
        iterations = config.iterations or intra_total(effective_preset(config))
        self.short_iterations = 0 if "max_iterations" in dict(config.training) else iterations // SHORT_SHARE
        self.order: list[str] = []
        self.known: dict[str, EncodeDone] = {}
        self.running = ""

    def start(self, resume: bool) -> None:
        """Take up what an interrupted search left, or clear it away. Raises InputError."""
        memory = self._beside(".search")
        if not resume:
            self.abandon()
            return
        try:
            found = json.loads(memory.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"nothing to resume: there is no {memory}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {memory}: {error}; delete it to start anew") from error
        if found["purpose"] != self._purpose():
            raise InputError(f"{memory} was made for another source, target or configuration; delete it to start anew")
        self.known = {key: EncodeDone(**done) for key, done in found["trials"].items()}
        self.running = found["running"]

    def _purpose(self) -> dict[str, Any]:
        options = {name: str(value) for name, value in self.options.items() if value is not None}
        target = {self.target.quantity: self.target.value}
        config = settings_of_bytes(self.config)
        return {"source": str(self.source), "options": options, "target": target, "config": config}

    def _beside(self, suffix: str) -> Path:
        return self.out.with_name(self.out.name + suffix)

    def _file(self, key: str) -> Path:
        return self._beside(f".trial-{key}")

    def run(self, lmbda: float, is_short: bool) -> Point:
        """Encode at this lambda, unless that is known."""
        key = f"{lmbda!r}{'-short' if is_short else ''}"
        self.order.append(key)
        number = len(self.order)
        self.listen(TrialStarted(number, lmbda, is_short, str(self.target)))
        if key not in self.known:
            self.known[key] = self._encode(key, lmbda, is_short)
            self._remember("")
        self.listen(TrialDone(number, lmbda, is_short, self.value, self.target.text(self.value), self.is_met))
        return Point(lmbda, self.target.excess(self.value))

    @property
    def value(self) -> float:
        """What the latest trial came to."""
        return self.target.of(self.known[self.order[-1]])

    @property
    def is_met(self) -> bool:
        """Whether the latest trial meets the target."""
        return self.target.is_met(self.value)

    def _encode(self, key: str, lmbda: float, is_short: bool) -> EncodeDone:
        config = replace(self.config, lmbda=lmbda)
        if is_short:
            config = replace(config, iterations=self.short_iterations)
        file = self._file(key)
        goes_on = self.running == key and part_of(file).exists()
        self._remember(key)
        done = self.encode(self.source, file, config, resume=goes_on, listen=self.listen, **self.options)
        if is_short:
            file.unlink()
        return done

    def _remember(self, running: str) -> None:
        """Write the trials so far to disk, and which one is running."""
        self.running = running
        trials = {key: asdict(done) for key, done in self.known.items()}
        memory = {"purpose": self._purpose(), "trials": trials, "running": running}
        write_text(self._beside(".search"), json.dumps(memory))

    def out_of_reach(self, end: Point) -> ConfigError:
        """The error when the latest trial, at an end of lambda's range, does not reach the target."""
        side, way = ("largest", "least") if end.excess > 0 else ("smallest", "most")
        return ConfigError(
            f"cannot reach {self.target}: at the {side} lambda, {end.lmbda:g}, this source comes to "
            f"{self.target.text(self.value)}, the {way} that these settings can do; choose another target, "
            "another size of networks (--intra, --residue, --motion) or another --preset"
        )

    def finish(self, best: Point) -> TargetDone:
        """Give the closest file its name and forget the rest."""
        key = repr(best.lmbda)
        done = self.known[key]
        move(self._file(key), self.out)
        self.abandon()
        value, number = self.target.of(done), self.order.index(key) + 1
        is_met, text = self.target.is_met(value), self.target.text(value)
        result = TargetDone(number, best.lmbda, value, text, is_met, str(self.out), done)
        self.listen(result)
        return result

    def abandon(self) -> None:
        """Delete every file of the search."""
        discard(self._beside(".search"))
        self._beside(".search").unlink(missing_ok=True)
        for file in self.out.parent.glob(f"{glob.escape(self.out.name)}.trial-*"):
            file.unlink()
