"""Motion compensation in compiled kernels, as one differentiable step."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.kernels import compiled, threads

from ..stateful import Stateful, usable

STEPS = 2048
"""Fractions of a pixel in the tap table; interpolation between them has an error below 1e-6."""

TapValues = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]


class FusedWarp:
    """Kernels for the references of one model, created at the first use of each reference."""

    def __init__(self, n_taps: int, tap_values: TapValues) -> None:
        self._n_taps, self._tap_values = n_taps, tap_values
        self._kernels: dict[tuple[int, int, int], tuple[Tensor, Stateful]] = {}

    def __call__(self, reference: Tensor, flow: Tensor, block: int) -> Tensor | None:
        """reference [1, C, H, W], flow [1, 2, ceil(H / block), ceil(W / block)] -> [1, C, H, W]; None if the kernels
        do not apply."""
        if not self._applies(reference) or not usable(flow):
            return None
        out: Tensor = _Warp.apply(self._kernel(reference, block), flow)  # type: ignore[no-untyped-call]
        return out

    def kernel(self, reference: Tensor, block: int) -> SincWarp | None:
        """The kernel for one reference, for use without autograd; None if there is none."""
        return SincWarp(self._kernel(reference, block)) if self._applies(reference) else None

    def _applies(self, reference: Tensor) -> bool:
        return self._n_taps <= 16 and not reference.requires_grad and usable(reference)

    def _kernel(self, reference: Tensor, block: int) -> Stateful:
        assert compiled is not None
        key = (reference.data_ptr(), block, threads())
        known = self._kernels.get(key)
        if known is None or not (known[0] is reference or torch.equal(known[0], reference)):
            values, slopes = _table(self._n_taps, self._tap_values)
            picture = reference.detach()[0].contiguous().numpy()
            known = reference, Stateful(compiled.Warp(picture, values, slopes, block, key[2]))
            self._kernels = dict(list(self._kernels.items())[-3:]) | {key: known}
        return known[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedWarp:
        return FusedWarp(self._n_taps, self._tap_values)

    def __getstate__(self) -> dict[str, Any]:
        return {"_n_taps": self._n_taps, "_tap_values": self._tap_values, "_kernels": {}}


@lru_cache(maxsize=8)
def _table(n_taps: int, tap_values: TapValues) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Taps and their slopes [STEPS + 1, n] at fractions 0, 1 / STEPS, ..., 1."""
    values, slopes = tap_values(torch.arange(STEPS + 1, dtype=torch.float64) / STEPS, n_taps)
    assert slopes is not None
    return values.t().float().contiguous().numpy(), slopes.t().float().contiguous().numpy()


class SincWarp:
    """The WarpKernel of the interpolation filters."""

    def __init__(self, shared: Stateful) -> None:
        self._shared = shared
        self._run: Any = ()

    def forward(self, flow: Any, out: Any) -> None:
        _, self._run = self._shared.forward(flow, True, out)

    def backward(self, d_out: Any, d_flow: Any) -> None:
        self._shared.backward(self._run, d_out, d_flow)


class _Warp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Stateful, flow: Tensor) -> Tensor:
        ctx.kernel = kernel
        out, ctx.run = kernel.forward(flow.detach()[0].contiguous().numpy(), ctx.needs_input_grad[1])
        return torch.from_numpy(out)[None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, torch.from_numpy(ctx.kernel.backward(ctx.run, gradient[0].contiguous().numpy()))[None]
