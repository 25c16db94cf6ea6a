"""Training step of one Cool-chic in compiled kernels only: forward and backward in sequence, without autograd.

CoolChicEncoder.forward with autograd is the definition; results agree up to rounding. One vector holds all parameters,
another all gradients. Buffers of picture size are allocated once and reused at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from coolvid.codec.architecture import Grid
from coolvid.codec.coded_frame import MODULES
from coolvid.kernels import compiled, threads
from coolvid.plugin.interfaces import TrainingState
from coolvid.plugin.shortcuts import Array, LayerKernel, RateKernel

from .coolchic import CoolChicEncoder
from .fused import usable
from .network_rate import NetworkEstimate


def flattened(modules: Sequence[nn.Module]) -> tuple[Array, Array]:
    """Move the parameters of all modules into one vector and their gradients into another. Afterwards .data and .grad
    of each parameter are views."""
    parameters = [p for module in modules for p in module.parameters()]
    values = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient = torch.zeros_like(values)
    start = 0
    for p in parameters:
        part = slice(start, start + p.numel())
        p.data, p.grad = values[part].view(p.shape), gradient[part].view(p.shape)
        start = part.stop
    return values.numpy(), gradient.numpy()


class FusedBranches:
    """All branches of a model in one vector: first their networks, then all latents."""

    def __init__(self, branches: Mapping[str, CoolChicEncoder], kernels: Mapping[str, Kernels]) -> None:
        networks = [branch.modules_by_name[module] for branch in branches.values() for module in MODULES]
        modules = [*networks, *(branch.latents for branch in branches.values())]
        values, slopes = flattened(modules)
        ends = np.cumsum([sum(p.numel() for p in module.parameters()) for module in modules])
        parts = list(zip(np.split(values, ends), np.split(slopes, ends), strict=True))
        self.by_name = {}
        for i, (name, branch) in enumerate(branches.items()):
            own = [*parts[len(MODULES) * i :][: len(MODULES)], parts[len(networks) + i]]
            self.by_name[name] = FusedBranch(branch, kernels[name], dict(zip((*MODULES, "latents"), own, strict=True)))
        self._networks = values[: ends[len(networks) - 1]], slopes[: ends[len(networks) - 1]]
        self._estimate = NetworkEstimate([each for branch in branches.values() for each in branch.sent_modules()])

    @classmethod
    def of(cls, branches: Mapping[str, CoolChicEncoder]) -> FusedBranches | None:
        """None if one of the branches lacks a kernel."""
        kernels = {name: found for name, branch in branches.items() if (found := Kernels.of(branch)) is not None}
        return cls(branches, kernels) if len(kernels) == len(branches) else None

    def add_network_rate(self, bit_slope: float) -> float:
        """Estimated bits of the networks. Adds their derivatives, times bit_slope, to the gradients."""
        return self._estimate.add(*self._networks, bit_slope)


class Kernels(NamedTuple):
    """Kernels of one Cool-chic's modules."""

    arm: RateKernel
    upsampling: LayerKernel[Sequence[Array]]
    synthesis: LayerKernel[Array]

    @classmethod
    def of(cls, coolchic: CoolChicEncoder) -> Kernels | None:
        """None if a plugin has no kernel for this model, or if the parameters are not float32 on the CPU."""
        if compiled is None or not usable(*coolchic.parameters()):
            return None
        plugins, modules = coolchic.plugins, coolchic.modules_by_name
        sizes = [g.shape for g in coolchic.grids if not g.is_hyper]
        arm = plugins.arm.kernel(modules["arm"], coolchic.grids, coolchic.architecture)
        upsampling = plugins.upsampling.kernel(modules["upsampling"], sizes)
        synthesis = plugins.synthesis.kernel(modules["synthesis"], *sizes[0])
        return None if arm is None or upsampling is None or synthesis is None else cls(arm, upsampling, synthesis)


class FusedBranch:
    """forward() and then backward() of one Cool-chic. parts: parameters and gradients of modules and latents, by name.

    coarse [n_out, h, w]: planes before the final upsampling, from the last forward(). d_coarse: derivatives with
    respect to coarse, which the caller fills before backward().
    """

    def __init__(self, coolchic: CoolChicEncoder, kernels: Kernels, parts: dict[str, tuple[Array, Array]]) -> None:
        self._coolchic = coolchic
        self._values = {name: values for name, (values, _) in parts.items()}
        self._slopes = {name: slopes for name, (_, slopes) in parts.items()}
        self._kernels = kernels
        self._by_autograd: tuple[Tensor, Tensor] | None = None
        self._make_room()

    def _make_room(self) -> None:
        """Allocate the synthesis input and output and the derivatives, and fill in common randomness."""
        coolchic = self._coolchic
        n, n_in = coolchic.architecture.n_planes, coolchic.architecture.synthesis_ports.n_in
        size = next(g.shape for g in coolchic.grids if not g.is_hyper)
        self._dense, self._d_dense = np.zeros((2, n_in, *size), np.float32)
        self._seen, self._d_seen = self._dense[:n], self._d_dense[:n]
        if n_in > n:
            self._dense[n:] = coolchic.common_noise()[0].numpy()
        self.coarse, self.d_coarse = np.zeros((2, coolchic.architecture.n_out, *size), np.float32)
        n_latents = len(self._values["latents"])
        self._noise, self._quantized, self._slope = np.zeros((3, n_latents), np.float32)
        self._d_rate, self._d_planes = np.zeros((2, n_latents), np.float32)
        self._normal, self._d_normal = (_planes_of(each, coolchic.grids) for each in (self._quantized, self._d_planes))

    def forward(self, bit_slope: float, *quantization: Any) -> float:
        """Bits of all latents. bit_slope: derivative of the loss with respect to a bit. quantization: noise and
        quantizer types, temperature, noise parameter, training state."""
        values, slopes = self._values, self._slopes
        self._quantize(*quantization)
        by_rate = self._d_rate, slopes["arm"], slopes["ifce"]
        bits = self._kernels.arm.run(self._quantized, values["arm"], values["ifce"], bit_slope, by_rate)
        self._kernels.upsampling.forward(self._normal, values["upsampling"], self._seen)
        self._kernels.synthesis.forward(self._dense, values["synthesis"], self.coarse)
        return bits

    def backward(self) -> None:
        """All gradients, from d_coarse."""
        slopes = self._slopes
        self._kernels.synthesis.backward(self.d_coarse, self._d_dense, slopes["synthesis"])
        self._kernels.upsampling.backward(self._d_seen, self._d_normal, slopes["upsampling"])
        self._quantize_backward(slopes["latents"])

    def _quantize(
        self, noise_type: str, quantizer_type: str, temperature: float, parameter: float, state: TrainingState
    ) -> None:
        """Quantized latents as in the training forward, and their slope, or what autograd needs to compute it."""
        quantizer, kind = self._coolchic.quantizer_and_noise(noise_type, quantizer_type)
        gain = self._coolchic.param.encoder_gain
        noise = self._noise if self._coolchic.noise.fill(kind, parameter, self._noise) else None
        latents, made = self._values["latents"], (self._quantized, self._slope)
        self._by_autograd = None
        if not quantizer.sloped(latents, gain, noise, temperature, state, *made):
            leaf = torch.from_numpy(latents).clone().requires_grad_()
            given = None if noise is None else torch.from_numpy(noise)
            self._by_autograd = leaf, self._coolchic.quantized(quantizer_type, leaf * gain, given, temperature, state)
            self._quantized[:] = self._by_autograd[1].detach().numpy()

    def _quantize_backward(self, out: Array) -> None:
        """Derivative with respect to the latents, from the derivatives of rate and planes."""
        assert compiled is not None
        if self._by_autograd is None:
            compiled.add_and_scale(self._d_rate, self._d_planes, self._slope, out, threads())
        else:
            leaf, quantized = self._by_autograd
            # Differentiate a product instead: torch.autograd.grad with grad_outputs imports sympy.
            product = torch.dot(quantized, torch.from_numpy(self._d_rate + self._d_planes))
            out[:] = torch.autograd.grad(product, leaf)[0].numpy()


def _planes_of(latents: Array, grids: Sequence[Grid]) -> list[Array]:
    """Planes [h, w] of latents [N] that enter the synthesis, finest first, as views."""
    starts = np.cumsum([0, *(g.height * g.width for g in grids)]).tolist()
    places = zip(starts, starts[1:], grids, strict=False)
    return [latents[start:stop].reshape(g.shape) for start, stop, g in places if not g.is_hyper]
