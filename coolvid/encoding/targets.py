"""Search for the lambda that meets a rate or quality target, with few encodes.

The quantity falls as lambda grows, nearly linearly: log rate, or dB, over log lambda. A search starts from a typical
line and continues with the secant method, then with regula falsi once two trials bracket the target. If training is
long, short trials with fewer iterations come first. Their bias is nearly constant, so they find the neighbourhood and
the slope. Only the real size and quality of a whole encode decide.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from coolvid.errors import ConfigError, InputError, tell_how_to_resume, within
from coolvid.events import EncodeDone, Listener, TargetDone, TrialDone, TrialStarted
from coolvid.files import check_writable, discard, is_in_place, locked, move, part_of, read_text, write_text
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import effective_preset, intra_total
from coolvid.settings.toml import settings_of_bytes
from coolvid.values import OneOf, Within, check_fields, parse_json

MaxEncodes = Annotated[int, Within(1, 100)]
MEMORY = ".search"
LMBDA_RANGE = (1e-7, 10.0)
# Short trials have a fifth of the iterations, but at least this many: with 114 instead of 570, files were twice as big.
SHORT_SHARE = 5
MIN_SHORT = 600
MAX_SHORT = 6
# A short trial this close (in units of Target.excess) ends the short ones. One this far off at an end of lambda's range
# shows that whole encodes cannot meet the target either.
NEAR = 0.1
HOPELESS = 1.5
MAX_STEP = math.log(30)
# Slope of Target.excess() over log lambda: the typical value, and the steepest and flattest accepted.
USUAL_SLOPE = -0.5
SLOPES = (-2.0, -0.08)


@dataclass(frozen=True)
class Target:
    """quantity "bpp" (bits per luma pixel), "bitrate" (bits per second) or "psnr" (dB over all samples), of the whole
    file. Met within 2 % of a rate or 0.1 dB. Raises ConfigError."""

    quantity: Annotated[str, OneOf(("bpp", "bitrate", "psnr"))]
    value: float

    def __post_init__(self) -> None:
        check_fields(self, "target: ")
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
        """Excess over the target: log of the ratio for rates, dB / 5 for PSNR (which makes the two comparable)."""
        return (value - self.value) / 5 if self.quantity == "psnr" else math.log(value / self.value)

    def is_met(self, value: float) -> bool:
        """Whether a value is close enough to the target."""
        if self.quantity == "psnr":
            return abs(value - self.value) <= 0.1
        return abs(value / self.value - 1) <= 0.02

    def usual_lmbda(self, pixels_per_second: float) -> float:
        """Start of a search: at lambda 1e-3, small natural clips typically need 0.1 bpp and reach 34 dB."""
        usual = {"bpp": 0.1, "bitrate": 0.1 * pixels_per_second, "psnr": 34.0}[self.quantity]
        return clamp(1e-3 * math.exp(-self.excess(usual) / USUAL_SLOPE))


def clamp(lmbda: float) -> float:
    """The nearest permitted lambda, to four digits."""
    return min(LMBDA_RANGE[1], max(LMBDA_RANGE[0], float(f"{lmbda:.4g}")))


@dataclass(frozen=True)
class TrialPoint:
    """A measured trial. excess: of its value over the target, as in Target.excess()."""

    lmbda: float
    excess: float


def propose(points: Sequence[TrialPoint], slope: float) -> float | None:
    """The lambda to try next, to four digits; None if a trial at the end of lambda's range does not reach the target.

    points: measurements, at least one. slope: of excess over log lambda, used while there is only one point.
    """
    above = [p for p in points if p.excess > 0]
    below = [p for p in points if p.excess <= 0]
    low = max(above, key=lambda p: p.lmbda, default=None)
    high = min(below, key=lambda p: p.lmbda, default=None)
    if low and high and low.lmbda < high.lmbda:
        share = min(0.95, max(0.05, low.excess / (low.excess - high.excess)))
        wanted = low.lmbda * (high.lmbda / low.lmbda) ** share
    else:  # the target is outside, or training noise exceeds the distance between trials
        near = nearest(points)
        step = -near.excess / local_slope(points, slope)
        wanted = near.lmbda * math.exp(min(MAX_STEP, max(-MAX_STEP, step)))
    return _fresh(wanted, points)


def _fresh(wanted: float, points: Sequence[TrialPoint]) -> float | None:
    """The nearest untried lambda inside the range, from `wanted` in the direction of the target."""
    tried = {p.lmbda for p in points}
    factor = 1.01 if nearest(points).excess > 0 else 1 / 1.01
    for power in range(len(points) + 1):
        lmbda = clamp(wanted * factor**power)
        if lmbda not in tried:
            return lmbda
    return None


def nearest(points: Sequence[TrialPoint]) -> TrialPoint:
    """The point with the smallest absolute excess."""
    return min(points, key=lambda p: abs(p.excess))


def local_slope(points: Sequence[TrialPoint], usual: float) -> float:
    """Slope of excess over log lambda between the two points nearest to the target, limited against noise."""
    if len(points) < 2:
        return usual
    one, other = sorted(points, key=lambda p: abs(p.excess))[:2]
    slope = (other.excess - one.excess) / math.log(other.lmbda / one.lmbda)
    return min(SLOPES[1], max(SLOPES[0], slope))


Encode = Callable[..., EncodeDone]
"""api.encode() or a stand-in: (source, out, config, *, resume, listen)."""


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
    origin: Mapping[str, Any],
    digests: Sequence[str] = (),
) -> TargetDone:
    """Call encode() with different lambdas until the file meets the target; see api.encode_to_target().

    start: the first lambda, in MSE + lambda * bits per pixel. origin: how encode() reads the source; digests: of its
    frames. A resume refuses others. Raises ConfigError if the target is out of reach for this source, which ends the
    search. Any error of encode() leaves the search so far, and a note on the error says how to go on.
    """
    with locked(out), _place_for_trials(out) as place:
        trials = _Trials(encode, source, out, place, target, config, listen, {**origin, "frames": list(digests)})
        trials.start(resume)
        try:
            return trials.finish(_settle(trials, *_approach(trials, start), max_encodes))
        except _OutOfReach:
            trials.abandon()
            raise
        except BaseException as error:
            trials.suspend(error)
            raise


class _OutOfReach(ConfigError):
    """No lambda meets the target."""


@contextmanager
def _place_for_trials(out: Path) -> Iterator[Path]:
    """The path beside which the files of a search lie: `out`, or in a temporary folder if out is written in place."""
    check_writable(out)
    if not is_in_place(out):
        yield out
        return
    with TemporaryDirectory(prefix="coolvid-") as folder:
        yield Path(folder) / out.name


def _approach(trials: _Trials, lmbda: float) -> tuple[float, float]:
    """Short trials: (lambda for the first whole encode, slope around it)."""
    points: list[TrialPoint] = []
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


def _settle(trials: _Trials, lmbda: float, slope: float, max_encodes: int) -> TrialPoint:
    """Whole encodes until one meets the target; returns the closest."""
    points: list[TrialPoint] = []
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
    """Runs trials and records their results, also on disk. Keeps the file of the closest whole encode."""

    def __init__(
        self,
        encode: Encode,
        source: str | Path,
        out: Path,
        place: Path,
        target: Target,
        config: EncodeConfig,
        listen: Listener,
        origin: Mapping[str, Any],
    ) -> None:
        self.encode, self.source, self.out, self.target, self.config = encode, source, out, target, config
        self.place = place
        self.listen, self.origin = listen, origin
        iterations = config.iterations or intra_total(effective_preset(config))
        self.short_iterations = 0 if "max_iterations" in dict(config.training) else iterations // SHORT_SHARE
        self.order: list[str] = []
        self.known: dict[str, EncodeDone] = {}
        self.running = ""

    def start(self, resume: bool) -> None:
        """Resume an interrupted search, or delete its files. Raises InputError."""
        memory = self._beside(MEMORY)
        if not resume:
            self.abandon()
            return
        if self.place != self.out:
            raise InputError(f"nothing to resume: a search that writes to {self.out} leaves nothing")
        try:
            found = parse_json(read_text(memory))
        except FileNotFoundError as error:
            raise InputError(f"nothing to resume: there is no {memory}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {memory}: {error}; delete it to start again") from error
        try:
            purpose, self.running = found["purpose"], found["running"]
            self.known = {key: EncodeDone(**done) for key, done in found["trials"].items()}
            problem = self._difference(purpose)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{memory} is not the record of a search; delete it to start again") from error
        if problem:
            raise InputError(f"{memory} was made for another {problem}; delete it to start again")

    def _purpose(self) -> dict[str, Any]:
        plain = {name: str(value) for name, value in self.origin.items() if value is not None}
        origin = {**plain, "frames": self.origin["frames"]}
        target = {self.target.quantity: self.target.value}
        config = settings_of_bytes(self.config)
        return {"source": str(self.source), "origin": origin, "target": target, "config": config}

    def _difference(self, found: Mapping[str, Any]) -> str:
        """What differs between the purpose of an earlier search and of this one; empty if nothing does."""
        purpose = json.loads(json.dumps(self._purpose()))
        now, before = purpose["origin"].pop("frames"), dict(found["origin"]).pop("frames", [])
        if purpose != {**found, "origin": {n: v for n, v in found["origin"].items() if n != "frames"}}:
            return "source, target or configuration"
        differing = (i for i, (one, other) in enumerate(zip_longest(before, now)) if one != other)
        first = next(differing, None)
        return "" if first is None else f"source: frame {first} differs"

    def _beside(self, suffix: str) -> Path:
        return self.place.with_name(self.place.name + suffix)

    def _file(self, key: str) -> Path:
        return self._beside(f".trial-{key}")

    def run(self, lmbda: float, is_short: bool) -> TrialPoint:
        """Encode at this lambda, unless the result is known."""
        key = f"{lmbda!r}{'-short' if is_short else ''}"
        self.order.append(key)
        number = len(self.order)
        self.listen(TrialStarted(number, lmbda, is_short, str(self.target)))
        if key not in self.known:
            self.known[key] = self._encode(key, lmbda, is_short)
            self._remember("")
        self.listen(TrialDone(number, lmbda, is_short, self.value, self.target.text(self.value), self.is_met))
        return TrialPoint(lmbda, self.target.excess(self.value))

    @property
    def value(self) -> float:
        """Value of the latest trial."""
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
        done = self.encode(self.source, file, config, resume=goes_on, listen=self.listen)
        if is_short:
            file.unlink()
        return done

    def _remember(self, running: str) -> None:
        """Write the trials so far to disk, and the running one."""
        self.running = running
        trials = {key: asdict(done) for key, done in self.known.items()}
        memory = {"purpose": self._purpose(), "trials": trials, "running": running}
        write_text(self._beside(MEMORY), json.dumps(memory))

    def out_of_reach(self, end: TrialPoint) -> _OutOfReach:
        """The error when the latest trial, at an end of lambda's range, does not reach the target."""
        side, way = ("largest", "least") if end.excess > 0 else ("smallest", "most")
        return _OutOfReach(
            f"cannot reach {self.target}: at the {side} lambda, {end.lmbda:g}, this source gives "
            f"{self.target.text(self.value)}, the {way} possible with these settings; choose another target, "
            "another size of networks (--intra, --residue, --motion) or another --preset"
        )

    def finish(self, best: TrialPoint) -> TargetDone:
        """Rename the closest file to its final name and delete the rest."""
        key = repr(best.lmbda)
        done = self.known[key]
        move(self._file(key), self.out)
        self.abandon()
        value, number = self.target.of(done), self.order.index(key) + 1
        is_met, text = self.target.is_met(value), self.target.text(value)
        result = TargetDone(number, best.lmbda, value, text, is_met, str(self.out), done)
        self.listen(result)
        return result

    def suspend(self, error: BaseException) -> None:
        """Keep the search for a resume, and say so in a note on the error; delete it if no frame of it is finished."""
        has_frames = bool(self.known) or (self.running != "" and part_of(self._file(self.running)).exists())
        if not has_frames or self.place != self.out:
            self.abandon()
            return
        tell_how_to_resume(error, f"{self._beside(MEMORY)} holds the search so far")

    def abandon(self) -> None:
        """Delete every file of the search."""
        discard(self._beside(MEMORY))
        self._beside(MEMORY).unlink(missing_ok=True)
        for file in self.place.parent.glob(f"{glob.escape(self.place.name)}.trial-*"):
            file.unlink()
