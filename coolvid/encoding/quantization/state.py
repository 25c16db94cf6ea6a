"""A quantized module, and its transfer to and from the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.bitstream.parameters import halvings
from coolvid.bitstream.weights import Mode, best_mode, module_bits, rescaled
from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.errors import ConfigError

from .steps import KINDS, LIMITS, Floats, dequantize, quantize


@dataclass(frozen=True, eq=False)
class QuantizedModule:
    """Integers of one module. name: branch and module, for example ``residue.arm``. predictor: may predict it."""

    name: str
    specs: tuple[TensorSpec, ...]
    coded: CodedModule
    predictor: CodedModule | None = None

    @classmethod
    def of(cls, coolchic: CoolChicEncoder, name: str) -> QuantizedModule:
        """Module `name` (``residue.arm`` or just ``arm``) of a Cool-chic. Raises ConfigError if it is not quantized."""
        module = name.split(".")[-1]
        specs = coolchic.tensors[module]
        steps = coolchic.quantization[module]
        missing = [spec.name for spec in specs if steps[spec.kind] is None]
        if missing:
            raise ConfigError(f"{name}: {missing[0]} has no quantization step; run quantize_model first")
        weight, bias = (-round(math.log2(steps[kind] or 1.0)) for kind in KINDS)
        coded = quantize(float_parameters(coolchic, module), specs, weight, bias)
        if coded is None:
            raise ConfigError(f"{name}: parameters changed after quantization; run quantize_model again")
        return cls(name, specs, coded, coolchic.predictor.get(module))

    @property
    def bits(self) -> float:
        """Bits of the parameters in their cheapest coding."""
        bits = module_bits(self.name.split(".")[-1], self.coded, self.specs, self.predictor)
        return bits["weight"] + bits["bias"]

    def write(self, coolchic: CoolChicEncoder) -> None:
        """Write the values into the model."""
        write_parameters(coolchic, self.name.split(".")[-1], dequantize(self.coded, self.specs))

    def record(self, coolchic: CoolChicEncoder) -> None:
        """Record the steps in the model, for the kinds that the module has."""
        kinds = {spec.kind for spec in self.specs}
        shifts = zip(KINDS, (self.coded.weight_shift, self.coded.bias_shift), strict=True)
        steps = {kind: 2.0**-shift if kind in kinds else None for kind, shift in shifts}
        coolchic.set_network_quantization(self.name.split(".")[-1], steps)

    # -- the module as one vector of integers -------------------------------------------------------------------

    def flat(self) -> NDArray[np.int64]:
        """All integers [n], in stream order."""
        parts = [self.coded.parameters[s.name].ravel() for s in self.specs]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def with_flat(self, values: NDArray[np.int64]) -> QuantizedModule | None:
        """The module with other integers, or None if one cannot be represented."""
        parameters, start = {}, 0
        for spec in self.specs:
            part = values[start : start + math.prod(spec.shape)]
            if np.abs(part).max(initial=0) > LIMITS[spec.kind]:
                return None
            parameters[spec.name] = part.astype(np.int32).reshape(spec.shape)
            start += part.size
        return replace(self, coded=replace(self.coded, parameters=parameters))

    def flat_steps(self) -> Floats:
        """The step of every integer of flat()."""
        shifts = {"weight": self.coded.weight_shift, "bias": self.coded.bias_shift}
        parts = [np.full(math.prod(s.shape), 2.0 ** -shifts[s.kind]) for s in self.specs]
        return np.concatenate(parts) if parts else np.zeros(0)

    def lengths(self) -> NDArray[np.int64]:
        """Size [n] of each integer's moves: the largest power of two that divides all differences of its tensor from
        sent_from()."""
        tensors = np.split(self.flat() - self.sent_from(), np.cumsum([math.prod(s.shape) for s in self.specs])[:-1])
        parts = [np.full(values.size, 1 << halvings(values.tolist())) for values in tensors]
        return np.concatenate(parts) if self.specs else np.zeros(0, np.int64)

    def extra_bits(self, direction: int) -> Floats:
        """Approximate bits [n] for moving each integer alone by `direction` times its length. Assumes that all integers
        of a kind, or their differences from the predictor if these are sent, are two-sided geometric with their mean
        magnitude."""
        values, shifts = (self.flat() - self.sent_from()) // self.lengths(), self.flat_steps()
        out = np.zeros(values.size)
        for step in np.unique(shifts):
            own = shifts == step
            mean = max(float(np.abs(values[own]).mean()), 1 / values.size)
            out[own] = (np.abs(values[own] + direction) - np.abs(values[own])) * math.log2(1 + 1 / mean)
        return out

    def sent_from(self) -> NDArray[np.int64]:
        """Origin [n] of the coded differences: the predictor's integers, or zeros."""
        mode = best_mode(self.name.split(".")[-1], self.coded, self.specs, self.predictor)
        return self.targets()[-1 if mode is not Mode.FRESH else 0]

    def targets(self) -> tuple[NDArray[np.int64], ...]:
        """Integers that are cheap to send: zeros [n], and the predictor's integers at these steps, if there is one."""
        zeros = np.zeros(self.flat().size, np.int64)
        if self.predictor is None or not self.specs:
            return (zeros,)
        known, own = self.predictor, self.coded
        shifts = {"weight": (known.weight_shift, own.weight_shift), "bias": (known.bias_shift, own.bias_shift)}
        parts = [rescaled(known.parameters[s.name].ravel(), *shifts[s.kind]) for s in self.specs]
        return zeros, np.concatenate(parts).astype(np.int64)


def named_parameters(coolchic: CoolChicEncoder, module: str) -> dict[str, Tensor]:
    """The torch parameters of one module by spec name."""
    return dict(coolchic.modules_by_name[module].named_parameters())


def write_parameters(coolchic: CoolChicEncoder, module: str, values: Mapping[str, Floats]) -> None:
    """Write parameters of one module into the model."""
    own = named_parameters(coolchic, module)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(torch.from_numpy(value))


def float_parameters(coolchic: CoolChicEncoder, module: str) -> dict[str, Floats]:
    """Current parameters of one module."""
    return {name: p.detach().double().cpu().numpy() for name, p in named_parameters(coolchic, module).items()}
