"""One Cool-chic's training step through compiled kernels alone: forward and backward in sequence, without autograd.

CoolChicEncoder.forward with autograd is the definition; results agree with it up to rounding. Parameters and gradients
lie in one vector each, and everything of a picture's size in memory that stays from one step to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolvid.coded import MODULES
from coolvid.kernels import compiled

from .coolchic import CoolChicEncoder, CoolChicEncoderOutput
from .fused import usable
from .network_rate import NetworkEstimate

Array = NDArray[np.float32]


def flattened(modules: Sequence[nn.Module]) -> tuple[Array, Array]:
    """Move the parameters of all modules into one vector, and their gradients into another: .data and .grad of each
    are views from then on."""
    parameters = [p for module in modules for p in module.parameters()]
    values = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient = torch.zeros_like(values)
    start = 0
    for p in parameters:
        part = slice(start, start + p.numel())
        p.data, p.grad = values[part].view(p.shape), gradient[part].view(p.shape)
        start = part.stop
    return values.numpy(), gradient.numpy()


class FusedBranch:
    """forward() and then backward() of one Cool-chic. Its parameters are moved together, and their .grad is written."""

    def __init__(self, coolchic: CoolChicEncoder, kernels: tuple[Any, Any, Any]) -> None:
        self._coolchic, self._gain = coolchic, np.float32(coolchic.param.encoder_gain)
        self._rate, self._upsampling, self._synthesis = kernels
        parts = {name: coolchic.modules_by_name[name] for name in MODULES} | {"latents": coolchic.latents}
        values, slopes = flattened(list(parts.values()))
        ends = np.cumsum([sum(p.numel() for p in part.parameters()) for part in parts.values()])
        self._values = dict(zip(parts, np.split(values, ends), strict=False))
        self._slopes = dict(zip(parts, np.split(slopes, ends), strict=False))
        self._networks = values[: ends[-2]], slopes[: ends[-2]]
        self._estimate = NetworkEstimate(coolchic.sent_modules())
        self._make_room()

    @classmethod
    def of(cls, coolchic: CoolChicEncoder) -> FusedBranch | None:
        """None where one of the modules has no kernel for this, or the parameters are not float32 on the CPU."""
        modules = coolchic.modules_by_name
        if compiled is None or not usable(*coolchic.parameters()):
            return None
        sizes = [g.shape for g in coolchic.grids if not g.is_hyper]
        wanted = {"arm": (coolchic.grids, coolchic.architecture), "upsampling": (sizes,), "synthesis": sizes[0]}
        made = [_offered(modules[name], arguments) for name, arguments in wanted.items()]
        return None if None in made else cls(coolchic, (made[0], made[1], made[2]))

    def _make_room(self) -> None:
        """Memory for latents, the synthesis input and output, and their derivatives; common randomness is put in."""
        coolchic = self._coolchic
        n, shape = coolchic.architecture.n_planes, coolchic.architecture.synthesis_ports.n_in
        size = next(g.shape for g in coolchic.grids if not g.is_hyper)
        self._dense, self._d_dense = np.zeros((2, shape, *size), np.float32)
        self._seen = slice(0, n)
        if shape > n:
            self._dense[n:] = coolchic.common_noise()[0].numpy()
        self._coarse = torch.zeros(1, coolchic.architecture.n_out, *size).requires_grad_()
        self._scaled = torch.zeros(self._values["latents"].size).requires_grad_()
        self._d_rate, self._d_planes = np.zeros((2, self._scaled.numel()), np.float32)
        starts = np.cumsum([0, *(g.height * g.width for g in coolchic.grids)]).tolist()
        places = zip(starts, starts[1:], coolchic.grids, strict=False)
        self._places = [(slice(start, stop), g.shape) for start, stop, g in places if not g.is_hyper]
        self._d_normal = self._normal(self._d_planes)

    def forward(self, bit_slope: float, *quantisation: Any) -> CoolChicEncoderOutput:
        """Total rate (a scalar) and coarse planes. bit_slope: derivative of the loss by a bit. quantisation: as for
        CoolChicEncoder.quantized."""
        values, slopes = self._values, self._slopes
        scaled = self._scaled.detach().numpy()
        np.multiply(values["latents"], self._gain, out=scaled)
        self._quantised = self._coolchic.quantized(self._scaled, *quantisation)
        latents = self._quantised.detach().numpy()
        by_rate = self._d_rate, slopes["arm"], slopes["ifce"]
        bits = self._rate.run(latents, values["arm"], values["ifce"], bit_slope, by_rate)
        self._upsampling.forward(self._normal(latents), values["upsampling"], self._dense[self._seen])
        self._synthesis.forward(self._dense, values["synthesis"], self._coarse.detach()[0].numpy())
        return self._coolchic.output(torch.tensor(bits, dtype=torch.float64), self._coarse)

    def backward(self, d_coarse: Tensor) -> None:
        """All gradients, given the derivative of the distortion by the coarse planes."""
        slopes = self._slopes
        self._synthesis.backward(d_coarse[0].contiguous().numpy(), self._d_dense, slopes["synthesis"])
        self._upsampling.backward(self._d_dense[self._seen], self._d_normal, slopes["upsampling"])
        self._d_rate += self._d_planes
        (by_latent,) = torch.autograd.grad(self._quantised, self._scaled, torch.from_numpy(self._d_rate))
        np.multiply(by_latent.numpy(), self._gain, out=slopes["latents"])

    def add_network_rate(self, bit_slope: float) -> float:
        """Estimated bits of the networks, whose derivatives times bit_slope are added to the gradients."""
        return self._estimate.add(*self._networks, bit_slope)

    def _normal(self, latents: Array) -> list[Array]:
        """The planes [h, w] of latents [N] that go to the synthesis, finest first."""
        return [latents[part].reshape(shape) for part, shape in self._places]


def _offered(module: nn.Module, arguments: Sequence[Any]) -> Any | None:
    """The module's kernel, where it offers one."""
    make = getattr(module, "kernel", None)
    return None if make is None else make(*arguments)
