"""The probability model of latents: in floating point for training, as integer tables for coding.

A latent y is Laplace(mu, b)-distributed with b = exp(clamp(raw - 4, -5, 5)); its probability is the mass of
[y - 1/2, y + 1/2] (arXiv 2212.05458, section 3). For coding, log b is rounded to 1/8 and mu to 1/32, so that
N_SCALES x N_FRACTIONS rows of integer frequencies cover every case. The rows are part of the format: build_table()
makes them from integers alone, and laplace.bin holds them.

A row describes d = y - centre, centre = round(mu), in cells of 2**shift values (wide scales have shift > 0; the low
bits are sent raw). Symbols 0..62 are cells -31..31, symbol 63 is the escape: any other cell, and any cell whose
probability rounds to 0. From scale index 8 on, cells -6..6 have at least 2**-16, like every value in training: a very
improbable value then costs 16 bits, where the escape would cost 21 or more. The rows below that index are for values
that are nearly certain.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

MIN_PROBABILITY = 2.0**-16
LOG_SCALE_OFFSET = 4
LOG_SCALE_LIMIT = 5
SCALE_STEP_BITS = 3
N_SCALES = 2 * (LOG_SCALE_LIMIT << SCALE_STEP_BITS) + 1
FRACTION_BITS = 5
N_FRACTIONS = 1 << FRACTION_BITS
N_SYMBOLS = 64
ESCAPE = N_SYMBOLS - 1
REACH = 31
FLOOR_REACH = 6
FLOOR_FROM = 8
PROBABILITY_BITS = 16
PARAMETER_BITS = 16
TABLE_FILE = Path(__file__).with_name("laplace.bin")
TABLE_SHA256 = "c20785d511386fa63869191f1ed35852b18ae3e88ac979f379bcd7fcf6674cb8"

_PRECISION = 192
_ONE = 1 << _PRECISION
_COVERED_SCALES = 6
Integers = NDArray[np.int32]


def laplace_bits(y: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
    """Cost in bits of each latent y [N] under Laplace(mu [N], scale [N] > 0); differentiable in all three.

    Mass of [y - 0.5, y + 0.5] from F(x) = 1/2 - 1/2 sign(x - mu) expm1(-|x - mu| / scale), floored at 2**-16
    (arXiv 2212.05458, section 3).
    """
    upper = y - mu + 0.5
    lower = y - mu - 0.5
    mass = 0.5 * (lower.sign() * (-lower.abs() / scale).expm1() - upper.sign() * (-upper.abs() / scale).expm1())
    return -mass.clamp_min(MIN_PROBABILITY).log2()


def rows(mu_log_scale: Integers) -> tuple[Integers, Integers]:
    """The place of latents in the tables. mu_log_scale [N, 2]: raw ARM outputs with PARAMETER_BITS fractional bits.

    Returns (centre [N], row [N]), int32: the value in the middle of the row's window, and the row of tables().
    """
    mu = mu_log_scale[:, 0].astype(np.int64)
    raw = mu_log_scale[:, 1].astype(np.int64)
    drop = PARAMETER_BITS - FRACTION_BITS
    fine = (mu + (1 << (drop - 1))) >> drop
    centre = (fine + N_FRACTIONS // 2) >> FRACTION_BITS
    fraction = fine - (centre << FRACTION_BITS) + N_FRACTIONS // 2
    limit = 2 * LOG_SCALE_LIMIT << PARAMETER_BITS
    above = np.minimum(np.maximum(raw + ((LOG_SCALE_LIMIT - LOG_SCALE_OFFSET) << PARAMETER_BITS), 0), limit)
    drop = PARAMETER_BITS - SCALE_STEP_BITS
    scale = (above + (1 << (drop - 1))) >> drop
    return centre.astype(np.int32), (scale * N_FRACTIONS + fraction).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows, in the forms that coding needs.

    frequencies: int32 [rows, 64], each row sums to 65536. starts: int32 [rows, 64], the sum of the frequencies before.
    shifts: int32 [rows]. cumulative, frequency_lists, shift_list: the same as lists, for coding in Python.
    """

    frequencies: Integers
    starts: Integers
    shifts: Integers
    cumulative: list[list[int]]
    frequency_lists: list[list[int]]
    shift_list: list[int]


@cache
def tables() -> Tables:
    """The tables of laplace.bin, read once. Raises PluginError for a file of another format."""
    content = TABLE_FILE.read_bytes() if TABLE_FILE.exists() else b""
    if hashlib.sha256(content).hexdigest() != TABLE_SHA256:
        raise PluginError(f"{TABLE_FILE} is not the table of this stream format; install coolvid again")
    return unpack_table(content)


def pack_table(frequencies: Integers) -> bytes:
    """Frequencies [rows, 64] as the content of laplace.bin: big-endian 16-bit words, deflated."""
    return zlib.compress(frequencies.astype(">u2").tobytes(), 9)


def unpack_table(content: bytes) -> Tables:
    """Inverse of pack_table(), with all derived forms."""
    frequencies = np.frombuffer(zlib.decompress(content), dtype=">u2").astype(np.int32).reshape(-1, N_SYMBOLS)
    starts = np.cumsum(frequencies, axis=1, dtype=np.int32) - frequencies
    shifts = np.repeat(np.array([scale_shift(k) for k in range(N_SCALES)], dtype=np.int32), N_FRACTIONS)
    return Tables(frequencies, starts, shifts, starts.tolist(), frequencies.tolist(), shifts.tolist())


def scale_shift(scale: int) -> int:
    """The low bits sent raw at this scale index: the fewest with which REACH cells cover _COVERED_SCALES scales."""
    wide = _COVERED_SCALES * _ONE * _ONE // _inverse_scale(scale)
    shift = 0
    while (REACH << shift) * _ONE < wide:
        shift += 1
    return shift


def build_table() -> Integers:
    """All frequencies [N_SCALES * N_FRACTIONS, 64], by integer arithmetic alone: the same on every machine."""
    return np.array(
        [
            _quantize(masses, scale >= FLOOR_FROM)
            for scale in range(N_SCALES)
            for masses in _row_masses(_inverse_scale(scale), scale_shift(scale))
        ],
        dtype=np.int32,
    )


def _exp_minus(numerator: int, denominator: int) -> int:
    """exp(-numerator / denominator), 0 <= numerator <= denominator, times 2**_PRECISION: the Taylor series."""
    total, term, n = _ONE, _ONE, 0
    while term:
        n += 1
        term = term * numerator // (denominator * n)
        total += -term if n & 1 else term
    return total


@cache
def _inverse_scale(scale: int) -> int:
    """1/b of a scale index, times 2**_PRECISION: exp(-(scale - middle) / 8)."""
    eighth = _exp_minus(1, 1 << SCALE_STEP_BITS)
    power = _ONE
    for _ in range(abs(scale - N_SCALES // 2)):
        power = power * eighth >> _PRECISION
    return power if scale >= N_SCALES // 2 else _ONE * _ONE // power


def _row_masses(inverse_scale: int, shift: int) -> list[list[int]]:
    """Probabilities of the cells -31..31, times 2**_PRECISION, for each fraction -16..15 (in 1/32)."""
    halvings = max(0, (inverse_scale >> (_PRECISION - 1)).bit_length() - FRACTION_BITS)
    unit = _exp_minus(inverse_scale, _ONE << (FRACTION_BITS + halvings))
    for _ in range(halvings):
        unit = unit * unit >> _PRECISION
    squares = [unit]
    for _ in range(20):
        squares.append(squares[-1] * squares[-1] >> _PRECISION)

    def below(edge: int) -> int:
        """F at edge / N_FRACTIONS from mu."""
        half = _power(squares, abs(edge)) >> 1
        return _ONE - half if edge > 0 else half

    out = []
    for fraction in range(-(N_FRACTIONS // 2), N_FRACTIONS // 2):
        edges = [N_FRACTIONS * (q << shift) - N_FRACTIONS // 2 - fraction for q in range(-REACH, REACH + 2)]
        values = [below(edge) for edge in edges]
        out.append([b - a for a, b in pairwise(values)])
    return out


def _power(squares: list[int], exponent: int) -> int:
    """unit**exponent, squares[i] = unit**(2**i), all times 2**_PRECISION."""
    power = _ONE
    for i, square in enumerate(squares):
        if exponent >> i & 1:
            power = power * square >> _PRECISION
    return power


def _quantize(masses: list[int], has_floor: bool) -> list[int]:
    """Frequencies that sum to 65536: rounded masses, then the escape with the mass of all other cells; the largest
    takes the rounding error. has_floor: cells up to FLOOR_REACH have at least 1.
    """
    drop = _PRECISION - PROBABILITY_BITS
    frequencies = [(mass + (1 << (drop - 1))) >> drop for mass in masses]
    if has_floor:
        middle = slice(REACH - FLOOR_REACH, REACH + FLOOR_REACH + 1)
        frequencies[middle] = [max(1, frequency) for frequency in frequencies[middle]]
    kept = sum(mass for mass, frequency in zip(masses, frequencies, strict=True) if frequency)
    frequencies.append(max(1, (_ONE - kept + (1 << (drop - 1))) >> drop))
    largest = frequencies.index(max(frequencies[:ESCAPE]))
    frequencies[largest] += (1 << PROBABILITY_BITS) - sum(frequencies)
    return frequencies
