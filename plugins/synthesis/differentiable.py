"""The convolutional synthesis as a torch module."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolvid.codec.architecture import Ports

from ..pointwise import chain
from .fused import synthesise


class ConvSynthesisModule(nn.Module):
    """Planes -> outputs: convolutions with replicated borders, plus a linear map from input to output (stabiliser).

    Residual weights and all biases start at 0, the others uniform in ±1 / (n_out**2 * sqrt(n_in * k**2)).
    """

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__()
        self.n_in, self.n_seen = ports.n_in, ports.n_in - ports.n_noise
        self.shape = tuple((int(n), int(k), bool(residual), bool(relu)) for n, k, residual, relu in options.layers)
        self.kinds = tuple((bool(residual), bool(relu)) for _, _, residual, relu in options.layers)
        self.layers = nn.ModuleList()
        n_in = ports.n_in
        for n_out, kernel, residual, _ in options.layers:
            self.layers.append(_start(nn.Conv2d(n_in, n_out, kernel), residual))
            n_in = n_out
        self.stabiliser = _start(nn.Conv2d(self.n_seen, n_in, 1), False) if options.stabiliser else None

    def forward(self, planes: Tensor) -> Tensor:
        """[1, n_in, H, W] -> [1, n_out, H, W]."""
        fused = synthesise(planes, self.shape, self.n_seen, self.stabiliser is not None, list(self.parameters()))
        if fused is not None:
            return fused
        x = planes
        steps = zip(self.layers, self.kinds, strict=True)
        for is_pointwise, group in groupby(steps, key=lambda step: step[0].kernel_size == (1, 1)):
            if is_pointwise:
                x = _pointwise(list(group), x)
                continue
            for layer, (residual, relu) in group:
                y = _convolve(layer, x)
                y = y + x if residual else y
                x = torch.relu(y) if relu else y
        if self.stabiliser is not None:
            x = x + _pointwise([(self.stabiliser, (False, False))], planes[:, : self.n_seen])
        return x


def _pointwise(steps: list[tuple[Any, tuple[bool, bool]]], x: Tensor) -> Tensor:
    """Consecutive 1×1 layers on x [1, n_in, H, W]."""
    layers = []
    for layer, (residual, _) in steps:
        weight = layer.weight.flatten(1)
        layers.append((weight + torch.eye(len(weight)).to(weight) if residual else weight, layer.bias))
    out = chain(x.flatten(2)[0], layers, [relu for _, (_, relu) in steps])
    return out.view(1, -1, *x.shape[2:])


def _convolve(layer: Any, x: Tensor) -> Tensor:
    """layer applied to x [1, n_in, H, W], borders replicated."""
    reach = layer.weight.shape[2] // 2
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    out: Tensor = _Convolution.apply(padded, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    """F.conv2d with a faster gradient for few channels: the kernel's gradient is one matrix product per kernel
    position, of the flat gradient and the shifted flat input, both stored with the padded width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        n_out, n_in, k, _ = weight.shape
        width = x.shape[3]
        wide = F.pad(gradient, (0, k - 1)).view(n_out, -1)
        length = wide.shape[1] - (k - 1)
        flat = x.view(n_in, -1)
        slopes = torch.stack(
            [wide[:, :length] @ flat[:, r * width + c :][:, :length].t() for r in range(k) for c in range(k)], dim=2
        )
        x_slope = None
        if ctx.needs_input_grad[0]:
            x_slope = F.conv2d(F.pad(gradient, (k - 1,) * 4), weight.flip(2, 3).transpose(0, 1))
        return x_slope, slopes.view_as(weight), gradient.sum(dim=(0, 2, 3))


def _start(layer: nn.Conv2d, residual: bool) -> nn.Conv2d:
    bound = 0.0 if residual else layer.out_channels**-2 * layer.weight[0].numel() ** -0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
