"""The D of D + lambda R."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coolvid.kernels import compiled, threads
from coolvid.plugin.interfaces import TRAINED, DistortionPlugin, TrainingState

from .stateful import usable


class MeanSquaredError(DistortionPlugin):
    """Mean squared error over all samples; in 4:2:0, each plane is weighted by its number of samples."""

    name = "mse"
    is_squared_error = True

    def distortion(self, decoded: Any, target: Any, state: TrainingState = TRAINED) -> Tensor:
        pairs = _pairs(decoded, target)
        n_samples = sum(t.numel() for _, t in pairs)
        fused = _fused([d for d, _ in pairs], [t for _, t in pairs])
        total = torch.stack([torch.sum((d - t) ** 2) for d, t in pairs]).sum() if fused is None else fused
        mean: Tensor = total / n_samples
        return mean

    def errors(self, decoded: Any, target: Any) -> tuple[Tensor, ...]:
        pairs = _pairs(decoded, target)
        n_samples = sum(t.numel() for _, t in pairs)
        return tuple((d - t).square() / n_samples for d, t in pairs)


def _pairs(decoded: Any, target: Any) -> list[tuple[Tensor, Tensor]]:
    """Planes of both pictures."""
    if isinstance(target, dict):
        return [(decoded[name], target[name]) for name in ("y", "u", "v")]
    return [(decoded, target)]


def _fused(decoded: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor | None:
    """The sum of squared differences in compiled kernels; None if they do not apply."""
    if not usable(*decoded, *target) or any(t.requires_grad for t in target):
        return None
    if any(d.shape != t.shape for d, t in zip(decoded, target, strict=True)):
        return None
    out: Tensor = _SquaredError.apply(len(decoded), *decoded, *target)  # type: ignore[no-untyped-call]
    return out


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, n: int, *planes: Tensor) -> Tensor:
        assert compiled is not None
        arrays = [p.detach().contiguous().view(-1).numpy() for p in planes]
        made = [compiled.squared_error(a, b, threads()) for a, b in zip(arrays[:n], arrays[n:], strict=True)]
        ctx.differences = [torch.from_numpy(d).view_as(p) for (_, d), p in zip(made, planes, strict=False)]
        return planes[0].new_tensor(sum(total for total, _ in made))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        by_decoded = [2.0 * gradient * d for d in ctx.differences]
        return None, *by_decoded, *[None] * len(by_decoded)
