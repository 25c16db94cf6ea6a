"""Seeded noise for the quantizer: Gaussian (arXiv 2403.11651) and Kumaraswamy (C3, arXiv 2312.02753)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.errors import choose, within
from coolvid.kernels import compiled, threads
from coolvid.settings.config import QUANTIZER_NOISES

from .fused import usable

_MASK = 2**64 - 1
_drawing = RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator starts from this seed in the block, and has its former state afterwards.

    Modules draw their parameters from it. One Python thread at a time does so, for there is only one such generator.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class NoiseSource:
    """Random number stream of one model. Copies and pickles continue the stream independently.

    The compiled kernels derive every draw from its number. Elsewhere each device has one generator, created at its
    first use from the same seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.draws = seed, 0
        self._generators: dict[str, torch.Generator] = {}

    def draw(self, kind: str, parameter: float, like: Tensor) -> Tensor | None:
        """Noise of the shape of `like`; None for kind 'none' or parameter 0 of the Gaussian.

        gaussian: N(0, parameter**2). kumaraswamy: a = parameter >= 1, mode at 0, inside ±1/2 (1: uniform).
        Raises ConfigError for another kind.
        """
        if _is_silent(kind, parameter):
            return None
        if usable(like):
            out = torch.empty_like(like, memory_format=torch.contiguous_format)
            self.fill(kind, parameter, out.numpy())
            return out
        generator = self._generator(like.device)
        if kind == "gaussian":
            return torch.empty_like(like).normal_(0.0, parameter, generator=generator)
        return kumaraswamy(torch.empty_like(like).uniform_(generator=generator), parameter)

    def fill(self, kind: str, parameter: float, out: NDArray[np.float32]) -> bool:
        """draw() into an array, with the kernels' counter-based generator. False, and no change, without noise."""
        assert compiled is not None
        if _is_silent(kind, parameter):
            return False
        if kind == "kumaraswamy":
            _check(parameter)
        key = draw_key(self.seed, self.draws)
        self.draws += 1
        compiled.noise(out.size, kind, parameter, key, threads(), out)
        return True

    def _generator(self, device: torch.device) -> torch.Generator:
        key = str(device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[key]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "draws": self.draws,
            "states": {k: g.get_state() for k, g in self._generators.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self.draws, self._generators = state["seed"], state["draws"], {}
        for device, numbers in state["states"].items():
            self._generator(torch.device(device)).set_state(numbers)

    def __deepcopy__(self, memo: dict[int, Any]) -> NoiseSource:
        copy = NoiseSource(self.seed)
        copy.__setstate__(self.__getstate__())
        return copy


def _is_silent(kind: str, parameter: float) -> bool:
    choose("quantizer noise", kind, QUANTIZER_NOISES)
    return kind == "none" or (kind == "gaussian" and parameter == 0)


def draw_key(seed: int, number: int) -> int:
    """32 well-mixed bits of a draw's seed and number (the finalizer of splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xD1B54A32D192ED03) & _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return (x ^ (x >> 31)) & 0xFFFFFFFF


def kumaraswamy(uniform: Tensor, a: float) -> Tensor:
    """Kumaraswamy noise in [-1/2, 1/2] from u in [0, 1]: the density has its mode at 1/2, shifted to 0. a >= 1."""
    _check(a)
    b = (2.0**a * (a - 1.0) + 1.0) / a
    inner = torch.pow(1.0 - uniform, 1.0 / b)
    return torch.pow(1.0 - inner, 1.0 / a) - 0.5


def _check(parameter: float) -> None:
    within("kumaraswamy noise parameter", parameter, 1.0, 100.0)
