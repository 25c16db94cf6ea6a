"""Quantization steps: their ranges, and conversion between float parameters and integers.

Steps are powers of two, 2**-shift; a module has one shift for its weights and one for its biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.coded_frame import MAX_PARAMETER, CodedModule, TensorSpec
from coolvid.codec.fixed_point import INT16_MAX, Integers

Floats = NDArray[np.float64]
KINDS = ("weight", "bias")
LIMITS = {"weight": INT16_MAX, "bias": MAX_PARAMETER}


@dataclass(frozen=True)
class StepRange:
    """Permitted shifts for a module (inclusive upper ends; the lower end is 0), and the start of the search."""

    weight: int
    bias: int
    start: tuple[int, int]

    def shifts(self, specs: Sequence[TensorSpec]) -> tuple[range, range]:
        """Candidate shifts for weights and for biases; only 0 for a kind that the module does not have."""
        kinds = {spec.kind for spec in specs}
        weight, bias = (range(top + 1 if kind in kinds else 1) for top, kind in zip(self._tops, KINDS, strict=True))
        return weight, bias

    @property
    def _tops(self) -> tuple[int, int]:
        return self.weight, self.bias


_ENTROPY_MODEL = StepRange(8, 16, (5, 6))
_PICTURE = StepRange(12, 24, (7, 9))
_RANGES = {"arm": _ENTROPY_MODEL, "ifce": _ENTROPY_MODEL}


def step_range(module: str) -> StepRange:
    """Range of a module by its name within a Cool-chic; modules of the picture share one."""
    return _RANGES.get(module, _PICTURE)


def quantize(
    values: Mapping[str, Floats], specs: Sequence[TensorSpec], weight_shift: int, bias_shift: int
) -> CodedModule | None:
    """Parameters rounded to multiples of 2**-shift, or None if an integer cannot be represented.

    Biases are limited to coded.MAX_PARAMETER, weights to int16, the operand type of the integer modules.
    """
    integers: dict[str, Integers] = {}
    for spec in specs:
        shift = weight_shift if spec.kind == "weight" else bias_shift
        rounded = np.rint(np.ldexp(values[spec.name], shift))
        if not np.abs(rounded).max(initial=0.0) <= LIMITS[spec.kind]:
            return None
        integers[spec.name] = rounded.astype(np.int32)
    return CodedModule(integers, weight_shift, bias_shift)


def dequantize(coded: CodedModule, specs: Sequence[TensorSpec]) -> dict[str, Floats]:
    """The exact values of the integers (all fit float32)."""
    shifts = {"weight": coded.weight_shift, "bias": coded.bias_shift}
    return {s.name: np.ldexp(coded.parameters[s.name].astype(np.float64), -shifts[s.kind]) for s in specs}
