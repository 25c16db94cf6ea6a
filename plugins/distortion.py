"""The D of D + lambda R."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coolvid.interfaces import DistortionPlugin


class MeanSquaredError(DistortionPlugin):
    """Mean squared error over all samples: in 4:2:0, each plane counts in proportion to its samples."""

    name = "mse"

    def distortion(self, decoded: Any, target: Any) -> Tensor:
        if not isinstance(target, dict):
            return torch.nn.functional.mse_loss(decoded, target)
        planes = ("y", "u", "v")
        squares = torch.stack([torch.sum((decoded[plane] - target[plane]) ** 2) for plane in planes])
        return squares.sum() / int(sum(target[plane].numel() for plane in planes))
