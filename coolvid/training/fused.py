"""The gradient of a training loss without autograd, where all modules have compiled kernels for it.

A task's loss() is the definition; what FusedLoss makes agrees with it up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from coolvid.config import Phase
from coolvid.model.coolchic import CoolChicEncoder, CoolChicEncoderOutput
from coolvid.model.fused_branch import FusedBranches

Measure = Callable[[Mapping[str, CoolChicEncoderOutput]], Tensor]


class FusedLoss:
    """distortion + bit_slope * latent bits + network_slope * estimated network bits, and its gradient.

    measure: branches' outputs -> distortion, a scalar, by autograd, which sees nothing but the outputs' coarse planes.
    Parameters are moved in memory: from then on .grad of each is a view of what differentiate() writes.
    """

    def __init__(self, branches: FusedBranches, measure: Measure, bit_slope: float, network_slope: float = 0.0) -> None:
        self._branches, self._measure = branches, measure
        self._bit_slope, self._network_slope = bit_slope, network_slope

    @classmethod
    def of(
        cls, branches: Mapping[str, CoolChicEncoder], measure: Measure, bit_slope: float, network_slope: float = 0.0
    ) -> FusedLoss | None:
        """None where a module has no kernel for this."""
        fused = FusedBranches.of(branches)
        return None if fused is None else cls(fused, measure, bit_slope, network_slope)

    def differentiate(self, settings: Phase, temperature: float, noise_parameter: float) -> float:
        """The loss; its gradients are left in .grad of all parameters of the branches."""
        quantisation = settings.quantizer_noise_type, settings.quantizer_type, temperature, noise_parameter
        branches = self._branches.by_name
        with torch.enable_grad():
            outputs = {name: branch.forward(self._bit_slope, *quantisation) for name, branch in branches.items()}
            distortion = self._measure(outputs)
            slopes = torch.autograd.grad(distortion, [output.coarse for output in outputs.values()])
        for branch, slope in zip(branches.values(), slopes, strict=True):
            branch.backward(slope)
        bits = sum(float(output.rate) for output in outputs.values())
        network_bits = self._branches.add_network_rate(self._network_slope) if self._network_slope else 0.0
        return float(distortion.detach()) + self._bit_slope * bits + self._network_slope * network_bits
