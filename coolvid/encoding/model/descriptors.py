"""What a Cool-chic says about itself, under the names of the Cool-chic documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from coolvid.codec.architecture import Architecture
from coolvid.codec.coded_frame import MODULES, CodedModule, TensorSpec
from coolvid.plugin.modules import Plugins
from coolvid.settings.config import CoolChicEncoderParameter

from .complexity import Complexity, complexity_of
from .network_rate import network_rate, quantized_values

MAX_GOLOMB_ORDER = 12


class DescriptorNN(TypedDict):
    """One value for the weights of a network and one for its biases; None before quantization."""

    weight: float | None
    bias: float | None


class DescriptorCoolChic(TypedDict):
    """One value for each kind of parameter of each module."""

    arm: DescriptorNN
    ifce: DescriptorNN
    synthesis: DescriptorNN
    upsampling: DescriptorNN


def described(value: Callable[[str, str], float | None]) -> DescriptorCoolChic:
    """The descriptor of value(module, kind)."""

    def both(module: str) -> DescriptorNN:
        return DescriptorNN(weight=value(module, "weight"), bias=value(module, "bias"))

    return DescriptorCoolChic(
        arm=both("arm"), ifce=both("ifce"), synthesis=both("synthesis"), upsampling=both("upsampling")
    )


class AdditionalData(dict[str, Any]):
    """A dictionary whose values are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self) or "nothing without flag_additional_outputs"
            raise AttributeError(f"additional data has no '{name}'; it has {known}") from None


def golomb_order(values: NDArray[np.int64]) -> int:
    """The order 0..MAX_GOLOMB_ORDER of the signed exp-Golomb code that sends these integers in the fewest bits."""
    unsigned = np.where(values > 0, 2 * values - 1, -2 * values)
    return min(range(MAX_GOLOMB_ORDER + 1), key=lambda order: _golomb_bits(unsigned, order))


def _golomb_bits(unsigned: NDArray[np.int64], order: int) -> int:
    prefix = np.frexp((unsigned >> order) + 1)[1] - 1  # floor of log2
    return int(np.sum(2 * prefix + 1 + order))


class SelfDescription(nn.Module):
    """What a Cool-chic says about its networks: steps, bits, complexity."""

    param: CoolChicEncoderParameter
    architecture: Architecture
    plugins: Plugins
    modules_by_name: nn.ModuleDict
    tensors: Mapping[str, tuple[TensorSpec, ...]]
    quantization: dict[str, dict[str, float | None]]
    predictor: Mapping[str, CodedModule]

    @property
    def modules_to_send(self) -> list[str]:
        """The modules that have parameters, in stream order."""
        return [name for name in MODULES if self.tensors[name]]

    def get_network_quantization_step(self) -> DescriptorCoolChic:
        """Steps of the networks; None before quantization."""
        return described(lambda module, kind: self.quantization[module][kind])

    def get_network_expgol_count(self) -> DescriptorCoolChic:
        """Order of the signed exp-Golomb code that sends the networks in the fewest bits; None before quantization.

        The Cool-chic documents code parameters this way. The stream uses an adaptive arithmetic code instead, whose
        bits get_network_rate() returns.
        """
        return described(self._golomb_order)

    def _golomb_order(self, module: str, kind: str) -> int | None:
        tensors = tuple(spec for spec in self.tensors[module] if spec.kind == kind)
        if not tensors or self.quantization[module][kind] is None:
            return None
        values = quantized_values(self.modules_by_name[module], tensors, self.quantization[module])
        return golomb_order(np.concatenate([value.ravel() for value in values.values()]).astype(np.int64))

    def get_network_rate(self) -> tuple[DescriptorCoolChic, float]:
        """Bits of the networks as the stream codes them, and their sum; 0 before quantization."""
        rates = {
            name: network_rate(name, self.modules_by_name[name], self.tensors[name], steps, self.predictor.get(name))
            for name, steps in self.quantization.items()
        }
        total = sum(bits for kinds in rates.values() for bits in kinds.values())
        return described(lambda module, kind: rates[module][kind]), total

    def complexity(self) -> Complexity:
        """Multiplications per module to decode one picture."""
        return complexity_of(self.architecture, self.plugins.by_name(), self.param.img_size)

    def get_flops(self) -> None:
        """Set total_flops, the multiplications to decode one picture, and flops_str, the table of str_complexity()."""
        self.total_flops, self.flops_str = round(self.complexity().total), self.str_complexity()

    def get_total_mac_per_pixel(self) -> float:
        """Multiplications per decoded pixel."""
        return self.complexity().per_pixel

    def str_complexity(self) -> str:
        """A table of the modules' parameters and multiplications to decode one picture."""
        return self.complexity().table({n: sum(p.numel() for p in m.parameters()) for n, m in self._named_modules()})

    def _named_modules(self) -> list[tuple[str, nn.Module]]:
        return [(name, self.modules_by_name[name]) for name in MODULES]
