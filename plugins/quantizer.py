"""Differentiable substitutes for rounding (arXiv 2212.05458, 2307.12706; soft rounding: 2006.09952; noise: 2312.02753).

Every quantizer receives the scaled latents and the noise of the training phase. It returns values that behave, in
training, like the transmitted integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.kernels import compiled, threads
from coolvid.plugin.interfaces import QuantizerPlugin, TrainingState

from .stateful import usable

Array = NDArray[np.float32]


def softround(x: Tensor, temperature: Tensor | float) -> Tensor:
    """A staircase between identity (temperature -> infinity) and rounding (-> 0), exact at all half integers.

    floor(x) + tanh((x - floor(x) - 1/2) / t) / (2 tanh(1 / (2 t))) + 1/2, any shape, differentiable.
    """
    whole = torch.floor(x.detach())
    return whole + (torch.tanh((x - whole - 0.5) / temperature) * _half_inverse(temperature) + 0.5)


def _half_inverse(temperature: Tensor | float) -> Tensor | float:
    """1 / (2 tanh(1 / (2 t)))."""
    if isinstance(temperature, Tensor):
        return 0.5 / torch.tanh(0.5 / temperature)
    return 0.5 / math.tanh(0.5 / temperature)


class Softround(QuantizerPlugin):
    """softround(softround(x) + noise): the default in all phases but the last."""

    name = "softround"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        if not isinstance(temperature, Tensor) and noise is not None and usable(x, noise):
            out: Tensor = _SoftroundTwice.apply(x, noise, temperature)  # type: ignore[no-untyped-call]
            return out
        soft = softround(x, temperature)
        return softround(soft if noise is None else soft + noise, temperature)

    def sloped(
        self,
        x: Array,
        gain: float,
        noise: Array | None,
        temperature: float,
        state: TrainingState,
        out: Array,
        slope: Array,
    ) -> bool:
        if compiled is None or noise is None:
            return False
        compiled.soft_round(x, noise, temperature, threads(), gain, out, slope)
        return True


class _SoftroundTwice(torch.autograd.Function):
    """softround(softround(x) + noise) in the compiled kernel, with the derivative by x from the same pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor, temperature: float) -> Tensor:
        assert compiled is not None
        flat, added = (t.detach().contiguous().view(-1).numpy() for t in (x, noise))
        out, slope = compiled.soft_round(flat, added, temperature, threads())
        ctx.save_for_backward(torch.from_numpy(slope).view_as(x))
        return torch.from_numpy(out).view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class SoftroundAlone(QuantizerPlugin):
    """softround(x), without noise."""

    name = "softround_alone"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        return softround(x, temperature)


class StraightThrough(QuantizerPlugin):
    """Integers in the forward pass, slope of softround in the backward pass."""

    name = "ste"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        soft = softround(x, temperature)
        return soft + (torch.round(x) - soft).detach()


class Hardround(QuantizerPlugin):
    """Integers. Latents receive no gradient, so only the networks adapt, to the transmitted integers."""

    name = "hardround"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        return torch.round(x)


class NoRounding(QuantizerPlugin):
    """x + noise: with uniform noise, the classical additive model of quantization (arXiv 1611.01704)."""

    name = "none"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        return x if noise is None else x + noise
