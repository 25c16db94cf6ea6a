"""The frame formula in compiled kernels: as one differentiable step, and together with its derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.kernels import compiled, threads
from coolvid.plugin.interfaces import TrainingState
from coolvid.plugin.shortcuts import Array, WarpKernel


def usable(*tensors: Tensor) -> bool:
    """Whether compiled kernels exist and apply to these tensors (float32 on the CPU)."""
    return compiled is not None and all(t.dtype is torch.float32 and t.device.type == "cpu" for t in tensors)


def compose(
    raw: Tensor, predictions: Sequence[Tensor], gain: Tensor, offset: Tensor, subsampled: bool
) -> tuple[Tensor, ...] | None:
    """Picture from raw [1, 3 + n, H, W] and n predictions [1, 3, H, W]; None if the kernels do not apply.

    gain, offset [1, 3, 1, 1] apply without predictions. Three planes [1, 1, h, w] when subsampled, else [1, 3, H, W].
    """
    if not usable(raw, *predictions):
        return None
    formula = gain.flatten().tolist(), offset.flatten().tolist(), subsampled
    out: tuple[Tensor, ...] = _Compose.apply(formula, raw, *predictions)  # type: ignore[no-untyped-call]
    return out


class _Compose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Any, raw: Tensor, *predictions: Tensor) -> tuple[Tensor, ...]:
        assert compiled is not None
        ctx.formula = formula
        ctx.inputs = _array(raw), [_array(p) for p in predictions]
        planes = compiled.compose(*ctx.inputs, *formula, threads())
        return tuple(torch.from_numpy(p).view(1, -1, *p.shape[-2:]) for p in planes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        assert compiled is not None
        gain, _, subsampled = ctx.formula
        slopes = [_array(g) for g in gradients]
        wanted = any(ctx.needs_input_grad[2:])
        by_raw, by_prediction = compiled.compose_backward(*ctx.inputs, gain, subsampled, slopes, wanted, threads())
        rest = [torch.from_numpy(d)[None] for d in by_prediction] if wanted else [None] * len(ctx.inputs[1])
        return None, torch.from_numpy(by_raw)[None], *rest


def composed_error(
    raw: Tensor, predictions: Sequence[Tensor], gain: Tensor, offset: Tensor, target: Sequence[Tensor]
) -> Tensor | None:
    """Mean squared error of compose() with clamped(is_straight=True), over all samples. None if no kernel applies.

    target: three planes [1, 1, h, w] if subsampled, else one [1, 3, H, W].
    """
    if not usable(raw, *predictions, *target):
        return None
    formula = gain.flatten().tolist(), offset.flatten().tolist(), len(target) > 1
    out: Tensor = _ComposedError.apply(formula, [_array(t) for t in target], raw, *predictions)  # type: ignore[no-untyped-call]
    return out


class _ComposedError(torch.autograd.Function):
    """The forward pass computes the derivatives together with the error."""

    @staticmethod
    def forward(ctx: Any, formula: Any, target: Sequence[Any], raw: Tensor, *predictions: Tensor) -> Tensor:
        assert compiled is not None
        n_samples = sum(t.size for t in target)
        inputs = _array(raw), [_array(p) for p in predictions]
        wanted = any(ctx.needs_input_grad[3:])
        made = compiled.compose_error(*inputs, *formula, target, 1 / n_samples, wanted, threads())
        total, by_raw, by_prediction = made
        ctx.slopes = [torch.from_numpy(d)[None] for d in (by_raw, *by_prediction)]
        ctx.absent = [None] * (0 if wanted else len(predictions))
        return raw.new_tensor(total / n_samples)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        by_input = ctx.slopes if float(gradient) == 1.0 else [d * gradient for d in ctx.slopes]
        return None, None, *by_input, *ctx.absent


class PictureError:
    """Mean squared error over all samples of the picture from two branches' planes, and its derivatives with respect to
    these planes, without autograd.

    gain, offset, target: as in composed_error(). warps: the warper's kernel for each reference. Each reads its flow
    from two planes of the motion branch.
    """

    def __init__(
        self, gain: Tensor, offset: Tensor, target: Sequence[Tensor], warps: Sequence[WarpKernel], size: tuple[int, int]
    ) -> None:
        self._target = [_array(t) for t in target]
        self._n_samples = sum(t.size for t in self._target)
        self._formula = gain.flatten().tolist(), offset.flatten().tolist(), len(target) > 1
        self._warps = warps
        self._predictions, self._d_predictions = ([np.zeros((3, *size), np.float32) for _ in warps] for _ in range(2))

    def __call__(self, coarse: Mapping[str, Array], slopes: Mapping[str, Array], state: TrainingState) -> float:
        """coarse: raw planes of ``residue`` [3 + n, H, W] and, with warps, flows of ``motion`` [2n, h, w] in pixels.
        slopes: output for the derivatives, in the same shapes."""
        assert compiled is not None
        for i, warp in enumerate(self._warps):
            warp.forward(coarse["motion"][2 * i : 2 * i + 2], self._predictions[i])
        picture = coarse["residue"], self._predictions, *self._formula, self._target
        made = slopes["residue"], self._d_predictions
        total = compiled.compose_error(*picture, 1 / self._n_samples, bool(self._warps), threads(), *made)[0]
        for i, warp in enumerate(self._warps):
            warp.backward(self._d_predictions[i], slopes["motion"][2 * i : 2 * i + 2])
        mean: float = total / self._n_samples
        return mean


def errors_by_cell(picture: Sequence[Tensor], target: Sequence[Tensor], side: int) -> NDArray[np.float64] | None:
    """Squared errors of a picture's planes [1, n, h, w], at full or half size, summed over each cell of side x side
    pixels, flat. None if the kernels do not apply."""
    if not usable(*picture, *target):
        return None
    assert compiled is not None
    planes = [[plane for part in each for plane in _array(part)] for each in (picture, target)]
    errors: NDArray[np.float64] = compiled.cell_errors(*planes, side)
    return errors


def _array(picture: Tensor) -> Any:
    return picture.detach()[0].contiguous().numpy()
