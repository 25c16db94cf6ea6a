"""The differentiable form of Fold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coolvid.codec.coded_frame import TensorSpec


class FoldModule(nn.Module):
    """[1, n_in, H, W] -> [1, n_out, H, W]."""

    def __init__(self, absolute: bool, tensors: tuple[TensorSpec, ...]) -> None:
        super().__init__()
        self.absolute = absolute
        for spec in tensors:
            start = 0.3 * torch.randn(spec.shape) if spec.kind == "weight" else torch.zeros(spec.shape)
            self.register_parameter(spec.name, nn.Parameter(start))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("on,bnhw->bohw", self.w, x) + self.b[:, None, None]
        hidden = hidden.abs() if self.absolute else hidden.relu()
        return torch.einsum("on,bnhw->bohw", self.v, hidden) + self.c[:, None, None]
