"""Checks of a plugin's shortcuts against the calls they replace: folded forms bit for bit, kernels with a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coolvid.codec.fixed_point import Folded, Integers, saturate16, shift_round

from .conformance import Subject, require, rng
from .interfaces import WarperPlugin
from .shortcuts import FoldedArm, LayerKernel

# Maximum norm of the difference between kernel and autograd, relative to autograd's norm.
KERNEL_AGREEMENT = 1e-3
ARM_LIMIT = 1 << 30
SCALE = 0.37


def same(found: Any, expected: Any) -> None:
    """Raise Failure unless both integer arrays are equal."""
    require(found.shape == expected.shape, f"the shape is {found.shape}; the call returns {expected.shape}")
    wrong = int((found != expected).sum())
    require(wrong == 0, f"{wrong} of {expected.size} values differ from those of the call")


def close(what: str, found: Any, expected: Any) -> None:
    """Raise Failure unless the arrays or tensors agree within KERNEL_AGREEMENT."""
    found, expected = (x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (found, expected))
    require(found.shape == expected.shape, f"the {what} has shape {found.shape}; the call returns {expected.shape}")
    distance, size = (float(np.linalg.norm(np.ravel(x).astype(float))) for x in (found - expected, expected))
    text = f"the {what} differs by {distance:.4g} (norm) from that of the call, {size:.4g}"
    require(distance <= KERNEL_AGREEMENT * max(size, 1e-6), f"{text}; at most {KERNEL_AGREEMENT:.1%} is allowed")


def folded_outputs(layers: FoldedArm, contexts: Integers) -> Integers:
    """Output of the compiled decoder for contexts [N, n_in] within int16: int32 [N, 2]."""
    x: Any = contexts.astype(np.int64)
    side = layers.stabiliser
    out: Any = 0 if side is None else shift_round(_accumulated(side, x), side[2])
    for layer in layers.hidden:
        x = saturate16(shift_round(np.maximum(_accumulated(layer, x), 0), layer[2])).astype(np.int64)
    out = out + shift_round(_accumulated(layers.output, x), layers.output[2])
    made: Integers = out.clip(-ARM_LIMIT, ARM_LIMIT).astype(np.int32)
    return made


def _accumulated(layer: Folded, x: Any) -> Any:
    weights, bias, _ = layer
    return x @ weights.T.astype(np.int64) + bias


def check_layer_kernel(subject: Subject, kernel: LayerKernel[Any], module: nn.Module, inputs: Any, shape: Any) -> None:
    """forward() and backward() against the module on inputs [1, n, h, w], one tensor or a list of them."""
    with subject.checking("kernel"):
        several = isinstance(inputs, list)
        leaves = [x.clone().requires_grad_() for x in (inputs if several else [inputs])]
        expected = module(leaves if several else leaves[0])
        weights = torch.from_numpy(rng(5).normal(0, 1, shape)).float()
        wanted = [*leaves, *module.parameters()]
        slopes = torch.autograd.grad((expected * weights).sum(), wanted)
        arrays = [x.detach()[0, 0].numpy().copy() if several else x.detach()[0].numpy().copy() for x in leaves]
        d_arrays = [np.ones_like(x) for x in arrays]
        parameters = flat(module.parameters())
        d_parameters, out = np.ones_like(parameters), np.ones(shape[1:], np.float32)
        kernel.forward(arrays if several else arrays[0], parameters, out)
        close("output", out, expected[0])
        kernel.backward(weights[0].numpy(), d_arrays if several else d_arrays[0], d_parameters)
        for found, slope in zip(d_arrays, slopes, strict=False):
            close("derivative by an input", found, slope.reshape(found.shape))
        close("derivative by the parameters", d_parameters, flat(slopes[len(leaves) :]))


def flat(tensors: Any) -> Any:
    """All values in one float32 vector."""
    parts = [t.detach().reshape(-1) for t in tensors]
    return torch.cat(parts).numpy().copy() if parts else np.zeros(0, np.float32)


def check_rate(
    subject: Subject, plain: Callable[[Tensor], Tensor], rate: Callable[[Tensor], Tensor], *given: Sequence[Tensor]
) -> None:
    """rate() of latents [N] and its derivatives, against plain(). given: latents, ARM and inter-feature parameters."""
    with subject.checking("rate"):
        latents, *others = given
        found = []
        for function in (plain, rate):
            leaf = latents[0].clone().requires_grad_()
            bits = function(leaf)
            weights = torch.from_numpy(rng(5).uniform(0.5, 1.5, bits.shape)).float()
            wanted = [leaf, *(p for part in others for p in part)]
            found.append((bits, *torch.autograd.grad((bits * weights).sum(), wanted)))
        for i, (expected, own) in enumerate(zip(*found, strict=True)):
            close("rate" if i == 0 else "derivative of the rate", own, expected)


def check_rate_kernel(
    subject: Subject, plain: Callable[[Tensor], Tensor], kernel: Any, *given: Sequence[Tensor]
) -> None:
    """run() against plain(), with arguments as in check_rate()."""
    with subject.checking("kernel"):
        latents, *others = given
        leaf = latents[0].clone().requires_grad_()
        bits = plain(leaf).sum()
        slopes = torch.autograd.grad(bits * SCALE, [leaf, *(p for part in others for p in part)])
        parameters = [flat(part) for part in others]
        made = leaf.detach().numpy().copy(), *parameters
        written = tuple(np.ones_like(x) for x in made)
        close("rate", kernel.run(*made, SCALE, written), bits)
        n = len(others[0])
        for own, expected in zip(written, (slopes[:1], slopes[1 : n + 1], slopes[n + 1 :]), strict=True):
            close("derivative of the rate", own, flat(expected))


def check_warp(subject: Subject, plugin: WarperPlugin, reference: Tensor, flow: Tensor, block: int) -> None:
    """warp_blocks() and kernel() against the module, for flow [1, 2, h, w] in pixels."""
    module = plugin.module()
    weights = torch.from_numpy(rng(5).normal(0, 1, reference.shape)).float()
    with subject.checking("warp_blocks"):
        made = []
        for warp in (WarperPlugin.warp_blocks, type(plugin).warp_blocks):
            leaf = flow.clone().requires_grad_()
            out = warp(plugin, module, reference, leaf, block)
            made.append((out, *torch.autograd.grad((out * weights).sum(), leaf)))
        (expected, slope), (out, own) = made
        close("picture", out, expected)
        close("derivative by the flow", own, slope)
    kernel = plugin.kernel(module, reference, block)
    if kernel is None:
        return
    with subject.checking("kernel"):
        picture, d_flow = np.ones(reference.shape[1:], np.float32), np.ones(flow.shape[1:], np.float32)
        kernel.forward(flow[0].numpy().copy(), picture)
        close("picture", picture, expected[0])
        kernel.backward(weights[0].numpy(), d_flow)
        close("derivative by the flow", d_flow, slope[0])
