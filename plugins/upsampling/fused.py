"""The separable upsampling in compiled kernels, as one differentiable step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolvid.kernels import compiled, kept, threads

from ..stateful import Stateful, usable


def upsample(grids: Sequence[Tensor], up: Sequence[Tensor], pre: Sequence[Tensor]) -> Tensor | None:
    """Grids [1, 1, h, w], finest first -> [1, n, H, W]; None if the kernels do not apply."""
    if len(grids) < 2 or not usable(*grids, *up, *pre):
        return None
    out: Tensor = _Upsample.apply(len(grids), *grids, *up, *pre)  # type: ignore[no-untyped-call]
    return out


@kept
def _kernel(sizes: tuple[tuple[int, int], ...], k_size: int, preconcat_k_size: int, threads: int) -> Stateful:
    assert compiled is not None
    return Stateful(compiled.Upsampling(sizes, k_size, preconcat_k_size, threads))


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, n: int, *tensors: Tensor) -> Tensor:
        grids = [t.detach()[0, 0].contiguous().numpy() for t in tensors[:n]]
        up, pre = (
            np.stack([t.detach().numpy() for t in part]) for part in (tensors[n : 2 * n - 1], tensors[2 * n - 1 :])
        )
        sizes = tuple(grid.shape for grid in grids)
        ctx.kernel = _kernel(sizes, 2 * up.shape[1], 2 * pre.shape[1] - 1, threads())
        ctx.grids = grids
        out, ctx.run = ctx.kernel.forward(grids, up, pre)
        return torch.from_numpy(out)[None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        d_grids, d_up, d_pre = ctx.kernel.backward(ctx.run, ctx.grids, gradient[0].contiguous().numpy())
        by_grid = [torch.from_numpy(d)[None, None] for d in d_grids]
        return None, *by_grid, *torch.from_numpy(d_up).unbind(), *torch.from_numpy(d_pre).unbind()


class UpsamplingKernel:
    """The LayerKernel of the separable upsampling."""

    def __init__(self, sizes: tuple[tuple[int, int], ...], k_size: int, preconcat_k_size: int) -> None:
        self._shared = _kernel(sizes, k_size, preconcat_k_size, threads())
        self._n_up = (len(sizes) - 1) * k_size // 2
        self._run: Any = ()

    def forward(self, grids: Sequence[Any], parameters: Any, out: Any) -> None:
        _, self._run = self._shared.forward(grids, parameters[: self._n_up], parameters[self._n_up :], out)

    def backward(self, d_out: Any, d_grids: Sequence[Any], d_parameters: Any) -> None:
        d_up, d_pre = d_parameters[: self._n_up], d_parameters[self._n_up :]
        self._shared.backward(self._run, self._run[0], d_out, d_grids, d_up, d_pre)
