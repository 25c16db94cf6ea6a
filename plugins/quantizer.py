"""Differentiable stand-ins for rounding (arXiv 2212.05458, 2307.12706; soft rounding: 2006.09952; noise: 2312.02753).

Every quantiser receives the scaled latents and the noise that the training phase asked for, and returns values that
behave, in training, like the integers that will be sent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coolvid.interfaces import QuantizerPlugin


def softround(x: Tensor, temperature: Tensor | float) -> Tensor:
    """A staircase that goes from identity (temperature -> infinity) to rounding (-> 0), exact at all half integers.

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
    """softround(softround(x) + noise): the default of all phases but the last."""

    name = "softround"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float) -> Tensor:
        soft = softround(x, temperature)
        return softround(soft if noise is None else soft + noise, temperature)


class SoftroundAlone(QuantizerPlugin):
    """softround(x), without noise."""

    name = "softround_alone"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float) -> Tensor:
        return softround(x, temperature)


class StraightThrough(QuantizerPlugin):
    """Forward the integers, backward the slope of softround."""

    name = "ste"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float) -> Tensor:
        soft = softround(x, temperature)
        return soft + (torch.round(x) - soft).detach()


class Hardround(QuantizerPlugin):
    """The integers; latents receive no gradient, so that only the networks adapt to what is really sent."""

    name = "hardround"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float) -> Tensor:
        return torch.round(x)


class NoRounding(QuantizerPlugin):
    """x + noise: with uniform noise, the classical additive model of quantisation (arXiv 1611.01704)."""

    name = "none"

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float) -> Tensor:
        return x if noise is None else x + noise
