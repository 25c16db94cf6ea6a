"""Integer form of the MLP, numpy only.

Every layer is x -> clip(floor(x @ matrix + offset)), where matrix and offset already include the layer's shift and
the rounding half. All numbers are integers times a power of two below 2**53, so float64 computes them exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.fixed_point import (
    ARM_OUT_BITS,
    CONTEXT_BITS,
    INT16_MAX,
    FixedPoint,
    Folded,
    Integers,
    align_bias,
    choose_bits,
    fit_weights,
    folded,
    unit,
)
from coolvid.plugin.shortcuts import FoldedArm

Floats = NDArray[np.float64]
OUTPUT_LIMIT = 1 << 30
LEAST_SHIFT = 8
MAX_LEFT_SHIFT = 31
ROWS = 2048
"""Contexts per chunk, so that intermediate activations stay in the processor's caches."""


class _Linear:
    """A linear layer without its scale: matrix [n_in, n_out] with `shift` fractional bits, and a bias."""

    def __init__(self, parameters: Mapping[str, FixedPoint], name: str, residual: bool = False) -> None:
        weight = fit_weights(parameters[f"{name}.weight"], extra=int(residual), least=LEAST_SHIFT)
        self.weight, self.residual = weight, residual
        self.matrix: Floats = weight.values.T.astype(np.float64)
        self.shift = weight.shift
        self.bias = parameters[f"{name}.bias"]
        if residual:
            self.matrix += unit(weight.shift) * np.eye(len(self.matrix))

    def accumulator(self, x: Floats, in_bits: int) -> Floats:
        """Exact accumulator [N, n_out] with in_bits + shift fractional bits."""
        return x @ self.matrix + align_bias(self.bias, in_bits + self.shift)

    def folded(self, in_bits: int, out_bits: int) -> Folded:
        """The layer in integers, for compiled kernels."""
        return folded(self.weight, self.bias, in_bits, out_bits, self.residual)

    def scaled(self, in_bits: int, out_bits: int) -> tuple[Floats, Floats]:
        """(matrix, offset) such that floor(x @ matrix + offset) is the accumulator rounded to out_bits."""
        bits = in_bits + self.shift
        offset: Floats = np.ldexp(align_bias(self.bias, bits).astype(np.float64), out_bits - bits) + 0.5
        return np.ascontiguousarray(np.ldexp(self.matrix, out_bits - bits)), offset


class IntegerMlp:
    """contexts int32 [N, n_in] within int16, CONTEXT_BITS fractional bits -> int32 [N, 2] with ARM_OUT_BITS.

    scales: fractional bits of each hidden layer's int16 output; None: chosen at the first call to fit the data of that
    call.
    """

    def __init__(
        self, n_hidden: int, stabiliser: bool, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None
    ) -> None:
        self._hidden = [_Linear(parameters, f"hidden.{i}", residual=True) for i in range(n_hidden)]
        self._output = _Linear(parameters, "output")
        self._stabiliser = _Linear(parameters, "stabiliser") if stabiliser else None
        self.scales: tuple[int, ...] | None = None
        if scales is not None:
            self._prepare(scales)

    def choose(self, contexts: Integers) -> None:
        """Choose the scales as in a first call, without its result."""
        self._prepare(self._choose(contexts.astype(np.float64)))

    def __call__(self, contexts: Integers) -> Integers:
        if self.scales is None:
            self.choose(contexts)
        out = np.empty((len(contexts), 2), np.int32)
        for start in range(0, len(contexts), ROWS):
            out[start : start + ROWS] = self._output_of(contexts[start : start + ROWS].astype(np.float64))
        return out

    def _output_of(self, x: Floats) -> Floats:
        hidden = x
        for matrix, offset in self._layers:
            hidden = _activation(hidden, matrix, offset)
        out = _floored(hidden, *self._last)
        if self._side is not None:
            out += _floored(x, *self._side)
        return np.clip(out, -OUTPUT_LIMIT, OUTPUT_LIMIT, out=out)

    def _prepare(self, scales: tuple[int, ...]) -> None:
        self.scales = scales
        bits = (CONTEXT_BITS, *scales)
        self._layers = [layer.scaled(bits[i], bits[i + 1]) for i, layer in enumerate(self._hidden)]
        self._last = self._output.scaled(bits[-1], ARM_OUT_BITS)
        self._side = self._stabiliser.scaled(CONTEXT_BITS, ARM_OUT_BITS) if self._stabiliser else None

    def folded(self) -> FoldedArm | None:
        """Form for the compiled decoder; None if it cannot compute these layers."""
        assert self.scales is not None, "not known before the first call"
        bits = (CONTEXT_BITS, *self.scales)
        hidden = [layer.folded(bits[i], bits[i + 1]) for i, layer in enumerate(self._hidden)]
        output = self._output.folded(bits[-1], ARM_OUT_BITS)
        side = self._stabiliser.folded(CONTEXT_BITS, ARM_OUT_BITS) if self._stabiliser else None
        fits = all(last is None or last[2] >= -MAX_LEFT_SHIFT for last in (output, side))
        return FoldedArm(hidden, output, side) if fits else None

    def _choose(self, x: Floats) -> tuple[int, ...]:
        scales: list[int] = []
        bits = CONTEXT_BITS
        parts = [x[start : start + ROWS] for start in range(0, len(x), ROWS)]
        for layer in self._hidden:
            parts, exact = [layer.accumulator(part, bits) for part in parts], bits + layer.shift
            largest = max((part.max(initial=0.0) for part in parts), default=0.0)
            bits = choose_bits(np.array([largest]).astype(np.int64), exact)
            for part in parts:
                part *= 2.0 ** (bits - exact)
                part += 0.5
                _saturated(np.floor(part, out=part))
            scales.append(bits)
        return tuple(scales)


def _activation(x: Floats, matrix: Floats, offset: Floats) -> Floats:
    """One residual layer with ReLU, saturated to int16."""
    return _saturated(_floored(x, matrix, offset))


def _floored(x: Floats, matrix: Floats, offset: Floats) -> Floats:
    out: Floats = x @ matrix
    out += offset
    return np.floor(out, out=out)


def _saturated(x: Floats) -> Floats:
    """ReLU of x within int16, in place."""
    return np.clip(x, 0.0, float(INT16_MAX), out=x)
