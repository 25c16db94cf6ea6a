"""Synthesis by a few small convolutions (arXiv 2212.05458, sec. 3; arXiv 2403.11651)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import FixedPoint
from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import PluginOptions, SynthesisPlugin
from coolvid.plugin.shortcuts import Array, FoldedSynthesis, LayerKernel

from ..checks import check_flag, check_integer
from .integer import IntegerSynthesis

if TYPE_CHECKING:
    from torch import nn

KERNELS = (1, 3, 5, 7)
MAX_LAYERS = 16
MAX_CHANNELS = 256
MAX_WEIGHTS = 1 << 20


class ConvLayer(NamedTuple):
    """One convolution with replicate padding. n_out 0 means the number of outputs of the synthesis."""

    n_out: int
    kernel: int
    residual: bool
    relu: bool


@dataclass(frozen=True)
class ConvSynthesisOptions(PluginOptions):
    """layers: (n_out, kernel, residual, relu) each. stabiliser: add a 1x1 linear map of the input to the output."""

    layers: tuple[tuple[int, int, bool, bool], ...] = ((16, 1, False, True), (0, 1, False, False))
    stabiliser: bool = True

    def __post_init__(self) -> None:
        check_flag("synthesis stabiliser", self.stabiliser)
        if not isinstance(self.layers, (tuple, list)) or not 1 <= len(self.layers) <= MAX_LAYERS:
            raise ConfigError(f"synthesis layers {self.layers!r:.60}; give 1..{MAX_LAYERS} of them")
        for layer in self.layers:
            _check_layer(layer)
        object.__setattr__(self, "layers", tuple(tuple(layer) for layer in self.layers))


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, (tuple, list)) or len(layer) != len(ConvLayer._fields):
        raise ConfigError(f"synthesis layer {layer!r:.60}; give (n_out, kernel, residual, relu)")
    check_integer("synthesis layer outputs", layer[0], 0, MAX_CHANNELS)
    check_integer("synthesis kernel size", layer[1], 1, KERNELS[-1])
    if layer[1] not in KERNELS:
        raise ConfigError(f"synthesis kernel size {layer[1]}; choose one of {', '.join(map(str, KERNELS))}")
    check_flag("synthesis layer residual", layer[2])
    check_flag("synthesis layer relu", layer[3])


class ConvSynthesis(SynthesisPlugin):
    """Consecutive layers ``layers.{i}``, plus the stabiliser, which does not read the noise planes."""

    name = "conv"
    version = 1
    Options = ConvSynthesisOptions
    follows: ClassVar = {"layers": "layers_synthesis", "stabiliser": "linear_stabiliser_synth"}

    def __init__(self, options: ConvSynthesisOptions, ports: Ports) -> None:
        super().__init__(replace(options, layers=_resolved(options.layers, ports)), ports)
        check_integer("synthesis inputs", ports.n_in, 1, MAX_CHANNELS)
        check_integer("synthesis noise inputs", ports.n_noise, 0, ports.n_in - 1)
        n_in = ports.n_in
        for i, layer in enumerate(self.layers):
            if layer.residual and layer.n_out != n_in:
                raise ConfigError(f"residual synthesis layer {i} has {n_in} inputs and {layer.n_out} outputs")
            n_in = layer.n_out
        if n_in != ports.n_out:
            raise ConfigError(f"the last synthesis layer has {n_in} outputs; this branch needs {ports.n_out} (write X)")
        if self.macs() > MAX_WEIGHTS:
            raise ConfigError(f"synthesis of {self.macs():.0f} weights; choose smaller layers, at most {MAX_WEIGHTS}")

    @classmethod
    def adapted(cls, option: str, value: Any, ports: Ports) -> Any:
        if option != "layers":
            return value
        return _resolved(((p.n_out, p.kernel, p.residual, p.activation == "relu") for p in value), ports)

    @property
    def layers(self) -> tuple[ConvLayer, ...]:
        """The layers, with every n_out resolved."""
        return tuple(ConvLayer(*layer) for layer in self.options.layers)

    def tensors(self) -> tuple[TensorSpec, ...]:
        out: list[TensorSpec] = []
        n_in = self.ports.n_in
        for i, layer in enumerate(self.layers):
            out += _conv(f"layers.{i}", layer.n_out, n_in, layer.kernel)
            n_in = layer.n_out
        if self.options.stabiliser:
            out += _conv("stabiliser", self.ports.n_out, self.ports.n_in - self.ports.n_noise, 1)
        return tuple(out)

    def canonical(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Merge two biases into one: the last layer's absorbs the stabiliser's."""
        if not self.options.stabiliser or self.layers[-1].relu:
            return values
        last = f"layers.{len(self.layers) - 1}.bias"
        both = values[last] + values["stabiliser.bias"]
        return {**values, last: both, "stabiliser.bias": np.zeros_like(both)}

    def ordered(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Hidden features sorted by their biases, if neither their layer nor the next one is residual."""
        out = dict(values)
        for i, (layer, after) in enumerate(pairwise(self.layers)):
            if not layer.residual and not after.residual:
                order = np.argsort(out[f"layers.{i}.bias"], kind="stable")
                out |= {name: out[name][order] for name in (f"layers.{i}.weight", f"layers.{i}.bias")}
                out[f"layers.{i + 1}.weight"] = out[f"layers.{i + 1}.weight"][:, order]
        return out

    def macs(self) -> float:
        weights = (spec.shape for spec in self.tensors() if spec.kind == "weight")
        return float(sum(shape[0] * shape[1] * shape[2] * shape[3] for shape in weights))

    def module(self) -> nn.Module:
        from .differentiable import ConvSynthesisModule

        return ConvSynthesisModule(self.options, self.ports)

    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> IntegerSynthesis:
        flags = tuple((layer.residual, layer.relu) for layer in self.layers)
        return IntegerSynthesis(flags, self.options.stabiliser, self.ports.n_noise, parameters, scales)

    def n_scales(self) -> int:
        return len(self.options.layers)

    def kernel(self, module: nn.Module, height: int, width: int) -> LayerKernel[Array] | None:
        from ..stateful import usable
        from .fused import SynthesisKernel

        if not usable(*module.parameters()):
            return None
        n_in, n_seen = self.ports.n_in, self.ports.n_in - self.ports.n_noise
        return SynthesisKernel(self.options.layers, n_in, n_seen, self.options.stabiliser, (height, width))

    def folded(self, form: IntegerSynthesis, in_bits: int) -> FoldedSynthesis:
        return form.folded(in_bits)


def _resolved(layers: Any, ports: Ports) -> tuple[tuple[int, int, bool, bool], ...]:
    """The layers with n_out 0 replaced by the number of outputs of the branch."""
    return tuple((n_out or ports.n_out, kernel, residual, relu) for n_out, kernel, residual, relu in layers)


def _conv(name: str, n_out: int, n_in: int, kernel: int) -> list[TensorSpec]:
    return [
        TensorSpec(f"{name}.weight", (n_out, n_in, kernel, kernel)),
        TensorSpec(f"{name}.bias", (n_out,), "bias"),
    ]
