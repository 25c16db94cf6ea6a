"""Motion compensation by separable interpolation filters (arXiv 2402.03179; arXiv 2411.19249)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import Ports
from coolvid.codec.fixed_point import FixedPoint, Integers
from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import PluginOptions, WarperPlugin
from coolvid.plugin.shortcuts import WarpKernel

from ..checks import check_integer
from .integer import IntegerWarper

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coolvid.picture.types import Frame

TAPS = (2, 4, 6, 8, 10, 12, 14, 16)


@dataclass(frozen=True)
class SincWarperOptions(PluginOptions):
    """taps: 2 bilinear, 4 bicubic (a = -0.75), even 6..16 windowed sinc."""

    taps: int = 8

    def __post_init__(self) -> None:
        check_integer("warper taps", self.taps, TAPS[0], TAPS[-1])
        if self.taps not in TAPS:
            raise ConfigError(f"warper taps {self.taps}; choose one of {', '.join(map(str, TAPS))}")


class SincWarper(WarperPlugin):
    """No parameters. The tap at offset k, -n/2 + 1 .. n/2, for the fraction s is cos(pi (s - k) / n) sinc(s - k),
    divided by the sum over k."""

    name = "sinc"
    version = 1
    Options = SincWarperOptions
    follows: ClassVar = {"taps": "warp_filter_size"}

    def __init__(self, options: SincWarperOptions, ports: Ports) -> None:
        super().__init__(options, ports)

    def macs(self) -> float:
        return float(2 * self.options.taps)

    def module(self) -> nn.Module:
        from .differentiable import SincWarperModule

        return SincWarperModule(self.options, self.ports)

    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> IntegerWarper:
        return IntegerWarper(self.options.taps)

    def warp_blocks(self, module: Any, reference: Tensor, flow: Tensor, block: int) -> Tensor:
        out: Tensor = module.warp_blocks(reference, flow, block)
        return out

    def kernel(self, module: Any, reference: Tensor, block: int) -> WarpKernel | None:
        made: WarpKernel | None = module.fused.kernel(reference, block)
        return made

    def of_frame(
        self, form: IntegerWarper, reference: Frame, translation: tuple[int, int], flow: Integers, log2: int
    ) -> NDArray[np.int16] | None:
        return form.of_frame(reference, translation, flow, log2)
