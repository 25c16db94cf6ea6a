"""A quantizer that bends the identity towards the integers by a sine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import QuantizerOptions, QuantizerPlugin, TrainingState

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SineOptions(QuantizerOptions):
    """strength: 0 (identity) .. 1 (flat at the integers)."""

    strength: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength}; choose 0..1")


class Sine(QuantizerPlugin):
    """y - strength * exp(-temperature) * sin(2 pi y) / (2 pi), with y = x + noise."""

    name = "fake_sine"
    Options = SineOptions

    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        y = x if noise is None else x + noise
        strength = self.options.strength * math.exp(-float(temperature))
        return y - strength / math.tau * (math.tau * (y - y.detach().round())).sin()
