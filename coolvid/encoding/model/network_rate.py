"""Bits of quantized networks as coded in the stream, and an estimate for training, before steps exist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolvid.bitstream.weights import module_bits
from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.codec.fixed_point import Integers
from coolvid.kernels import compiled

KINDS = ("weight", "bias")
Steps = Mapping[str, float | None]

# Typical quantization steps by module: the scale at which a parameter is worth more than a zero.
USUAL_STEPS = {"arm": 2.0**-4, "ifce": 2.0**-4, "upsampling": 2.0**-6, "synthesis": 2.0**-6}


def network_rate(
    name: str, module: nn.Module, tensors: tuple[TensorSpec, ...], steps: Steps, predictor: CodedModule | None
) -> dict[str, float]:
    """Bits of one module by kind; 0 for a kind without a step."""
    if not tensors or any(steps.get(spec.kind) is None for spec in tensors):
        return dict.fromkeys(KINDS, 0.0)
    values = quantized_values(module, tensors, steps)
    weight, bias = (-round(math.log2(steps.get(kind) or 1.0)) for kind in KINDS)
    bits = module_bits(name, CodedModule(values, weight, bias), tensors, predictor)
    return {kind: bits[kind] for kind in KINDS}


def quantized_values(module: nn.Module, tensors: Sequence[TensorSpec], steps: Steps) -> dict[str, Integers]:
    """The parameters as multiples of their steps, by name."""
    parameters = dict(module.named_parameters())
    return {
        s.name: torch.round(parameters[s.name].detach().double() / (steps[s.kind] or 1.0)).int().cpu().numpy()
        for s in tensors
    }


def estimated_bits(
    module: nn.Module, tensors: Sequence[TensorSpec], step: float, predictor: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Rough bits of one module's parameters at a step: a differentiable scalar.

    With a predictor, the cheaper of parameters and differences counts. The result is 0 only if all parameters are 0 or
    equal the predictor's values.

    Each kind counts n * log2(1 + 2 e mean|parameter| / step). This is the entropy of n quantized Laplace variables of
    that mean magnitude, if the magnitude is well above the step. Every parameter gets the same gradient toward 0,
    which grows as the others shrink: parameters of little use vanish, the rest hardly move.
    """
    parameters = dict(module.named_parameters())
    fresh, difference = torch.zeros(()), torch.zeros(())
    for kind in KINDS:
        own = [s.name for s in tensors if s.kind == kind]
        if own:
            values = torch.cat([parameters[name].reshape(-1) for name in own])
            fresh = fresh.to(values) + _kind_bits(values, step)
            if predictor is not None:
                known = torch.cat([predictor[name].reshape(-1) for name in own]).to(values)
                difference = difference.to(values) + _kind_bits(values - known, step)
    return fresh if predictor is None else torch.minimum(fresh, difference)


def _kind_bits(values: Tensor, step: float) -> Tensor:
    return values.numel() * torch.log2(1 + 2 * math.e / step * values.abs().mean())


SentModule = tuple[nn.Module, tuple[TensorSpec, ...], float, Mapping[str, Tensor] | None]


class NetworkEstimate:
    """Sum of estimated_bits over modules whose parameters share one vector, with derivatives, in the compiled kernel.

    modules: as for estimated_bits(), in the order of the vector.
    """

    def __init__(self, modules: Sequence[SentModule]) -> None:
        assert compiled is not None
        owners: list[int] = []
        predicted: list[float] = []
        for i, (module, tensors, _, predictor) in enumerate(modules):
            kinds = {s.name: len(KINDS) * i + KINDS.index(s.kind) for s in tensors}
            for name, parameter in module.named_parameters():
                owners += [kinds[name]] * parameter.numel()
                known = torch.zeros_like(parameter) if predictor is None else predictor[name]
                predicted += known.detach().reshape(-1).tolist()
        factors = [2 * math.e / step for _, _, step, _ in modules for _ in KINDS]
        is_predicted = any(predictor is not None for *_, predictor in modules)
        self._kernel = compiled.NetworkRate(owners, factors, predicted if is_predicted else [])

    def add(self, values: NDArray[np.float32], slopes: NDArray[np.float32], bit_slope: float) -> float:
        """Bits of values [N]. Adds their derivatives, times bit_slope, to slopes [N]."""
        bits: float = self._kernel.add(values, slopes, bit_slope)
        return bits
