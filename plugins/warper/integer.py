"""Integer form of the warp, numpy only, and its tap tables, computed in integer arithmetic only.

Pixels are grouped by the horizontal fraction of their vectors. Their neighbourhood is filtered once along the rows;
then every pixel is filtered along its column.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.fixed_point import FLOW_BITS, INT16_MAX, INT16_MIN, PREDICTION_BITS, TAP_BITS, Integers
from coolvid.picture.types import Frame

N_FRACTIONS = 1 << FLOW_BITS
_PRECISION = 128
Short = NDArray[np.int16]


class IntegerWarper:
    """reference int32 [C, H, W] code values, flow int32 [2, H, W] in 1/64 pixel, x then y -> int32 [C, H, W] with
    PREDICTION_BITS fractional bits, within int16. Rows are filtered first and rounded to PREDICTION_BITS."""

    scales: tuple[int, ...] = ()

    def __init__(self, taps: int) -> None:
        self.taps = tap_table(taps)

    def __call__(self, reference: Integers, flow: Integers) -> Integers:
        out = None if kernels.decode is None else kernels.decode.warp(reference, flow, self.taps)
        return self.plain(reference, flow) if out is None else out.astype(np.int32)

    def of_frame(self, reference: Frame, translation: tuple[int, int], flow: Integers, log2: int = 0) -> Short | None:
        """The same on the reference's dense planes, shifted by (dy, dx) whole pixels, with one vector per block of
        2**log2 x 2**log2 pixels: int16 [3, H, W]. None without compiled kernels."""
        if kernels.decode is None:
            return None
        out: Short = kernels.decode.warp_frame(reference.planes, *translation, flow, log2, self.taps)
        return out

    def plain(self, reference: Integers, flow: Integers) -> Integers:
        """The numpy version. The compiled kernel must match it exactly."""
        half = self.taps.shape[1] // 2
        _, height, width = reference.shape
        x = (np.arange(width, dtype=np.int32) << FLOW_BITS) + flow[0]
        y = (np.arange(height, dtype=np.int32)[:, None] << FLOW_BITS) + flow[1]
        # Beyond these columns every tap reads the border, so clamping changes nothing.
        column = np.clip(x >> FLOW_BITS, -half, width - 1 + half).ravel()
        row = np.clip(y >> FLOW_BITS, -half, height - 1 + half).ravel()
        fraction_x, fraction_y = (x & (N_FRACTIONS - 1)).ravel(), (y & (N_FRACTIONS - 1)).ravel()
        padded = np.pad(reference, ((0, 0), (0, 0), (2 * half, 2 * half)), mode="edge")
        out = np.empty((len(reference), height * width), np.int32)
        order = np.argsort(fraction_x, kind="stable")
        ends = np.searchsorted(fraction_x[order], np.arange(N_FRACTIONS + 1))
        for fraction in range(N_FRACTIONS):
            pixels = order[ends[fraction] : ends[fraction + 1]]
            if len(pixels):
                kernel = self.taps[fraction]
                out[:, pixels] = self._group(padded, kernel, column[pixels], row[pixels], fraction_y[pixels])
        return out.reshape(reference.shape)

    def _group(
        self, padded: Integers, kernel: Integers, column: Integers, row: Integers, fraction: Integers
    ) -> Integers:
        """The pixels [n] that share a horizontal fraction: int32 [C, n]. padded: 2 * half columns on both sides."""
        half, height = len(kernel) // 2, padded.shape[1]
        top = min(max(int(row.min()) - half + 1, 0), height - 1)
        bottom = min(max(int(row.max()) + half, 0), height - 1)
        left, right = int(column.min()), int(column.max())
        filtered = _filter_rows(padded[:, top : bottom + 1], kernel, left + 2 * half, right + 2 * half)
        filtered = filtered.reshape(len(filtered), -1)
        accumulator = np.zeros((len(filtered), len(row)), np.int32)
        for t in range(2 * half):
            tap = self.taps[fraction, t]
            if tap.any():
                line = np.clip(row + np.int32(t - half + 1), 0, height - 1) - top
                accumulator += filtered.take(line * (right - left + 1) + (column - left), axis=1) * tap
        return _round16(accumulator, TAP_BITS)


def _filter_rows(padded: Integers, kernel: Integers, left: int, right: int) -> Integers:
    """Columns left..right of the reference filtered along its rows, with PREDICTION_BITS; padded coordinates."""
    half = len(kernel) // 2
    out = np.zeros((*padded.shape[:2], right - left + 1), np.int32)
    for t, tap in enumerate(kernel):
        if tap:
            start = left + t - half + 1
            out += padded[:, :, start : start + out.shape[2]] * tap
    return _round16(out, TAP_BITS - PREDICTION_BITS)


def _round16(accumulator: Integers, shift: int) -> Integers:
    accumulator += np.int32(1 << (shift - 1))
    accumulator >>= shift
    return np.clip(accumulator, INT16_MIN, INT16_MAX, out=accumulator)


@cache
def tap_table(n: int) -> Integers:
    """[64, n] int32: taps of offsets -n/2 + 1 .. n/2 for each 1/64 fraction, every row summing to 2**TAP_BITS."""
    exact = {2: _bilinear, 4: _bicubic}.get(n, _windowed_sinc)
    rows = [normalized([exact(f - N_FRACTIONS * k, n) for k in range(1 - n // 2, n // 2 + 1)]) for f in range(64)]
    table: NDArray[np.int32] = np.array(rows, dtype=np.int32)
    table.setflags(write=False)
    return table


def normalized(weights: list[int]) -> list[int]:
    """The weights scaled to the sum 2**TAP_BITS and rounded; the largest absorbs the rounding error."""
    total = sum(weights)
    taps = [((w << (TAP_BITS + 1)) + total) // (2 * total) for w in weights]
    taps[max(range(len(taps)), key=lambda i: taps[i])] += (1 << TAP_BITS) - sum(taps)
    return taps


def _bilinear(distance: int, n: int) -> int:
    return N_FRACTIONS - abs(distance)


def _bicubic(distance: int, n: int) -> int:
    """Cubic convolution with a = -3/4 at distance / 64, times 4 * 64**3 (Keys 1981)."""
    x, one = abs(distance), N_FRACTIONS
    if x <= one:
        return 5 * x**3 - 9 * x**2 * one + 4 * one**3
    return -3 * (x**3 - 5 * x**2 * one + 8 * x * one**2 - 4 * one**3)


def _windowed_sinc(distance: int, n: int) -> int:
    """cos(pi d / n) * sin(pi d) / (pi d) at d = distance / 64, with _PRECISION fractional bits."""
    if distance == 0:
        return 1 << _PRECISION
    angle = _pi() * distance // N_FRACTIONS
    return _cosine(angle // n) * _cosine(angle - _pi() // 2) // angle


@cache
def _pi() -> int:
    """pi with _PRECISION fractional bits, by Machin's formula."""
    one = 1 << (_PRECISION + 16)
    return (4 * (4 * _arctan_inverse(5, one) - _arctan_inverse(239, one))) >> 16


def _arctan_inverse(n: int, one: int) -> int:
    total, power, k = 0, one // n, 0
    while power:
        total += power // (2 * k + 1) * (-1) ** k
        power //= n * n
        k += 1
    return total


def _cosine(angle: int) -> int:
    """cos of an angle with _PRECISION fractional bits (|angle| below about 30), by its power series."""
    square = (angle * angle) >> _PRECISION
    total = term = 1 << _PRECISION
    k = 0
    while term:
        k += 2
        term = term * square // (k * (k - 1)) >> _PRECISION
        total += term if k % 4 == 0 else -term
    return total
