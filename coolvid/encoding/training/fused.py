"""The gradient of a training loss without autograd, if all modules have compiled kernels.

A task's loss() is the definition; FusedLoss agrees with it up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.encoding.model.coolchic import CoolChicEncoder, CoolChicEncoderOutput
from coolvid.encoding.model.fused_branch import FusedBranches
from coolvid.plugin.interfaces import TrainingState
from coolvid.settings.config import Phase

Array = NDArray[np.float32]


class Measure(Protocol):
    """A distortion of the branches' coarse planes [n_out, h, w], by branch name. Writes its derivatives into `slopes`,
    arrays of the same shapes."""

    def __call__(self, coarse: Mapping[str, Array], slopes: Mapping[str, Array], state: TrainingState) -> float: ...


class ByAutograd:
    """Measure for any distortion: a function from the branches' outputs to a scalar that depends only on the outputs'
    planes."""

    def __init__(
        self,
        branches: Mapping[str, CoolChicEncoder],
        distortion: Callable[[Mapping[str, CoolChicEncoderOutput], TrainingState], Tensor],
    ) -> None:
        self._branches, self._distortion = branches, distortion

    def __call__(self, coarse: Mapping[str, Array], slopes: Mapping[str, Array], state: TrainingState) -> float:
        with torch.enable_grad():
            leaves = {name: torch.from_numpy(planes)[None].requires_grad_() for name, planes in coarse.items()}
            outputs = {name: self._branches[name].output(torch.zeros(()), leaf) for name, leaf in leaves.items()}
            distortion = self._distortion(outputs, state)
            found = torch.autograd.grad(distortion, list(leaves.values()))
        for name, slope in zip(leaves, found, strict=True):
            slopes[name][:] = slope[0].numpy()
        return float(distortion.detach())


class FusedLoss:
    """distortion + bit_slope * latent bits + network_slope * estimated network bits, and its gradient.

    Moves parameters in memory: afterwards .grad of each parameter is a view of what differentiate() writes.
    """

    def __init__(self, branches: FusedBranches, measure: Measure, bit_slope: float, network_slope: float = 0.0) -> None:
        self._branches, self._measure = branches, measure
        self._bit_slope, self._network_slope = bit_slope, network_slope
        self._coarse = {name: branch.coarse for name, branch in branches.by_name.items()}
        self._slopes = {name: branch.d_coarse for name, branch in branches.by_name.items()}

    @classmethod
    def of(
        cls, branches: Mapping[str, CoolChicEncoder], measure: Measure, bit_slope: float, network_slope: float = 0.0
    ) -> FusedLoss | None:
        """None if a module lacks a kernel."""
        fused = FusedBranches.of(branches)
        return None if fused is None else cls(fused, measure, bit_slope, network_slope)

    def differentiate(self, settings: Phase, temperature: float, noise_parameter: float, state: TrainingState) -> float:
        """The loss. Writes the gradients into .grad of all parameters of the branches."""
        quantization = settings.quantizer_noise_type, settings.quantizer_type, temperature, noise_parameter, state
        branches = self._branches.by_name.values()
        bits = sum(branch.forward(self._bit_slope, *quantization) for branch in branches)
        distortion = self._measure(self._coarse, self._slopes, state)
        for branch in branches:
            branch.backward()
        network_bits = self._branches.add_network_rate(self._network_slope) if self._network_slope else 0.0
        return distortion + self._bit_slope * bits + self._network_slope * network_bits
