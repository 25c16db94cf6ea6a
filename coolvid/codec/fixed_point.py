"""Integer arithmetic of the decoder: rounding shifts, saturation, and a linear map that cannot overflow.

Activations are int16 with a chosen number of fractional bits, accumulators int32. `fit_weights` lowers a weight
matrix's precision, where needed, until the sum of magnitudes of every row is below 2**14: then no accumulator can
exceed int32 for any input, and the order of additions does not matter. Sums are computed by exact float64 products
(all integers below 2**53), which is fast and gives the same integers on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Integers that stand for values * 2**-shift."""

    values: Integers
    shift: int

    def as_float(self) -> NDArray[np.float64]:
        return np.ldexp(self.values.astype(np.float64), -self.shift)


INT16_MAX = 32767
INT16_MIN = -32768
ROW_BITS = 14
CONTEXT_BITS = 6
ARM_OUT_BITS = 16
FLOW_BITS = 6
PREDICTION_BITS = 4
TAP_BITS = 14
_BIAS_LIMIT = 1 << 29

Folded = tuple[Integers, Integers, int]


@dataclass(frozen=True, eq=False)
class FoldedModel:
    """A context model of linear layers: the ARM (hidden layers, output, stabiliser), and an IFCE map per grid."""

    hidden: list[Folded]
    output: Folded
    stabiliser: Folded | None
    n_features: int
    maps: tuple[Folded | None, ...]


def shift_round(x: NDArray[np.int64] | Integers, shift: int) -> NDArray[np.int64]:
    """x * 2**-shift, rounded to nearest (halves up); a negative shift multiplies, limited to +-2**62. Exact int64."""
    x = np.asarray(x, dtype=np.int64)
    if shift < 0:
        left = min(-shift, 62)
        room = np.int64(1) << (62 - left)
        return _limited(x, -room, room) << left
    if shift == 0:
        return x
    return (x + (np.int64(1) << (shift - 1))) >> shift


def _limited(x: NDArray[Any], low: int | np.int64, high: int | np.int64) -> NDArray[Any]:
    """np.clip(), but several times as fast for the few numbers of a layer."""
    out: NDArray[Any] = np.minimum(np.maximum(x, low), high)
    return out


def saturate16(x: NDArray[np.int64]) -> Integers:
    """Clamp to int16; returned as int32 so that later sums do not wrap."""
    return _limited(x, INT16_MIN, INT16_MAX).astype(np.int32)


def fit_weights(weight: FixedPoint, extra: int = 0, least: int = 0) -> FixedPoint:
    """The weight [n_out, ...] at the highest precision <= its own whose rows keep sum|w| + extra < 2**ROW_BITS.

    extra: a further unit weight of the row (1 for a residual connection), in whole units. least: raise a shift below
    this one to it, as far as the rows allow, so that a bias aligned with coarse weights keeps its precision.
    """
    rows = np.abs(weight.values.reshape(weight.values.shape[0], -1)).sum(axis=1, dtype=np.int64)
    largest = int(rows.max(initial=0)) + (extra << max(weight.shift, 0))
    drop = max(largest.bit_length() - ROW_BITS, min(0, weight.shift - least))
    values = shift_round(weight.values, drop) if drop else weight.values
    return FixedPoint(values.astype(np.int32, copy=False), weight.shift - drop)


def unit(shift: int) -> int:
    """The integer that stands for 1 beside weights of this shift (0 below shift -1): the weight of a residual."""
    return 1 << shift if shift >= 0 else int(shift == -1)


def align_bias(bias: FixedPoint, bits: int) -> NDArray[np.int64]:
    """The bias as an accumulator value with `bits` fractional bits, clamped to +-2**29."""
    return _limited(shift_round(bias.values, bias.shift - bits), -_BIAS_LIMIT, _BIAS_LIMIT)


def folded(weight: FixedPoint, bias: FixedPoint, in_bits: int, out_bits: int, residual: bool = False) -> Folded:
    """A fitted linear layer [n_out, n_in, ...] as compiled kernels take it: (weights, bias, shift), int32, so that the
    output is (weights @ x + bias) * 2**-shift, rounded. A residual adds 1 to the diagonal (of the kernel's centre)."""
    values = weight.values.astype(np.int32)
    if residual:
        diagonal = range(len(values))
        centre = tuple(size // 2 for size in values.shape[2:])
        values[(diagonal, diagonal, *centre)] += unit(weight.shift)
    bits = in_bits + weight.shift
    return values, align_bias(bias, bits).astype(np.int32), bits - out_bits


def matmul_exact(weight: NDArray[np.int64] | Integers, x: NDArray[np.int64] | Integers) -> NDArray[np.int64]:
    """Integer matrix product through float64, exact while every partial sum is below 2**53."""
    return (weight.astype(np.float64) @ x.astype(np.float64)).astype(np.int64)


def choose_bits(accumulator: NDArray[np.int64], bits: int, limit: int = 15) -> int:
    """The most fractional bits (0..limit) with which accumulator * 2**-bits fits int16 with a little headroom."""
    peak = float(np.abs(accumulator).max(initial=0)) * 2.0**-bits
    for chosen in range(limit, 0, -1):
        if peak * 2.0**chosen <= 0.9 * INT16_MAX:
            return chosen
    return 0
