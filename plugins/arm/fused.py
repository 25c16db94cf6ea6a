"""Rate of all latents in compiled kernels, with the gradients in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coolvid.codec.architecture import NEIGHBOURS, Architecture, Grid
from coolvid.kernels import compiled, kept, threads

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
    """Bits of each latent [N], finest grid first; None if the kernels do not apply.

    arm: weight and bias of each hidden layer, of the output, and of the stabiliser, if any.
    ifce: weight and bias of each map.
    """
    if not usable(latents, *arm, *ifce):
        return None
    kernel = rate_kernel(grids, architecture, n_hidden, len(arm) == 2 * (n_hidden + 2))
    if kernel is None:
        return None
    if not torch.is_grad_enabled():  # a Function cannot see this itself, and derivatives triple the time
        flat = latents.detach().contiguous().numpy()
        return torch.from_numpy(kernel.run(flat, _flat(arm), _flat(ifce), False, True)[-1])
    out: Tensor = _Rate.apply(kernel, len(arm), latents, *arm, *ifce)  # type: ignore[no-untyped-call]
    return out


def rate_kernel(grids: Sequence[Grid], architecture: Architecture, n_hidden: int, stabiliser: bool) -> Any | None:
    """The kernel, shared by all models of this shape in one thread; None if there is none."""
    if compiled is None or architecture.arm_ports.n_in > MAX_WIDTH or n_hidden > MAX_HIDDEN:
        return None
    return _kernel(tuple(grids), architecture, n_hidden, stabiliser, threads())


@kept
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
    """The forward pass also computes the gradients of the total. Unequal weights of latents need a second pass."""

    @staticmethod
    def forward(ctx: Any, kernel: Any, n_arm: int, latents: Tensor, *tensors: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.inputs = latents.detach().contiguous().numpy(), _flat(tensors[:n_arm]), _flat(tensors[n_arm:])
        ctx.shapes = [t.shape for t in tensors]
        wanted = any(ctx.needs_input_grad)
        _, *gradients, bits = kernel.run(*ctx.inputs, wanted, True)
        if wanted:
            ctx.save_for_backward(*map(torch.from_numpy, gradients))
        return torch.from_numpy(bits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        gradients = ctx.saved_tensors
        if any(gradient.stride()) and bool((gradient != gradient[0]).any()):
            _, *found, _ = ctx.kernel.run(*ctx.inputs, True, False, gradient.contiguous().numpy())
            by_latent, *by_parameter = map(torch.from_numpy, found)
        else:
            by_latent, *by_parameter = (g * gradient[0] for g in gradients)
        parts = torch.cat(by_parameter).split([shape.numel() for shape in ctx.shapes])  # type: ignore[no-untyped-call]
        by_tensor = [part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)]
        return None, None, by_latent, *by_tensor


class MlpRate:
    """The RateKernel of the MLP."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def run(self, latents: Any, arm: Any, ifce: Any, scale: float, slopes: tuple[Any, Any, Any]) -> float:
        """Total bits of the latents [N]. slopes: outputs for the derivatives by the three inputs, times scale."""
        return float(sum(self._kernel.run(latents, arm, ifce, True, False, None, scale, slopes)[0]))


def _flat(tensors: Sequence[Tensor]) -> Any:
    return torch.cat([t.detach().reshape(-1) for t in tensors]).numpy() if tensors else torch.zeros(0).numpy()
