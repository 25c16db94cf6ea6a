"""The convolutional synthesis in compiled kernels, as one differentiable step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coolvid.kernels import compiled, kept, threads

from ..stateful import Stateful, usable

Layers = tuple[tuple[int, int, bool, bool], ...]


def synthesise(
    planes: Tensor, layers: Layers, n_seen: int, stabiliser: bool, parameters: Sequence[Tensor]
) -> Tensor | None:
    """Planes [1, n_in, H, W] -> [1, n_out, H, W]; None if the kernels do not apply.

    layers: (n_out, kernel, residual, relu) each. parameters: weight and bias of each layer, then of the stabiliser.
    """
    if not usable(planes, *parameters):
        return None
    out: Tensor = _Synthesise.apply(planes, layers, n_seen, stabiliser, *parameters)  # type: ignore[no-untyped-call]
    return out


@kept
def _kernel(
    layers: Layers, n_in: int, n_seen: int, stabiliser: bool, height: int, width: int, threads: int
) -> Stateful:
    assert compiled is not None
    return Stateful(compiled.Synthesis(layers, n_in, n_seen, stabiliser, height, width, threads))


class _Synthesise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, layers: Layers, n_seen: int, stabiliser: bool, *parameters: Tensor) -> Tensor:
        z = planes.detach()[0].contiguous().numpy()
        flat = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
        ctx.shapes = [p.shape for p in parameters]
        ctx.kernel = _kernel(layers, z.shape[0], n_seen, stabiliser, z.shape[1], z.shape[2], threads())
        out, ctx.run = ctx.kernel.forward(z, flat)
        return torch.from_numpy(out)[None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        d_planes, d_flat = ctx.kernel.backward(ctx.run, *ctx.run, gradient[0].contiguous().numpy())
        parts = torch.from_numpy(d_flat).split([shape.numel() for shape in ctx.shapes])  # type: ignore[no-untyped-call]
        by_parameter = [part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)]
        return torch.from_numpy(d_planes)[None], None, None, None, *by_parameter


class SynthesisKernel:
    """The LayerKernel of the convolutional synthesis."""

    def __init__(self, layers: Layers, n_in: int, n_seen: int, stabiliser: bool, size: tuple[int, int]) -> None:
        self._shared = _kernel(layers, n_in, n_seen, stabiliser, *size, threads())
        self._run: Any = ()

    def forward(self, planes: Any, parameters: Any, out: Any) -> None:
        _, self._run = self._shared.forward(planes, parameters, out)

    def backward(self, d_out: Any, d_planes: Any, d_parameters: Any) -> None:
        self._shared.backward(self._run, *self._run[:2], d_out, d_planes, d_parameters)
