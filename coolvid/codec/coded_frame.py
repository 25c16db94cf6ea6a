"""A frame as integers: the result of quantization, the content of a packet, the input of reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coolvid.picture.types import FrameType

from .architecture import Architecture, FrameArchitecture


@dataclass(frozen=True)
class TensorSpec:
    """One parameter: name in the torch module's state dict, shape, and kind, which sets its quantization step."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["weight", "bias"] = "weight"


MAX_PARAMETER = (1 << 23) - 1
MAX_LATENT = (1 << 15) - 1
MAX_SHIFT = 31

# The modules of a Cool-chic, in stream order.
MODULES = ("arm", "ifce", "synthesis", "upsampling")


@dataclass(frozen=True, eq=False)
class CodedModule:
    """One module's parameters as integers.

    parameters: int32 arrays by name, in the order of the plugin's tensors(), |value| <= MAX_PARAMETER.
    A weight is value * 2**-weight_shift, a bias value * 2**-bias_shift.
    scales: fractional bits (0..15) of the module's int16 activations, chosen by the encoder.
    """

    parameters: Mapping[str, NDArray[np.int32]]
    weight_shift: int
    bias_shift: int
    scales: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class CodedCoolChic:
    """One Cool-chic: architecture, modules by name, latents int32 [h, w] finest first as Architecture.grids()."""

    architecture: Architecture
    modules: Mapping[str, CodedModule]
    latents: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True, eq=False)
class CodedFrame:
    """The content of a packet.

    references: display indices. global_translation: (dy, dx) whole pixels per reference.
    output_range: per colour plane (minimum, maximum) code value that residue outputs 0 and 1 stand for; I frames only.
    coolchics: "residue", and "motion" for P and B frames; none for a copy, a P or B frame whose picture is the mean of
    its references. predictor: display index of the frame that predicts its networks, PRIOR, or None.
    """

    display_index: int
    architecture: FrameArchitecture
    references: tuple[int, ...]
    global_translation: tuple[tuple[int, int], ...]
    output_range: tuple[tuple[int, int], ...] | None
    coolchics: Mapping[str, CodedCoolChic]
    predictor: int | None = None

    @property
    def frame_type(self) -> FrameType:
        return self.architecture.frame_type

    @property
    def is_copy(self) -> bool:
        return not self.coolchics
