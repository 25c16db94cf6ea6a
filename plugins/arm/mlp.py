"""The auto-regressive model as a small multilayer perceptron (arXiv 2307.12706, sec. 3; arXiv 2403.11651)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import MAX_CONTEXT, MAX_FEATURES, Architecture, Grid, Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import FixedPoint, Integers
from coolvid.plugin.interfaces import ArmPlugin, PluginOptions
from coolvid.plugin.shortcuts import FoldedArm, RateKernel

from ..checks import check_flag, check_integer
from .integer import IntegerMlp

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_HIDDEN = 8


@dataclass(frozen=True)
class MlpArmOptions(PluginOptions):
    """n_hidden: residual layers, 0..8, as wide as the contexts. stabiliser: add a linear map of the contexts."""

    n_hidden: int = 2
    stabiliser: bool = True

    def __post_init__(self) -> None:
        check_integer("arm n_hidden", self.n_hidden, 0, MAX_HIDDEN)
        check_flag("arm stabiliser", self.stabiliser)


class MlpArm(ArmPlugin):
    """n_hidden layers relu(Wx + b + x), then a linear layer to 2 outputs, plus the stabiliser."""

    name = "mlp"
    version = 1
    Options = MlpArmOptions
    follows: ClassVar = {"n_hidden": "n_hidden_layers_arm", "stabiliser": "linear_stabiliser_arm"}

    def __init__(self, options: MlpArmOptions, ports: Ports) -> None:
        super().__init__(options, ports)
        check_integer("arm contexts", ports.n_in, 1, MAX_CONTEXT + MAX_FEATURES)

    def tensors(self) -> tuple[TensorSpec, ...]:
        width = self.ports.n_in
        out: list[TensorSpec] = []
        for i in range(self.options.n_hidden):
            out += _linear(f"hidden.{i}", width, width)
        out += _linear("output", 2, width)
        if self.options.stabiliser:
            out += _linear("stabiliser", 2, width)
        return tuple(out)

    def canonical(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Merge two biases into one: the output's absorbs the stabiliser's."""
        if not self.options.stabiliser:
            return values
        both = values["output.bias"] + values["stabiliser.bias"]
        return {**values, "output.bias": both, "stabiliser.bias": np.zeros_like(both)}

    def macs(self) -> float:
        width = self.ports.n_in
        return float(width * (self.options.n_hidden * width + 2 * (1 + self.options.stabiliser)))

    def module(self) -> nn.Module:
        from .differentiable import MlpArmModule

        return MlpArmModule(self.options, self.ports)

    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> IntegerMlp:
        return IntegerMlp(self.options.n_hidden, self.options.stabiliser, parameters, scales)

    def n_scales(self) -> int:
        return int(self.options.n_hidden)

    def rate(
        self,
        module: nn.Module,
        latents: Tensor,
        grids: Sequence[Grid],
        architecture: Architecture,
        ifce: Sequence[Tensor],
    ) -> Tensor | None:
        from .fused import rate

        return rate(latents, grids, architecture, self.options.n_hidden, list(module.parameters()), ifce)

    def kernel(self, module: nn.Module, grids: Sequence[Grid], architecture: Architecture) -> RateKernel | None:
        from ..stateful import usable
        from .fused import MlpRate, rate_kernel

        if not usable(*module.parameters()):
            return None
        shared = rate_kernel(grids, architecture, self.options.n_hidden, self.options.stabiliser)
        return MlpRate(shared) if shared is not None else None

    def choose_scales(self, form: IntegerMlp, contexts: Integers) -> None:
        form.choose(contexts)

    def folded(self, form: IntegerMlp) -> FoldedArm | None:
        return form.folded()


def _linear(name: str, n_out: int, n_in: int) -> list[TensorSpec]:
    return [TensorSpec(f"{name}.weight", (n_out, n_in)), TensorSpec(f"{name}.bias", (n_out,), "bias")]
