"""Rate of all latents through the compiled kernels, gradients made in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from coolvid.architecture import NEIGHBOURS, Architecture, Grid
from coolvid.kernels import compiled, threads

from ..stateful import usable

MAX_WIDTH = 104
MAX_HIDDEN = 8


def rate(
    latents: Tensor,
    grids: Sequence[Grid],
    architecture: Architecture,
    n_hidden: int,
    arm: Sequence[Tensor],
    ifce: Sequence[Tensor],
) -> Tensor | None:
    """Bits of each latent [N], finest grid first; None where the kernels do not apply.

    arm: weight and bias of each hidden layer, of the output, and of the stabiliser if there is one.
    ifce: weight and bias of each map.
    """
    width = architecture.arm_ports.n_in
    if width > MAX_WIDTH or n_hidden > MAX_HIDDEN or not usable(latents, *arm, *ifce):
        return None
    stabiliser = len(arm) == 2 * (n_hidden + 2)
    kernel = _kernel(tuple(grids), architecture, n_hidden, stabiliser, threads())
    out: Tensor = _Rate.apply(kernel, tuple(grids), len(arm), latents, *arm, *ifce)  # type: ignore[no-untyped-call]
    return out


@lru_cache(maxsize=8)
def _kernel(grids: tuple[Grid, ...], architecture: Architecture, n_hidden: int, stabiliser: bool, threads: int) -> Any:
    assert compiled is not None
    levels = architecture.ifce_levels
    maps = []
    for log2, is_hyper in levels:
        own = next(g for g in grids if (g.log2, g.is_hyper) == (log2, is_hyper))
        coarser = [i for i, g in enumerate(grids) if g.log2 > log2]
        maps.append(((own.height + 1) // 2, (own.width + 1) // 2, log2 + 1, coarser))
    shapes = [
        (g.height, g.width, g.log2, levels.index((g.log2, g.is_hyper)) if (g.log2, g.is_hyper) in levels else -1)
        for g in grids
    ]
    neighbours = NEIGHBOURS[: architecture.n_context]
    return compiled.ArmRate(neighbours, architecture.n_ifce, n_hidden, stabiliser, shapes, maps, threads)


class _Rate(torch.autograd.Function):
    """The forward pass also makes the gradients of the total; latents that do not count alike take a second pass."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Any, grids: tuple[Grid, ...], n_arm: int, latents: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.kernel, ctx.grids = kernel, grids
        ctx.inputs = _planes(latents, grids), _flat(tensors[:n_arm]), _flat(tensors[n_arm:])
        ctx.shapes = [t.shape for t in tensors]
        wanted = any(ctx.needs_input_grad)
        _, *gradients, bits = kernel.run(*ctx.inputs, wanted, True)
        if wanted:
            ctx.save_for_backward(*_joined(gradients))
        return torch.cat([torch.from_numpy(b).view(-1) for b in bits])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        by_latent, by_parameter = ctx.saved_tensors
        if any(gradient.stride()) and bool((gradient != gradient[0]).any()):
            weights = _planes(gradient, ctx.grids)
            _, *gradients, _ = ctx.kernel.run(*ctx.inputs, True, False, weights)
            by_latent, by_parameter = _joined(gradients)
        else:
            by_latent, by_parameter = by_latent * gradient[0], by_parameter * gradient[0]
        parts = by_parameter.split([shape.numel() for shape in ctx.shapes])
        by_tensor = [part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)]
        return None, None, None, by_latent, *by_tensor


def _planes(flat: Tensor, grids: Sequence[Grid]) -> list[Any]:
    """A flat tensor [N] as one array [h, w] per grid."""
    parts = flat.detach().contiguous().split([g.height * g.width for g in grids])  # type: ignore[no-untyped-call]
    return [part.view(g.shape).numpy() for part, g in zip(parts, grids, strict=True)]


def _joined(gradients: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """(by latent [N], by parameter, ARM before IFCE) of what the kernel returns."""
    d_planes, d_arm, d_ifce = gradients
    by_latent = torch.cat([torch.from_numpy(d).view(-1) for d in d_planes])
    return by_latent, torch.cat((torch.from_numpy(d_arm), torch.from_numpy(d_ifce)))


def _flat(tensors: Sequence[Tensor]) -> Any:
    return torch.cat([t.detach().reshape(-1) for t in tensors]).numpy() if tensors else torch.zeros(0).numpy()
