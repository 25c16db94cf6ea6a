"""The MLP entropy model as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coolvid.codec.architecture import Ports

from ..pointwise import chain


class MlpArmModule(nn.Module):
    """Contexts -> (mu, raw log scale): residual layers relu(Wx + b + x), a linear output, a linear stabiliser.

    Hidden weights and all biases start at 0, the others at N(0, 1) / n_out**2 (arXiv 2212.05458, sec. 3).
    """

    identity: Tensor

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__()
        width = ports.n_in
        self.hidden = nn.ModuleList(_zero(nn.Linear(width, width)) for _ in range(options.n_hidden))
        self.output = _small(nn.Linear(width, ports.n_out))
        self.stabiliser = _small(nn.Linear(width, ports.n_out)) if options.stabiliser else None
        self.register_buffer("identity", torch.eye(width), persistent=False)

    def forward(self, context: Tensor) -> Tensor:
        """context [N, n_in] -> [N, 2]. Fastest when context is the transpose of a contiguous [n_in, N]."""
        layers = [(layer.weight + self.identity, layer.bias) for layer in self.hidden]  # type: ignore[operator]
        bias: Tensor = self.output.bias
        skip = None
        if self.stabiliser is not None:
            bias, skip = bias + self.stabiliser.bias, self.stabiliser.weight
        relus = [True] * len(layers) + [False]
        return chain(context.t(), [*layers, (self.output.weight, bias)], relus, skip).t()  # type: ignore[list-item]


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _small(layer: nn.Linear) -> nn.Linear:
    nn.init.normal_(layer.weight, std=layer.out_features**-2)
    nn.init.zeros_(layer.bias)
    return layer
