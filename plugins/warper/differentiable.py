"""Motion compensation as a torch module: separable taps for any fraction of a pixel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.codec.architecture import Ports

from .fused import FusedWarp

_PIXELS = 8192
_BLOCKS = 1024
_CUBIC = -0.75
_NEAR_ZERO = 0.02


class SincWarperModule(nn.Module):
    """out[i, j] = reference[i + flow_y, j + flow_x], border replicated.

    2 taps: bilinear, 4: bicubic (a = -0.75), more: sinc(d) * cos(pi * d / taps), normalized to sum 1.
    Gradients reach the flow, never the reference. No parameters.
    """

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__()
        self.taps = int(options.taps)
        self.fused = FusedWarp(self.taps, tap_values)

    def forward(self, reference: Tensor, flow: Tensor) -> Tensor:
        """reference [1, C, H, W], flow [1, 2, H, W] in pixels, x then y -> [1, C, H, W]."""
        fused = self.fused(reference, flow, 1)
        if fused is not None:
            return fused
        out: Tensor = _Warp.apply(reference, flow, self.taps)  # type: ignore[no-untyped-call]
        return out

    def warp_blocks(self, reference: Tensor, flow: Tensor, block: int) -> Tensor:
        """The same with one vector per block of block x block pixels, flow [1, 2, ceil(H / block), ceil(W / block)].
        Pixels of a block share fetches and computation."""
        fused = self.fused(reference, flow, block)
        if fused is not None:
            return fused
        out: Tensor = _WarpBlocks.apply(reference, flow, self.taps, block)  # type: ignore[no-untyped-call]
        return out


class _Warp(torch.autograd.Function):
    """The forward pass computes the picture and its two derivatives together, so that pixels are fetched once."""

    @staticmethod
    def forward(ctx: Any, reference: Tensor, flow: Tensor, n_taps: int) -> Tensor:
        _, channels, height, width = reference.shape
        wants_slopes = ctx.needs_input_grad[1]
        source = reference[0].reshape(channels, -1)
        out = source.new_empty((3 if wants_slopes else 1, channels, height * width))
        positions = torch.arange(height * width, device=flow.device)
        for start in range(0, height * width, _PIXELS):
            part = slice(start, start + _PIXELS)
            index = positions[part]
            x = axis_taps(index % width, flow[0, 0].reshape(-1)[part], width, n_taps, wants_slopes)
            y = axis_taps(index // width, flow[0, 1].reshape(-1)[part], height, n_taps, wants_slopes)
            out[:, :, part] = _interpolate(source, width, x, y)
        if wants_slopes:
            ctx.save_for_backward(out[1:])
        return out[0].view(1, channels, height, width)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (slopes,) = ctx.saved_tensors
        _, _, height, width = gradient.shape
        flow = (slopes * gradient.reshape(1, -1, height * width)).sum(dim=1)
        return None, flow.view(1, 2, height, width), None


class _WarpBlocks(torch.autograd.Function):
    """Each block fetches one square of pixels and filters it with two small banded matrices, columns first."""

    @staticmethod
    def forward(ctx: Any, reference: Tensor, flow: Tensor, n_taps: int, block: int) -> Tensor:
        _, channels, height, width = reference.shape
        rows, columns = flow.shape[2:]
        wants_slopes = ctx.needs_input_grad[1]
        vectors = flow[0].reshape(2, -1)
        out = reference.new_empty((rows * columns, 3 if wants_slopes else 1, channels, block, block))
        positions = torch.arange(rows * columns, device=flow.device)
        for start in range(0, rows * columns, _BLOCKS):
            part = slice(start, start + _BLOCKS)
            index = positions[part]
            x = _block_taps(index % columns, vectors[0, part], width, n_taps, block, wants_slopes)
            y = _block_taps(index // columns, vectors[1, part], height, n_taps, block, wants_slopes)
            out[part] = _filter_blocks(reference, x, y, block)
        if wants_slopes:
            ctx.save_for_backward(out[:, 1:])
        ctx.block = block
        picture = out[:, 0].view(rows, columns, channels, block, block).permute(2, 0, 3, 1, 4)
        return picture.reshape(1, channels, rows * block, columns * block)[:, :, :height, :width]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        _, channels, height, width = gradient.shape
        block = ctx.block
        rows, columns = -(-height // block), -(-width // block)
        whole = torch.nn.functional.pad(gradient[0], (0, columns * block - width, 0, rows * block - height))
        blocks = whole.view(channels, rows, block, columns, block).permute(1, 3, 0, 2, 4)
        flow = (slopes * blocks.reshape(-1, 1, channels, block, block)).flatten(2).sum(dim=2)
        return None, flow.t().reshape(1, 2, rows, columns), None, None


def _block_taps(
    position: Tensor, flow: Tensor, size: int, n_taps: int, block: int, wants_slopes: bool
) -> tuple[Tensor, Tensor]:
    """One axis of the blocks at `position` [N]: indices [N, m] of the m = block + taps - 1 pixels that a block reads,
    and the matrix [N, block or 2 * block, m] from these to its pixels (and then their derivatives)."""
    whole = torch.floor(flow)
    start = position * block + whole.clamp(-2 * size, 2 * size).to(position.dtype) + 1 - n_taps // 2
    m = block + n_taps - 1
    index = (start[:, None] + torch.arange(m, device=flow.device)).clamp_(0, size - 1)
    taps, slopes = tap_values(flow - whole, n_taps, wants_slopes)
    both = torch.stack([taps] if slopes is None else [taps, slopes]).permute(2, 0, 1)
    band = both.new_zeros((len(flow), both.shape[1], block, m + 1))
    band[..., :n_taps] = both[:, :, None]
    return index, band.flatten(2)[..., : block * m].reshape(len(flow), -1, m)


def _filter_blocks(reference: Tensor, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], block: int) -> Tensor:
    """[N, 1 or 3, C, block, block]: pixels, then their derivatives by x and by y."""
    (columns, across), (rows, down) = x, y
    _, channels, _, width = reference.shape
    n, m = columns.shape
    plane = torch.arange(channels, device=columns.device) * reference[0, 0].numel()
    index = (rows * width)[:, :, None, None] + plane[None, None, :, None] + columns[:, None, None, :]
    pixels = reference.reshape(-1).index_select(0, index.view(-1)).view(n, m * channels, m)
    lines = torch.bmm(pixels, across.transpose(1, 2)).view(n, m, -1)
    made = torch.bmm(down, lines).view(n, -1, block, channels, across.shape[1] // block, block)
    made = made.permute(0, 1, 4, 3, 2, 5)
    return torch.cat((made[:, 0], made[:, 1, :1]), dim=1) if made.shape[1] == 2 else made[:, 0]


Taps = tuple[Tensor, Tensor, Tensor | None]


def axis_taps(position: Tensor, flow: Tensor, size: int, n_taps: int, wants_slopes: bool) -> Taps:
    """Reads along one axis: indices [n, N] (clamped to 0..size - 1), taps [n, N], and the taps' derivatives."""
    whole = torch.floor(flow)
    offsets = torch.arange(1 - n_taps // 2, n_taps // 2 + 1, device=flow.device)[:, None]
    start = position + whole.clamp(-2 * size, 2 * size).to(position.dtype)
    taps, slopes = tap_values(flow - whole, n_taps, wants_slopes)
    return (start + offsets).clamp_(0, size - 1), taps, slopes


def tap_values(fraction: Tensor, n_taps: int, wants_slopes: bool = True) -> tuple[Tensor, Tensor | None]:
    """Normalized taps [n, N] for fractions [N] in [0, 1), and their derivatives by the fraction."""
    offsets = torch.arange(1 - n_taps // 2, n_taps // 2 + 1, device=fraction.device, dtype=fraction.dtype)[:, None]
    distance = fraction - offsets
    value, slope = {2: _linear, 4: _cubic}.get(n_taps, _windowed_sinc)(distance, n_taps)
    total = value.sum(dim=0)
    value = value / total
    return value, (slope - value * slope.sum(dim=0)) / total if wants_slopes else None


def _linear(d: Tensor, n_taps: int) -> tuple[Tensor, Tensor]:
    slope = torch.ones_like(d)
    slope[0] = -1.0
    return 1 + slope * d, slope


def _cubic(d: Tensor, n_taps: int) -> tuple[Tensor, Tensor]:
    """Keys' kernel with a = -0.75."""
    a, r = _CUBIC, d.abs()
    near, far = ((a + 2) * r - (a + 3)) * r * r + 1, ((r - 5) * r + 8) * r * a - 4 * a
    near_slope, far_slope = (3 * (a + 2) * r - 2 * (a + 3)) * r, ((3 * r - 10) * r + 8) * a
    inside = r <= 1
    return torch.where(inside, near, far), torch.where(inside, near_slope, far_slope) * d.sign()


def _windowed_sinc(d: Tensor, n_taps: int) -> tuple[Tensor, Tensor]:
    """Uses the sines and cosines of one row; those of the others differ by whole or constant angles."""
    middle = n_taps // 2 - 1
    s = d[middle]
    offsets = torch.arange(-middle, n_taps // 2 + 1, device=d.device, dtype=d.dtype)[:, None]
    sign = 1 - 2 * (offsets % 2)
    sine, cosine = sign * torch.sin(math.pi * s), sign * torch.cos(math.pi * s)
    near, square = d.abs() < _NEAR_ZERO, (math.pi * d) ** 2
    safe = torch.where(near, 1.0, d)
    sinc = torch.where(near, 1 - square / 6 * (1 - square / 20), sine / (math.pi * safe))
    sinc_slope = torch.where(near, -(math.pi**2 / 3) * d * (1 - square / 10), (cosine - sinc) / safe)
    step = math.pi / n_taps
    turn_sine, turn_cosine = torch.sin(step * offsets), torch.cos(step * offsets)
    own_sine, own_cosine = torch.sin(step * s), torch.cos(step * s)
    window = own_cosine * turn_cosine + own_sine * turn_sine
    window_slope = -step * (own_sine * turn_cosine - own_cosine * turn_sine)
    return window * sinc, window_slope * sinc + window * sinc_slope


def _interpolate(source: Tensor, width: int, x: Taps, y: Taps) -> Tensor:
    """source [C, H * W] filtered along both axes: [1 or 3, C, N] (value, derivative by x, derivative by y)."""
    columns, x_taps, x_slopes = x
    rows, y_taps, y_slopes = y
    out = source.new_zeros((1 if x_slopes is None else 3, source.shape[0], columns.shape[1]))
    for i in range(len(rows)):
        pixels = source[:, rows[i] * width + columns]
        line = (pixels * x_taps).sum(dim=1)
        out[0].addcmul_(line, y_taps[i])
        if x_slopes is not None and y_slopes is not None:
            out[1].addcmul_((pixels * x_slopes).sum(dim=1), y_taps[i])
            out[2].addcmul_(line, y_slopes[i])
    return out
