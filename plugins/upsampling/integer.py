"""Integer form of the separable upsampling, numpy only. Accumulators are int32; fit_weights prevents overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coolvid import kernels
from coolvid.codec.fixed_point import (
    INT16_MAX,
    INT16_MIN,
    FixedPoint,
    Integers,
    choose_bits,
    fit_weights,
    saturate16,
    shift_round,
    unit,
)
from coolvid.plugin.shortcuts import FoldedUpsampling

MAX_BITS = 12
_AXES = (1, 2)


class IntegerUpsampling:
    """Grids int32 [h, w], finest first -> int32 [n, H, W] within int16, with out_bits fractional bits.

    All intermediate planes have out_bits, too (the only scale); None: chosen at the first call without saturation.
    """

    def __init__(self, n_steps: int, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None) -> None:
        self._up = [_kernel(parameters[f"up.{s}"], odd=False) for s in range(n_steps)]
        self._pre = [_kernel(parameters[f"pre.{s}"], odd=True) for s in range(n_steps)]
        self.scales = scales

    @property
    def out_bits(self) -> int:
        assert self.scales is not None, "not known before the first call"
        return self.scales[0]

    def __call__(self, latents: Sequence[Integers]) -> Integers:
        if self.scales is None:
            self.scales = (self._choose(latents),)
        if kernels.decode is None:
            return self.plain(latents)
        out: Integers = kernels.decode.upsampling(list(latents), *self.folded()).astype(np.int32)
        return out

    def folded(self) -> FoldedUpsampling:
        """Form for the compiled decoder."""
        up, pre = ([(kernel.values, kernel.shift) for kernel in side] for side in (self._up, self._pre))
        return FoldedUpsampling(up, pre, self.out_bits)

    def plain(self, latents: Sequence[Integers]) -> Integers:
        """The numpy version. The compiled kernel must match it exactly."""
        return self._run(latents, self.out_bits)

    def _choose(self, latents: Sequence[Integers]) -> int:
        bits = min(choose_bits(grid.astype(np.int64), 0, MAX_BITS) for grid in latents)
        while bits > 0:
            peaks: list[int] = []
            self._run(latents, bits, lambda plane: peaks.append(int(np.abs(plane).max(initial=0))))  # noqa: B023
            if max(peaks, default=0) <= 0.9 * INT16_MAX:
                break
            bits -= 1
        return bits

    def _run(
        self, latents: Sequence[Integers], bits: int, watch: Callable[[Integers], None] = lambda plane: None
    ) -> Integers:
        stack = _at_bits(latents[-1], bits)[None]
        for s in range(len(self._up) - 1, -1, -1):
            shape = latents[s].shape
            for axis, size in zip(_AXES, shape, strict=True):
                stack = _round16(double(stack, self._up[s].values, axis, size), self._up[s].shift)
                watch(stack)
            fine = _filtered(_at_bits(latents[s], bits)[None], self._pre[s], watch)
            stack = np.concatenate((fine, stack))
        return stack


def _kernel(half: FixedPoint, odd: bool) -> FixedPoint:
    """The whole symmetric filter [k] from its first half, at a precision that fit_weights permits."""
    values = np.concatenate((half.values, half.values[::-1][1 if odd else 0 :]))
    fitted = fit_weights(FixedPoint(values[None].astype(np.int32), half.shift), extra=int(odd))
    return FixedPoint(fitted.values[0], fitted.shift)


def _at_bits(latent: Integers, bits: int) -> Integers:
    return saturate16(shift_round(latent, -bits))


def _round16(accumulator: Integers, shift: int) -> Integers:
    """The int32 accumulator * 2**-shift, rounded, within int16, in place."""
    if shift <= 0:
        return saturate16(shift_round(accumulator, shift))
    accumulator += np.int32(1 << (shift - 1))
    accumulator >>= shift
    return np.clip(accumulator, INT16_MIN, INT16_MAX, out=accumulator)


def _filtered(x: Integers, kernel: FixedPoint, watch: Callable[[Integers], None]) -> Integers:
    """x [1, h, w] through the kernel, zero padding, columns then rows, plus x itself."""
    vertical = _round16(convolve(x, kernel.values, _AXES[0]), kernel.shift)
    watch(vertical)
    accumulator = convolve(vertical, kernel.values, _AXES[1])
    accumulator += np.int32(unit(kernel.shift)) * x
    out = _round16(accumulator, kernel.shift)
    watch(out)
    return out


def _padded(x: Integers, axis: int, n: int, mode: str) -> Integers:
    width = [(0, 0)] * x.ndim
    width[axis] = (n, n)
    return np.pad(x, width, mode=mode)  # type: ignore[call-overload, no-any-return]


def _part(x: Integers, axis: int, part: slice) -> Integers:
    return x[(slice(None),) * axis + (part,)]


def convolve(x: Integers, kernel: Integers, axis: int) -> Integers:
    """out[r] = sum over j of kernel[j] * x[r + j - k//2] along axis, zero outside; int32 accumulators."""
    reach, size = len(kernel) // 2, x.shape[axis]
    padded = _padded(x, axis, reach, "constant")
    out = np.zeros_like(x)
    for j, tap in enumerate(kernel):
        if tap:
            out += _part(padded, axis, slice(j, j + size)) * tap
    return out


def double(x: Integers, kernel: Integers, axis: int, size: int) -> Integers:
    """out[r] = sum over i of kernel[r + k/2 - 1 - 2i] * x[clamp(i)] along axis, for r < size; int32 accumulators."""
    k = len(kernel)
    reach = k // 4 + 1
    padded = _padded(x, axis, reach, "edge")
    out = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), np.int32)
    for phase in range(min(2, size)):
        target = _part(out, axis, slice(phase, None, 2))
        for j in range((phase + k // 2 - 1) % 2, k, 2):
            start = reach + (phase + k // 2 - 1 - j) // 2
            if kernel[j]:
                target += _part(padded, axis, slice(start, start + target.shape[axis])) * kernel[j]
    return out
