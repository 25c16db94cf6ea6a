"""Exact frame rates from the time stamps of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

from coolvid.errors import InputError

_COARSE_TICKS = 4
_FINE_TICKS = 8
_JITTER_TICKS = 2
_ENOUGH_STAMPS = 4
_NEARLY = Fraction(1, 10**6)


def constant_rate(stamps: Sequence[int], time_base: Fraction, candidates: Iterable[Fraction | None]) -> Fraction:
    """Frames per second of a file whose frames start at `stamps` (increasing, in units of time_base seconds).

    A rate fits if all stamps are its frame times, rounded to the time base. Returns the first candidate that fits, or
    from four frames on the mean rate if it fits. Raises InputError (without the file's name) if none does.
    """
    for rate in (*candidates, _mean_rate(stamps, time_base)):
        for exact in usual_first(rate):
            if _fits(stamps, 1 / (exact * time_base)):
                return exact
    gaps = [float((b - a) * time_base) * 1000 for a, b in pairwise(stamps)]
    spread = f"frames last from {min(gaps):.2f} to {max(gaps):.2f} ms" if gaps else "there are no time stamps"
    raise InputError(
        f"its frame rate is variable or unknown ({spread}); make it constant with ffmpeg -i FILE -r 30 CONSTANT.mkv, "
        "or give a frame rate (--fps 30) to ignore the time stamps"
    )


def _mean_rate(stamps: Sequence[int], time_base: Fraction) -> Fraction | None:
    if len(stamps) < _ENOUGH_STAMPS or stamps[0] == stamps[-1]:
        return None
    return Fraction(len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)


def usual_first(rate: Fraction | None) -> list[Fraction]:
    """The whole or NTSC rate (n or n * 1000 / 1001) within a millionth of this one, if any; then the rate itself.

    Files that store a frame's duration in nanoseconds give 29011/242 for 120000/1001.
    """
    if not rate or rate < 0:
        return []
    usual = (Fraction(round(rate)), Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001))
    return [*(u for u in usual if 0 < abs(u - rate) <= _NEARLY * rate), rate]


def _fits(stamps: Sequence[int], step: Fraction) -> bool:
    """Whether the stamps are multiples of `step` ticks, up to a common start and rounding.

    Rounding alone shifts stamps by less than a tick; two ticks are allowed if a frame is much longer. If a frame is
    hardly longer than a tick, rounding could hide a missing frame, so no shift is allowed.
    """
    p, q = step.numerator, step.denominator
    offsets = [stamp * q - i * p for i, stamp in enumerate(stamps)]
    spread = max(offsets) - min(offsets)
    if step < _COARSE_TICKS:
        return spread == 0
    return spread < q or (step >= _FINE_TICKS and spread <= _JITTER_TICKS * q)
