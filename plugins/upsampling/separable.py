"""Upsampling by symmetric separable filters, one pair per resolution step (arXiv 2411.19249, sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from coolvid.codec.architecture import MAX_RESOLUTION, Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import FixedPoint
from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import PluginOptions, UpsamplingPlugin
from coolvid.plugin.shortcuts import Array, FoldedUpsampling, LayerKernel

from ..checks import check_integer
from .integer import IntegerUpsampling

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SeparableUpsamplingOptions(PluginOptions):
    """k_size: taps of the x2 filter, even 4..16. preconcat_k_size: taps of the filter of each finer grid, odd 1..15."""

    k_size: int = 8
    preconcat_k_size: int = 7

    def __post_init__(self) -> None:
        check_integer("upsampling k_size", self.k_size, 4, 16)
        check_integer("upsampling preconcat_k_size", self.preconcat_k_size, 1, 15)
        if self.k_size % 2:
            raise ConfigError(f"upsampling k_size is {self.k_size}; choose an even number 4..16")
        if not self.preconcat_k_size % 2:
            raise ConfigError(f"upsampling preconcat_k_size is {self.preconcat_k_size}; choose an odd number 1..15")


class SeparableUpsampling(UpsamplingPlugin):
    """From the coarsest grid up: the stack is upsampled x2 by ``up.{s}``; the next grid, plus its version filtered by
    ``pre.{s}``, goes in front. s is the index of the step's finer grid (0: the finest). The stream holds only half of
    each symmetric filter."""

    name = "separable"
    version = 1
    Options = SeparableUpsamplingOptions
    follows: ClassVar = {"k_size": "ups_k_size", "preconcat_k_size": "ups_preconcat_k_size"}

    def __init__(self, options: SeparableUpsamplingOptions, ports: Ports) -> None:
        super().__init__(options, ports)
        check_integer("upsampled grids", ports.n_in, 1, MAX_RESOLUTION + 1)

    @property
    def n_steps(self) -> int:
        """Resolution steps, one filter pair each."""
        return self.ports.n_in - 1

    def tensors(self) -> tuple[TensorSpec, ...]:
        up, pre = self.options.k_size // 2, (self.options.preconcat_k_size + 1) // 2
        pairs = ((TensorSpec(f"up.{s}", (up,)), TensorSpec(f"pre.{s}", (pre,))) for s in range(self.n_steps))
        return tuple(spec for pair in pairs for spec in pair)

    def macs(self) -> float:
        per_plane, pre = 0.75 * self.options.k_size, 2 * self.options.preconcat_k_size
        return float(sum(((self.n_steps - s) * per_plane + pre) / 4**s for s in range(self.n_steps)))

    def module(self) -> nn.Module:
        from .differentiable import SeparableUpsamplingModule

        return SeparableUpsamplingModule(self.options, self.ports)

    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> IntegerUpsampling:
        return IntegerUpsampling(self.n_steps, parameters, scales)

    def n_scales(self) -> int:
        return 1

    def kernel(self, module: nn.Module, sizes: Sequence[tuple[int, int]]) -> LayerKernel[Sequence[Array]] | None:
        from ..stateful import usable
        from .fused import UpsamplingKernel

        if len(sizes) < 2 or not usable(*module.parameters()):
            return None
        return UpsamplingKernel(tuple(sizes), self.options.k_size, self.options.preconcat_k_size)

    def folded(self, form: IntegerUpsampling) -> FoldedUpsampling:
        return form.folded()
