"""Frame rates: as people write them, and the range that every kind of file can hold."""

from __future__ import annotations

import re
from fractions import Fraction

from coolvid.errors import ConfigError

MIN_FPS, MAX_FPS = Fraction(1, 3600), Fraction(1000)
MAX_TERM = 500_000_000
"""Bound of numerator and denominator: mp4 stores times of up to four frames as 32-bit multiples of them."""

_WRITTEN = re.compile(r"\d*\.?\d*(e[+-]?\d{1,3})?|\d+/\d+", re.ASCII | re.IGNORECASE)
_NTSC = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 96, 120, 240))
_NTSC_DECIMALS = 2


def parse_fps(text: str) -> Fraction:
    """30, 29.97 or 30000/1001 -> frames per second. Raises ConfigError for other texts and rates out of range."""
    if (rate := rate_of(text)) is None:
        raise ConfigError(f"cannot read frame rate '{text}'; write frames per second, for example 25 or 30000/1001")
    if problem := problem_of(rate):
        raise ConfigError(f"fps is {text}; {problem}")
    return rate


def rate_of(text: str) -> Fraction | None:
    """The rate that a text means, None for a text that is no rate above 0.

    Decimals of an NTSC rate, rounded or cut off (23.976, 23.98, 29.97), mean the exact fraction over 1001.
    """
    try:
        rate = Fraction(text) if _WRITTEN.fullmatch(text) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        return None
    digits = len(text.rpartition(".")[2]) if re.fullmatch(r"\d+\.\d+", text) else 0
    if digits >= _NTSC_DECIMALS:
        unit = Fraction(1, 10**digits)
        rate = next((exact for exact in _NTSC if rate in (round(exact, digits), exact // unit * unit)), rate)
    return rate if rate > 0 else None


def problem_of(fps: Fraction) -> str:
    """What to choose instead of a rate that some kinds of files cannot hold; empty for all others."""
    if not MIN_FPS <= fps <= MAX_FPS:
        return f"choose {MIN_FPS}..{MAX_FPS} frames per second"
    if max(fps.numerator, fps.denominator) > MAX_TERM:
        return f"choose a rate whose numerator and denominator are at most {MAX_TERM}, for example 25 or 30000/1001"
    return ""
