"""Integer enlargement of planes by a power of two: nearest, bilinear, bicubic (a = -3/4).

Output sample i is at input position (i + 1/2) / 2**log2 - 1/2; borders are replicated.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from coolvid.codec.fixed_point import TAP_BITS, Integers, saturate16, shift_round

from .contexts import nearest


def enlarge(planes: Integers, log2: int, method: str, height: int, width: int) -> Integers:
    """planes int32 [n, h, w] within int16 -> int32 [n, height, width], the top left of 2**log2 times their size.

    Linear methods filter columns, then rows, each rounded and saturated to int16.
    """
    if log2 == 0:
        return planes[:, :height, :width]
    if method == "nearest":
        return nearest(planes, log2, height, width)
    return _filtered(_filtered(planes, log2, method, 1, height), log2, method, 2, width)


def _filtered(planes: Integers, log2: int, method: str, axis: int, size: int) -> Integers:
    factor = 1 << log2
    out = np.empty((*planes.shape[:axis], size, *planes.shape[axis + 1 :]), np.int32)
    last = planes.shape[axis] - 1
    for phase in range(min(factor, size)):
        rows = np.arange((size - phase + factor - 1) // factor)
        accumulator = None
        for offset, tap in taps(method, log2)[phase]:
            part = planes.take(np.clip(rows + offset, 0, last), axis=axis) * np.int32(tap)
            accumulator = part if accumulator is None else accumulator + part
        assert accumulator is not None
        out[(slice(None),) * axis + (slice(phase, None, factor),)] = saturate16(shift_round(accumulator, TAP_BITS))
    return out


@cache
def taps(method: str, log2: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each of the 2**log2 phases, (input offset, tap) pairs; taps sum to 2**TAP_BITS."""
    one = 2 << log2
    out = []
    for phase in range(1 << log2):
        distance = 2 * phase + 1 - (1 << log2)
        base, fraction = distance // one, distance % one
        offsets, weight = ((0, 1), _bilinear) if method == "bilinear" else ((-1, 0, 1, 2), _bicubic)
        rounded = _rounded([weight(abs(fraction - k * one), one) for k in offsets])
        out.append(tuple((base + k, tap) for k, tap in zip(offsets, rounded, strict=True)))
    return tuple(out)


def _rounded(weights: list[int]) -> list[int]:
    """Scaled to the sum 2**TAP_BITS; the largest takes the rounding error."""
    total = sum(weights)
    out = [((w << (TAP_BITS + 1)) + total) // (2 * total) for w in weights]
    out[out.index(max(out))] += (1 << TAP_BITS) - sum(out)
    return out


def _bilinear(x: int, one: int) -> int:
    return one - x


def _bicubic(x: int, one: int) -> int:
    """Cubic convolution with a = -3/4 at x / one, times 4 * one**3 (Keys 1981)."""
    if x <= one:
        return 5 * x**3 - 9 * x**2 * one + 4 * one**3
    return -3 * (x**3 - 5 * x**2 * one + 8 * x * one**2 - 4 * one**3)
