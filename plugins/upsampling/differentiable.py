"""Separable ×2 upsampling as a torch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.codec.architecture import Ports

from .fused import upsample

_BILINEAR = (0.25, 0.75)
_BICUBIC = (0.0351562, 0.1054687, -0.2617187, -0.8789063)


class SeparableUpsamplingModule(nn.Module):
    """Grids -> planes of the finest grid's size, by one symmetric filter pair per step from grid s + 1 to grid s.

    up.{s} [k / 2] is the first half of the ×2 filter. pre.{s} [(k + 1) / 2] is that of the filter for grid s before it
    joins the stack (the result is added to the grid). ×2 filters start as bicubic (k >= 8) or bilinear, pre filters as
    identity.
    """

    phases: Tensor

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__()
        steps = range(ports.n_in - 1)
        self.up = nn.ParameterList([nn.Parameter(_first_half(options.k_size)) for _ in steps])
        self.pre = nn.ParameterList([nn.Parameter(_copying(options.preconcat_k_size)) for _ in steps])
        self.register_buffer("phases", _phases(options.k_size), persistent=False)

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        """Grids [1, 1, h, w], finest first -> [1, n, H, W] in the same order."""
        fused = upsample(grids, list(self.up), list(self.pre))
        if fused is not None:
            return fused
        stack = grids[-1][0]
        for step in reversed(range(len(grids) - 1)):
            grid = grids[step][0]
            stack = torch.cat((self._filtered(grid, step), self._doubled(stack, step, grid.shape[-2:])))
        return stack[None]

    def _filtered(self, grid: Tensor, step: int) -> Tensor:
        """The grid [1, h, w] plus its filtered version, borders zero."""
        half = self.pre[step]
        kernel = torch.cat((half, half.flip(0)[1:]))[None]
        return grid + line_filter(line_filter(grid, kernel, 1, False), kernel, 2, False)

    def _doubled(self, planes: Tensor, step: int, size: torch.Size) -> Tensor:
        """Planes [n, h, w], borders replicated, to [n, *size], by the two phases of the transposed filter."""
        half = self.up[step]
        kernel = torch.cat((half, half.flip(0), half.new_zeros(1)))[self.phases]
        tall = line_filter(planes, kernel, 1, True)[:, : size[0]]
        return line_filter(tall, kernel, 2, True)[:, :, : size[1]]


def line_filter(planes: Tensor, kernel: Tensor, dim: int, replicate: bool) -> Tensor:
    """Filter planes [n, h, w] along rows (dim 1) or columns (dim 2) by kernel [phases, taps], taps odd.

    Output position phases * m + p of the filtered dimension is sum_t kernel[p, t] * input[m + t - taps // 2]. Outside
    the plane the input is the border value (replicate) or 0.
    """
    out: Tensor = _LineFilter.apply(planes, kernel, dim, replicate)  # type: ignore[no-untyped-call]
    return out


class _LineFilter(torch.autograd.Function):
    """One matrix product of the kernel and the shifted planes, which the backward pass builds again."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, kernel: Tensor, dim: int, replicate: bool) -> Tensor:
        ctx.dim, ctx.replicate = dim, replicate
        padded = _padded(planes, kernel.shape[1] // 2, dim, replicate)
        ctx.save_for_backward(padded, kernel)
        out = kernel @ _shifted(padded, kernel.shape[1], dim)
        return _interleaved(out.view(-1, *planes.shape), dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        padded, kernel = ctx.saved_tensors
        phases, taps = kernel.shape
        dim, reach = ctx.dim, taps // 2
        split = [*gradient.shape[:dim], -1, phases, *gradient.shape[dim + 1 :]]
        by_phase = gradient.reshape(split).movedim(dim + 1, 0).reshape(phases, -1)
        kernel_slope = by_phase @ _shifted(padded, taps, dim).t()
        length = padded.shape[dim] - 2 * reach
        shape = [n if i != dim else length for i, n in enumerate(padded.shape)]
        slope = torch.zeros_like(padded)
        for tap, part in enumerate((kernel.t() @ by_phase).view(taps, *shape)):
            slope.narrow(dim, tap, length).add_(part)
        inner = slope.narrow(dim, reach, length)
        if ctx.replicate and reach:
            inner.narrow(dim, 0, 1).add_(slope.narrow(dim, 0, reach).sum(dim, keepdim=True))
            inner.narrow(dim, -1, 1).add_(slope.narrow(dim, -reach, reach).sum(dim, keepdim=True))
        return inner, kernel_slope, None, None


def _padded(planes: Tensor, reach: int, dim: int, replicate: bool) -> Tensor:
    if reach == 0:
        return planes.contiguous()
    first, last = planes.narrow(dim, 0, 1), planes.narrow(dim, -1, 1)
    if not replicate:
        first, last = torch.zeros_like(first), torch.zeros_like(last)
    shape = [reach if i == dim else -1 for i in range(3)]
    return torch.cat((first.expand(shape), planes, last.expand(shape)), dim)


def _shifted(padded: Tensor, taps: int, dim: int) -> Tensor:
    """[taps, n * h * w]: row t is the planes shifted by t - taps // 2."""
    return padded.unfold(dim, taps, 1).permute(3, 0, 1, 2).reshape(taps, -1)


def _interleaved(out: Tensor, dim: int) -> Tensor:
    """[phases, n, h, w] -> [n, h, w] with the phases interleaved along dim."""
    return out[0] if len(out) == 1 else out.movedim(0, dim + 1).flatten(dim, dim + 1)


def _first_half(k_size: int) -> Tensor:
    taps = _BICUBIC if k_size >= 8 else _BILINEAR
    return torch.tensor((0.0,) * (k_size // 2 - len(taps)) + taps)


def _copying(k_size: int) -> Tensor:
    half = torch.zeros((k_size + 1) // 2)
    half[-1] = 1.0
    return half


def _phases(k_size: int) -> Tensor:
    """Indices [2, n] into the filter (k_size: no tap): output 2m + p takes input m + j with tap p + k/2 - 1 - 2j."""
    reach = k_size // 4
    taps = [[p + k_size // 2 - 1 - 2 * j for j in range(-reach, reach + 1)] for p in (0, 1)]
    return torch.tensor([[t if 0 <= t < k_size else k_size for t in row] for row in taps])
