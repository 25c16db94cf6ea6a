"""Bits of quantised networks as the stream codes them, and an estimate for training, before there are steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolvid.bitstream.weights import module_bits
from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.kernels import compiled

KINDS = ("weight", "bias")
Steps = Mapping[str, float | None]

# Steps that quantisation usually chooses, by module: what a parameter must exceed to be worth more than a zero.
USUAL_STEPS = {"arm": 2.0**-4, "ifce": 2.0**-4, "upsampling": 2.0**-6, "synthesis": 2.0**-6}


def network_rate(
    name: str, module: nn.Module, tensors: tuple[TensorSpec, ...], steps: Steps, predictor: CodedModule | None
) -> dict[str, float]:
    """Bits of one module by kind; 0 where a step is not known yet."""
    if not tensors or any(steps.get(spec.kind) is None for spec in tensors):
        return dict.fromkeys(KINDS, 0.0)
    parameters = dict(module.named_parameters())
    values = {
        s.name: torch.round(parameters[s.name].detach().double() / (steps[s.kind] or 1.0)).int().cpu().numpy()
        for s in tensors
    }
    weight, bias = (-round(math.log2(steps.get(kind) or 1.0)) for kind in KINDS)
    bits = module_bits(name, CodedModule(values, weight, bias), tensors, predictor)
    return {kind: bits[kind] for kind in KINDS}


def estimated_bits(
    module: nn.Module, tensors: Sequence[TensorSpec], step: float, predictor: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Bits of one module's parameters at a step, roughly: a differentiable scalar that is 0 only when all are 0, or
    equal to the predictor's values, if there is one; what is cheaper counts.

    Each kind counts n * log2(1 + 2 e mean|parameter| / step): the entropy of n Laplace variables of that mean
    magnitude, quantised by the step, where the magnitude is well above it. Every parameter is pulled to 0 by the
    same force, which grows as its neighbours shrink: those that do little vanish, the others hardly move.
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
    """The sum of estimated_bits over modules whose parameters lie in one vector, with derivatives, by the compiled
    kernel.

    modules: as estimated_bits() takes them, in the order of the vector.
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
        """Bits of values [N], whose derivatives times bit_slope are added to slopes [N]."""
        bits: float = self._kernel.add(values, slopes, bit_slope)
        return bits
