"""Seeded noise for the quantiser: Gaussian (arXiv 2403.11651) and Kumaraswamy (C3, arXiv 2312.02753)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coolvid.config import QUANTIZER_NOISES, choose, within


class NoiseSource:
    """A stream of random numbers that belongs to one model: copies and pickles continue it on their own.

    One generator per device, made at the first use and seeded alike.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def draw(self, kind: str, parameter: float, like: Tensor) -> Tensor | None:
        """Noise of the shape of `like`; None for kind 'none' or parameter 0 of the Gaussian.

        gaussian: N(0, parameter**2). kumaraswamy: a = parameter >= 1, mode at 0, inside ±1/2 (1: uniform).
        Raises ConfigError for another kind.
        """
        choose("quantizer noise", kind, QUANTIZER_NOISES)
        if kind == "none" or (kind == "gaussian" and parameter == 0):
            return None
        generator = self._generator(like.device)
        if kind == "gaussian":
            return torch.empty_like(like).normal_(0.0, parameter, generator=generator)
        return kumaraswamy(torch.empty_like(like).uniform_(generator=generator), parameter)

    def _generator(self, device: torch.device) -> torch.Generator:
        key = str(device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"seed": self.seed, "states": {k: g.get_state() for k, g in self._generators.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._generators = state["seed"], {}
        for device, numbers in state["states"].items():
            self._generator(torch.device(device)).set_state(numbers)

    def __deepcopy__(self, memo: dict[int, Any]) -> NoiseSource:
        copy = NoiseSource(self.seed)
        copy.__setstate__(self.__getstate__())
        return copy


def kumaraswamy(uniform: Tensor, a: float) -> Tensor:
    """Numbers u in [0, 1] to noise in [-1/2, 1/2]: the Kumaraswamy density with mode 1/2, minus 1/2. a >= 1."""
    within("kumaraswamy noise parameter", a, 1.0, 100.0)
    b = (2.0**a * (a - 1.0) + 1.0) / a
    inner = torch.pow(1.0 - uniform, 1.0 / b)
    return torch.pow(1.0 - inner, 1.0 / a) - 0.5
