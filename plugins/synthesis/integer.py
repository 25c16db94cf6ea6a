"""Integer form of the synthesis, numpy only. Bands of rows pass through all layers to save memory.

A layer is a matrix product of its patches; the residual connection is folded into the matrix. All numbers are integers
times a power of two below 2**53, so float64 computes them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.fixed_point import (
    INT16_MAX,
    INT16_MIN,
    FixedPoint,
    Folded,
    Integers,
    align_bias,
    choose_bits,
    fit_weights,
    folded,
    unit,
)
from coolvid.plugin.shortcuts import FoldedSynthesis

Floats = NDArray[np.float64]
Planes = NDArray[np.int16]

BAND_VALUES = 1 << 20
CACHED_VALUES = 3 << 15
GUARD_BITS = 8
GUARD_LIMIT = 1 << 29
MAX_BITS = 15


class _Conv:
    """One convolution: matrix [n_out, n_in * k * k] with `shift` fractional bits, and a bias."""

    def __init__(self, parameters: Mapping[str, FixedPoint], name: str, residual: bool, relu: bool) -> None:
        weight = fit_weights(parameters[f"{name}.weight"], extra=int(residual))
        self.weight, self.residual = weight, residual
        values = weight.values.astype(np.float64)
        self.kernel = values.shape[2]
        self.reach = self.kernel // 2
        self.relu = relu
        if residual:
            values[range(len(values)), range(len(values)), self.reach, self.reach] += unit(weight.shift)
        self.matrix: Floats = values.reshape(len(values), -1)
        self.shift = weight.shift
        self.bias = parameters[f"{name}.bias"]

    def folded(self, in_bits: int, out_bits: int) -> Folded:
        """The layer in integers, for compiled kernels."""
        return folded(self.weight, self.bias, in_bits, out_bits, self.residual)

    def accumulator(self, padded: Planes, in_bits: int) -> Floats:
        """padded [n_in, n + 2 reach, W + 2 reach] -> [n_out, n, W] with in_bits + shift fractional bits, after ReLU."""
        n, width = padded.shape[1] - 2 * self.reach, padded.shape[2] - 2 * self.reach
        out = self.matrix @ _patches(padded, self.kernel).reshape(-1, n * width)
        out += align_bias(self.bias, in_bits + self.shift)[:, None]
        if self.relu:
            np.maximum(out, 0.0, out=out)
        return out.reshape(-1, n, width)


class IntegerSynthesis:
    """planes int32 [n_in, H, W] within int16, their fractional bits -> int32 [n_out, H, W] within int16, out_bits.

    layers: (residual, relu) each. scales: fractional bits of each layer's int16 output; None: chosen at the first call
    to fit the data of that call. Last layer and stabiliser are added with GUARD_BITS more than the output has, each
    limited to +-GUARD_LIMIT.
    """

    def __init__(
        self,
        layers: tuple[tuple[bool, bool], ...],
        stabiliser: bool,
        n_noise: int,
        parameters: Mapping[str, FixedPoint],
        scales: tuple[int, ...] | None,
    ) -> None:
        self._layers = [_Conv(parameters, f"layers.{i}", *flags) for i, flags in enumerate(layers)]
        self._stabiliser = _Conv(parameters, "stabiliser", False, False) if stabiliser else None
        self._n_noise = n_noise
        self.scales = scales

    @property
    def out_bits(self) -> int:
        assert self.scales is not None, "not known before the first call"
        return self.scales[-1]

    def __call__(self, planes: Integers, bits: int) -> Integers:
        if self.scales is None:
            self.scales = self._choose(planes.astype(np.int16), bits)
        if kernels.decode is None:
            return self.plain(planes, bits)
        out: Integers = kernels.decode.synthesis(planes, *self.folded(bits)).astype(np.int32)
        return out

    def plain(self, planes: Integers, bits: int) -> Integers:
        """The numpy version. The compiled kernel must match it exactly."""
        assert self.scales is not None, "not known before the first call"
        source = planes.astype(np.int16)
        run = _LayerRun(self._layers, self._stabiliser, source, self._n_noise, (bits, *self.scales))
        out = np.empty((len(self._layers[-1].matrix), *planes.shape[1:]), np.int32)
        for rows in self._bands(BAND_VALUES, *planes.shape[1:]):
            out[:, rows] = run.rows(len(self._layers), rows)
        return out

    def folded(self, in_bits: int) -> FoldedSynthesis:
        """Form for the compiled decoder, for planes with in_bits."""
        assert self.scales is not None, "not known before the first call"
        bits = (in_bits, *self.scales)
        last_bits = bits[-1] + (GUARD_BITS if self._stabiliser else 0)
        targets = (*bits[1:-1], last_bits)
        layers = [
            (*layer.folded(before, after), layer.relu)
            for layer, before, after in zip(self._layers, bits, targets, strict=False)
        ]
        return FoldedSynthesis(layers, self._stabiliser.folded(in_bits, last_bits) if self._stabiliser else None)

    def _choose(self, source: Planes, bits: int) -> tuple[int, ...]:
        """Scales with which every layer's output fits int16 for this input: layer by layer, each from the whole output
        of the previous layer."""
        scales = [bits]
        bands = list(self._bands(CACHED_VALUES, *source.shape[1:]))
        known = source
        for i, layer in enumerate(self._layers):
            side = self._stabiliser if i == len(self._layers) - 1 else None
            run = _LayerRun(self._layers, side, source, self._n_noise, tuple(scales), (i, known))
            peak = max(run.peak(i, rows) for rows in bands)
            scales.append(
                choose_bits(np.array([min(peak, 2.0**62)]).astype(np.int64), scales[i] + layer.shift, MAX_BITS)
            )
            if i < len(self._layers) - 1:
                run.bits = tuple(scales)
                known = np.concatenate([run.rows(i + 1, rows) for rows in bands], axis=1)
        return tuple(scales[1:])

    def _bands(self, n_values: int, height: int, width: int) -> Iterator[slice]:
        """Bands of rows with about n_values numbers in the largest patches."""
        step = max(1, n_values // (width * max(max(layer.matrix.shape) for layer in self._layers)))
        return (slice(top, min(top + step, height)) for top in range(0, height, step))


class _LayerRun:
    """Layers applied to one input. bits: fractional bits of the input and of the outputs of the layers known so far.
    known: number of finished layers, and their whole output."""

    def __init__(
        self,
        layers: list[_Conv],
        stabiliser: _Conv | None,
        source: Planes,
        n_noise: int,
        bits: tuple[int, ...],
        known: tuple[int, Planes] | None = None,
    ) -> None:
        self.layers, self.stabiliser, self.source, self.bits = layers, stabiliser, source, bits
        self.n_known, self.known = known or (0, source)
        self.seen = source[: len(source) - n_noise]

    def rows(self, n_layers: int, rows: slice) -> Planes:
        """Some rows of the planes after the first n_layers layers."""
        if n_layers == self.n_known:
            return self.known[:, rows]
        i, out_bits = n_layers - 1, self.bits[n_layers]
        accumulator, bits = self._layer(i, rows), self.bits[i] + self.layers[i].shift
        if n_layers == len(self.layers) and self.stabiliser is not None:
            side = self.stabiliser.accumulator(self.seen[:, rows], self.bits[0])
            accumulator = _guarded(accumulator, bits, out_bits)
            accumulator += _guarded(side, self.bits[0] + self.stabiliser.shift, out_bits)
            bits = out_bits + GUARD_BITS
        rounded = _rounded(accumulator, bits, out_bits)
        return np.clip(rounded, INT16_MIN, INT16_MAX, out=rounded).astype(np.int16)

    def peak(self, i: int, rows: slice) -> float:
        """Largest magnitude of layer i's accumulator in these rows, including the stabiliser."""
        accumulator = self._layer(i, rows)
        if self.stabiliser is not None:
            side = self.stabiliser.accumulator(self.seen[:, rows], self.bits[0])
            accumulator += np.ldexp(side, self.bits[i] + self.layers[i].shift - self.bits[0] - self.stabiliser.shift)
        return float(np.abs(accumulator).max(initial=0.0))

    def _layer(self, i: int, rows: slice) -> Floats:
        """Layer i's accumulator for some rows, from the rows of the previous layer within its reach."""
        reach, height = self.layers[i].reach, self.source.shape[1]
        top, bottom = max(0, rows.start - reach), min(height, rows.stop + reach)
        x = self.rows(i, slice(top, bottom))
        if reach:
            above, below = top - (rows.start - reach), rows.stop + reach - bottom
            x = np.pad(x, ((0, 0), (above, below), (reach, reach)), mode="edge")
        return self.layers[i].accumulator(x, self.bits[i])


def _rounded(accumulator: Floats, bits: int, out_bits: int) -> Floats:
    """shift_round(accumulator, bits - out_bits) of integers exact in float64, in place."""
    accumulator *= 2.0 ** (out_bits - bits)
    if bits > out_bits:
        accumulator += 0.5
        np.floor(accumulator, out=accumulator)
    return accumulator


def _guarded(accumulator: Floats, bits: int, out_bits: int) -> Floats:
    rounded = _rounded(accumulator, bits, out_bits + GUARD_BITS)
    return np.clip(rounded, -GUARD_LIMIT, GUARD_LIMIT, out=rounded)


def _patches(padded: Planes, kernel: int) -> Floats:
    """[n_in, k, k, n, W] float64: the neighbourhood of every pixel; padded: with k // 2 on each side."""
    n, width = padded.shape[1] - kernel + 1, padded.shape[2] - kernel + 1
    out = np.empty((len(padded), kernel, kernel, n, width))
    for dy in range(kernel):
        for dx in range(kernel):
            out[:, dy, dx] = padded[:, dy : dy + n, dx : dx + width]
    return out
