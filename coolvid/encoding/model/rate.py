"""Rate of latents as one differentiable step: laplace.laplace_bits on the entropy model's raw outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from coolvid.codec.laplace import LOG_SCALE_LIMIT, LOG_SCALE_OFFSET, MIN_PROBABILITY


def log_scale_of(raw: Tensor) -> Tensor:
    """Logarithm of the Laplace scale, clamp(raw - 4, -5, 5), of a raw output of the entropy model."""
    return (raw - LOG_SCALE_OFFSET).clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)


def scale_of(raw: Tensor) -> Tensor:
    """Laplace scale of a raw output of the entropy model."""
    return log_scale_of(raw).exp()


def latent_bits(latents: Tensor, mu: Tensor, raw: Tensor) -> Tensor:
    """Bits of each latent [N] under Laplace(mu [N], scale_of(raw [N])), differentiable in all three."""
    out: Tensor = _LatentBits.apply(latents, mu, raw)  # type: ignore[no-untyped-call]
    return out


class _LatentBits(torch.autograd.Function):
    """With a = |y - mu|, s = 1 / scale, near = exp(-|a - 1/2| s) and far = exp(-(a + 1/2) s), the mass of y ± 1/2 is
    P = (sign(a - 1/2) (near - 1) + 1 - far) / 2; 2 dP/da = s (far - near), 2 dP/ds = (a + 1/2) far - (a - 1/2) near.

    The forward pass computes the slopes, where the intermediate values are available.
    """

    @staticmethod
    def forward(ctx: Any, latents: Tensor, mu: Tensor, raw: Tensor) -> Tensor:
        centred = latents - mu
        distance = centred.abs()
        log_scale = (raw - LOG_SCALE_OFFSET).clamp_(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
        sharpness = torch.exp(-log_scale)
        inner, outer = distance - 0.5, distance + 0.5
        near = torch.expm1(-(inner.abs() * sharpness))
        far = torch.expm1(-(outer * sharpness))
        mass = (near * inner.sign()).sub_(far).mul_(0.5)
        if any(ctx.needs_input_grad):
            factor = (-0.5 / math.log(2.0)) * (mass > MIN_PROBABILITY) / mass.clamp_min(MIN_PROBABILITY)
            by_distance = factor * sharpness * (far - near) * centred.sign()
            by_sharpness = outer * (far + 1) - inner * (near + 1)
            free = (raw - LOG_SCALE_OFFSET).abs_() < LOG_SCALE_LIMIT
            ctx.save_for_backward(by_distance, -factor * by_sharpness * sharpness * free)
        return mass.clamp_min_(MIN_PROBABILITY).log2_().neg_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        by_distance, by_raw = ctx.saved_tensors
        by_latent = gradient * by_distance
        return by_latent, -by_latent, gradient * by_raw
