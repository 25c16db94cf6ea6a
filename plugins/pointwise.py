"""A chain of linear maps applied to every column of a matrix, as one differentiable step that saves only its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CHUNK = 4096
"""Columns per chunk, so that intermediate values stay in the processor's cache."""


def chain(
    x: Tensor, layers: Sequence[tuple[Tensor, Tensor]], relus: Sequence[bool], skip: Tensor | None = None
) -> Tensor:
    """x [C, N] through layers (weight [C_out, C_in], bias [C_out]), each followed by a ReLU if `relus` says so.

    skip [C_out, C]: an additional linear map from x to the output, without ReLU. Fastest for a contiguous x.
    """
    flat = [tensor for layer in layers for tensor in layer]
    out: Tensor = _Chain.apply(x, tuple(relus), skip, *flat)  # type: ignore[no-untyped-call]
    return out


class _Chain(torch.autograd.Function):
    """Both passes process the columns in chunks; the backward pass recomputes the discarded activations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, relus: tuple[bool, ...], skip: Tensor | None, *flat: Tensor) -> Tensor:
        weights, biases = flat[0::2], flat[1::2]
        out = x.new_empty((weights[-1].shape[0], x.shape[1]))
        buffers = _buffers(x, weights[:-1])
        for part in _parts(x.shape[1]):
            values = _hidden(x[:, part], weights[:-1], biases, relus, buffers)
            into = out[:, part]
            torch.addmm(biases[-1][:, None], weights[-1], values[-1], out=into)
            if relus[-1]:
                into.clamp_min_(0.0)
            if skip is not None:
                into.addmm_(skip, x[:, part])
        ctx.relus, ctx.has_skip = relus, skip is not None
        ctx.save_for_backward(x, *([skip] if skip is not None else []), *flat)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *flat = ctx.saved_tensors
        skip = flat.pop(0) if ctx.has_skip else None
        weights, biases = flat[0::2], flat[1::2]
        slopes = [torch.zeros_like(tensor) for tensor in flat]
        skip_slope = None if skip is None else torch.zeros_like(skip)
        x_slope = torch.empty_like(x)
        buffers, slope_buffers = _buffers(x, weights), _buffers(x, weights[:-1])
        ones = x.new_ones(CHUNK)
        for part in _parts(x.shape[1]):
            values = _hidden(x[:, part], weights if ctx.relus[-1] else weights[:-1], biases, ctx.relus, buffers)
            given = gradient[:, part]
            slope = _masked(given.clone(), values[-1]) if ctx.relus[-1] else given
            for i in reversed(range(len(weights))):
                slopes[2 * i].addmm_(slope, values[i].t())
                slopes[2 * i + 1].addmv_(slope, ones[: slope.shape[1]])
                into = slope_buffers[i - 1][:, : slope.shape[1]] if i else x_slope[:, part]
                torch.mm(weights[i].t(), slope, out=into)
                slope = _masked(into, values[i]) if i and ctx.relus[i - 1] else into
            if skip is not None and skip_slope is not None:
                skip_slope.addmm_(given, values[0].t())
                slope.addmm_(skip.t(), given)
        return x_slope, None, skip_slope, *slopes


def _parts(n: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def _buffers(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    return [x.new_empty((weight.shape[0], CHUNK)) for weight in weights]


def _hidden(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], relus: Sequence[bool], buffers: Sequence[Tensor]
) -> list[Tensor]:
    """The chunk x and the output of each of `weights`, in the buffers."""
    values = [x]
    for weight, bias, relu, buffer in zip(weights, biases, relus, buffers, strict=False):
        into = buffer[:, : x.shape[1]]
        torch.addmm(bias[:, None], weight, values[-1], out=into)
        values.append(into.clamp_min_(0.0) if relu else into)
    return values


def _masked(slope: Tensor, value: Tensor) -> Tensor:
    """slope, set to 0 in place where the ReLU's value is 0."""
    torch.ops.aten.threshold_backward.grad_input(slope, value, 0, grad_input=slope)
    return slope
