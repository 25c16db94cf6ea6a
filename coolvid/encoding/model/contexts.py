"""Contexts of the entropy model: causal neighbours, and features of coarser grids (IFCE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.codec.architecture import NEIGHBOURS, Architecture, Grid

REACH = 4
"""The causal window is 2 * REACH + 1 wide and REACH rows high."""


class InterFeatures(nn.Module):
    """One linear map per grid inside ifce_resolution: all coarser grids -> n_ifce features at half the resolution.

    The coarser grids are repeated up to the next coarser resolution; a grid without coarser grids sees one zero plane.
    Biases start at 0, weights at N(0, 1) / n_ifce**2. State: maps.{i}.weight, maps.{i}.bias, finest grid first.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.levels = architecture.ifce_levels
        n_out = architecture.n_ifce
        self.maps = nn.ModuleList(_started(nn.Linear(architecture.coarser(log2), n_out)) for log2, _ in self.levels)

    def forward(self, planes: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor | None]:
        """Latent planes [h, w] of all grids -> per grid its features [n_ifce, ceil(h / 2), ceil(w / 2)] or None."""
        out: list[Tensor | None] = [None] * len(grids)
        stacks: dict[int, Tensor] = {}
        for level, layer in zip(self.levels, self.maps, strict=True):
            index = next(i for i, g in enumerate(grids) if (g.log2, g.is_hyper) == level)
            half = (grids[index].height + 1) // 2, (grids[index].width + 1) // 2
            if level[0] not in stacks:
                stacks[level[0]] = _stack(planes, grids, level[0], half)
            stack = stacks[level[0]]
            flat = torch.addmm(layer.bias[:, None], layer.weight, stack)  # type: ignore[index,arg-type]
            out[index] = flat.view(-1, *half)
        return out


def _started(layer: nn.Linear) -> nn.Linear:
    nn.init.normal_(layer.weight, std=layer.out_features**-2)
    nn.init.zeros_(layer.bias)
    return layer


def _stack(planes: Sequence[Tensor], grids: Sequence[Grid], log2: int, size: tuple[int, int]) -> Tensor:
    """All grids coarser than log2, finest first, at the resolution log2 + 1: [n, h * w]."""
    coarser = [(p, g.log2 - log2 - 1) for p, g in zip(planes, grids, strict=True) if g.log2 > log2]
    if not coarser:
        return planes[0].new_zeros((1, size[0] * size[1]))
    return torch.stack([repeated(plane, times, size) for plane, times in coarser]).flatten(1)


def repeated(plane: Tensor, doublings: int, size: tuple[int, int]) -> Tensor:
    """[..., h, w] with every value repeated 2**doublings times both ways, cropped to size."""
    if doublings == 0:
        return plane
    n = 1 << doublings
    *lead, h, w = plane.shape
    tall = plane[..., :, None, :, None].expand(*lead, h, n, w, n).reshape(*lead, h * n, w * n)
    return tall[..., : size[0], : size[1]]


class ContextMatrix(torch.autograd.Function):
    """Context matrix [n_context + n_ifce, N] of the entropy model, from latents and features; one column per latent.

    Rows are written in place: neighbour k of a grid is the zero-padded grid, shifted.
    """

    @staticmethod
    def forward(
        ctx: Any, latents: Tensor, grids: Sequence[Grid], n_context: int, n_ifce: int, *features: Tensor | None
    ) -> Tensor:
        """latents [N]: all grids, flat; features: one entry per grid, [n_ifce, ceil(h / 2), ceil(w / 2)] or None."""
        out = latents.new_empty((n_context + n_ifce, latents.numel()))
        start = 0
        for grid, given in zip(grids, features, strict=True):
            h, w = grid.shape
            block = out[:, start : start + h * w]
            padded = latents.new_zeros((h + REACH, w + 2 * REACH))
            padded[REACH:, REACH:-REACH] = latents[start : start + h * w].view(h, w)
            for row, (dy, dx) in zip(block, NEIGHBOURS[:n_context], strict=False):
                row.view(h, w).copy_(padded[REACH + dy : REACH + dy + h, REACH + dx : REACH + dx + w])
            if n_ifce:
                _write_features(block[n_context:].view(n_ifce, h, w), given)
            start += h * w
        ctx.plan = (tuple(grids), n_context, tuple(f is not None for f in features))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grids, n_context, given = ctx.plan
        latents = gradient.new_empty(gradient.shape[1])
        features: list[Tensor | None] = []
        start = 0
        for grid, has_features in zip(grids, given, strict=True):
            h, w = grid.shape
            block = gradient[:, start : start + h * w].view(-1, h, w)
            padded = gradient.new_zeros((h + REACH, w + 2 * REACH))
            for row, (dy, dx) in zip(block, NEIGHBOURS[:n_context], strict=False):
                padded[REACH + dy : REACH + dy + h, REACH + dx : REACH + dx + w] += row
            latents[start : start + h * w].view(h, w).copy_(padded[REACH:, REACH:-REACH])
            features.append(_halved(block[n_context:]) if has_features else None)
            start += h * w
        return (latents, None, None, None, *features)


def _write_features(block: Tensor, features: Tensor | None) -> None:
    """Fill block [n, h, w] with the features repeated 2×2, or with zeros."""
    if features is None:
        block.zero_()
        return
    _, h, w = block.shape
    for dy in (0, 1):
        for dx in (0, 1):
            block[:, dy::2, dx::2] = features[:, : (h - dy + 1) // 2, : (w - dx + 1) // 2]


def _halved(block: Tensor) -> Tensor:
    """Sums over the 2×2 blocks of [n, h, w], cropped at odd edges: the transpose of _write_features."""
    out = block[:, ::2, ::2].clone()
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        part = block[:, dy::2, dx::2]
        out[:, : part.shape[1], : part.shape[2]] += part
    return out
