"""A synthesis of one hidden layer folded at zero: out = V f(W x + b) + c, with f = |.| or max(., 0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import FixedPoint
from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import PluginOptions, SynthesisPlugin

if TYPE_CHECKING:
    from torch import nn

Wide = NDArray[np.int64]


@dataclass(frozen=True)
class FoldOptions(PluginOptions):
    """width: hidden features. absolute: fold by |.| instead of max(., 0)."""

    width: int = 8
    absolute: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64:
            raise ConfigError(f"width is {self.width}; choose 1..64")


class Fold(SynthesisPlugin):
    """See the module's docstring; every pixel by itself, common randomness included."""

    name = "fake_fold"
    version = 3
    Options = FoldOptions

    def tensors(self) -> tuple[TensorSpec, ...]:
        width, (n_in, n_out) = self.options.width, (self.ports.n_in, self.ports.n_out)
        return (
            TensorSpec("w", (width, n_in)),
            TensorSpec("b", (width,), "bias"),
            TensorSpec("v", (n_out, width)),
            TensorSpec("c", (n_out,), "bias"),
        )

    def macs(self) -> float:
        return float(self.options.width * (self.ports.n_in + self.ports.n_out))

    def n_scales(self) -> int:
        return 2

    def module(self) -> nn.Module:
        from .fold_torch import FoldModule

        return FoldModule(self.options.absolute, self.tensors())

    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> Any:
        return IntegerFold(self.options.absolute, parameters, scales)


class IntegerFold:
    """int16 activations, int64 sums: 23-bit weights times 16-bit values leave room for any number of inputs."""

    def __init__(self, absolute: bool, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None) -> None:
        self.absolute = absolute
        self.parameters = parameters
        self.scales = scales

    @property
    def out_bits(self) -> int:
        assert self.scales is not None
        return self.scales[1]

    def __call__(self, planes: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
        hidden = self._layer("w", "b", planes.astype(np.int64), bits)
        hidden = (abs(hidden[0]) if self.absolute else np.maximum(hidden[0], 0), hidden[1])
        s0 = self.scales[0] if self.scales else _room(*hidden)
        out = self._layer("v", "c", _rescale(*hidden, s0), s0)
        s1 = self.scales[1] if self.scales else _room(*out)
        self.scales = (s0, s1)
        return _rescale(*out, s1).astype(np.int32)

    def _layer(self, weight: str, bias: str, x: Wide, bits: int) -> tuple[Wide, int]:
        """The sums and their fractional bits."""
        w, b = self.parameters[weight], self.parameters[bias]
        total = bits + w.shift
        sums = np.tensordot(w.values.astype(np.int64), x, axes=1)
        return sums + _shift(b.values.astype(np.int64), b.shift - total)[:, None, None], total


def _shift(x: Wide, by: int) -> Wide:
    """x / 2**by, rounded half up."""
    return x << -by if by <= 0 else (x + (1 << (by - 1))) >> by


def _rescale(x: Wide, bits: int, wanted: int) -> Wide:
    return np.clip(_shift(x, bits - wanted), -32768, 32767)


def _room(x: Wide, bits: int) -> int:
    """The most fractional bits, at most 12, with which x fits 15 bits."""
    peak = int(abs(x).max(initial=0)) >> bits
    return max(0, min(12, 14 - peak.bit_length()))
