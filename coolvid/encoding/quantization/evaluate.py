"""Loss of a frame encoder while one module at a time changes, with a cache of everything the module does not affect.

The entropy model does not affect the picture; synthesis and upsampling do not affect the rate. The prediction is
warped again only when motion changes, and not if every rounded vector stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolvid.codec.coded_frame import MODULES, TensorSpec
from coolvid.encoding.model.compose import round_flow
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.rate import latent_bits
from coolvid.encoding.objective import Objective, planes_of

from .state import QuantizedModule, float_parameters, named_parameters, write_parameters
from .steps import Floats

# Stages that a module's parameters affect, within its branch; and the frame's stages that a branch's planes affect.
_REACHES = {
    "arm": ("rate",),
    "ifce": ("contexts", "rows", "rate"),
    "upsampling": ("dense", "raw"),
    "synthesis": ("raw",),
}
_RATE_MACS = 40.0
_WARP_MACS = 300.0
_WORTH_MERGING = 0.8


class FrameLoss:
    """The objective of a frame encoder in evaluation mode, on the objective's device.

    modules: names, for example ``motion.arm``, sorted. loss_per_bit: lmbda / pixels. Change module parameters with
    load(), or call changed() after any other change. Latents must not change.
    """

    def __init__(self, frame_encoder: FrameEncoder, objective: Objective) -> None:
        self.frame_encoder = frame_encoder.eval()
        self.branches = frame_encoder.branches
        self.modules = tuple(sorted(f"{branch}.{module}" for branch in self.branches for module in MODULES))
        self.objective = objective
        self.loss_per_bit = objective.loss_per_bit
        self._kept: dict[tuple[str, str], Any] = {}
        self._smooth = False

    # -- parameters ---------------------------------------------------------------------------------------------

    def coolchic(self, name: str) -> CoolChicEncoder:
        return self.branches[name.split(".")[0]]

    def specs(self, name: str) -> tuple[TensorSpec, ...]:
        return self.coolchic(name).tensors[name.split(".")[1]]

    def floats(self, name: str) -> dict[str, Floats]:
        """Current parameters of a module."""
        return float_parameters(self.coolchic(name), name.split(".")[1])

    def canonical(self, name: str, is_predicted: bool = True) -> dict[str, Floats]:
        """floats(), converted by the plugin to the cheapest equivalent parameters. is_predicted: keep the order of
        units."""
        plugin, values = self.coolchic(name).plugins.by_name().get(name.split(".")[1]), self.floats(name)
        if plugin is None:
            return values
        return dict(plugin.canonical(values if is_predicted else plugin.ordered(values)))

    def write(self, name: str, values: Mapping[str, Floats]) -> None:
        """Write float parameters into the model."""
        write_parameters(self.coolchic(name), name.split(".")[1], values)
        self.changed(name)

    def load(self, module: QuantizedModule) -> None:
        """Write a quantized module into the model."""
        module.write(self.coolchic(module.name))
        self.changed(module.name)

    def changed(self, name: str) -> None:
        """Invalidate everything that this module's parameters affect."""
        branch, module = name.split(".")
        for stage in _REACHES[module]:
            self._kept.pop((branch, stage), None)
        if "raw" in _REACHES[module]:
            self._kept.pop(("frame", "distortion"), None)

    @torch.no_grad()
    def settle(self, name: str) -> None:
        """Declare that only this module will change for a while."""
        branch, module = name.split(".")
        if module == "arm" and self.branches[branch].fused_rate(self._flat(branch)) is None:
            self._keep(branch, "rows", lambda: _merged(self._contexts(branch), self._flat(branch)))

    # -- values -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def value(self) -> float:
        """Distortion + lmbda * latent bits per pixel, without networks."""
        return float(self._value())

    def total(self, module: QuantizedModule) -> float:
        """value() plus the bits of this module, which must be loaded."""
        return self.value() + self.loss_per_bit * module.bits

    @torch.no_grad()
    def least(self, name: str) -> float:
        """Lower bound of value() if only this module changes."""
        branch, module = name.split(".")
        others = sum(float(self._rate(b)) for b in self.branches if b != branch) * self.loss_per_bit
        if module in ("arm", "ifce"):
            return float(self._measured()) + others
        return others + float(self._rate(branch)) * self.loss_per_bit

    def slope(self, module: QuantizedModule) -> Floats:
        """Derivative of value() with respect to each integer [n] of the module (without rounding of the flow)."""
        name = module.name
        own = named_parameters(self.coolchic(name), name.split(".")[1])
        parameters = [own[spec.name].requires_grad_(True) for spec in module.specs]
        self.value()  # caches, without gradients, everything that this module does not affect
        self._forget_for(name, smooth=True)
        with torch.enable_grad():
            found = torch.autograd.grad(self._value(), parameters, allow_unused=True)
        self._forget_for(name, smooth=False)
        parts = [
            np.zeros(p.numel()) if g is None else g.double().cpu().numpy().ravel()
            for p, g in zip(parameters, found, strict=True)
        ]
        return np.concatenate(parts) * module.flat_steps()

    def work(self, name: str) -> float:
        """Approximate multiplications of one value() after a change of this module."""
        branch, module = name.split(".")
        coolchic = self.branches[branch]
        macs = coolchic.complexity().macs
        if module in ("arm", "ifce"):
            contexts = macs["ifce"] if module == "ifce" else 0.0
            return macs["arm"] + contexts + _RATE_MACS * sum(g.height * g.width for g in coolchic.grids)
        pixels = self.frame_encoder.format.height * self.frame_encoder.format.width
        warps = len(self.frame_encoder.references) if branch == "motion" else 0
        upsampling = macs["upsampling"] if module == "upsampling" else 0.0
        return macs["synthesis"] + upsampling + pixels * (_RATE_MACS + _WARP_MACS * warps)

    def planes_of(self, branch: str, raw: Tensor) -> list[Tensor]:
        """Decoded planes for one branch's output raw [1, n_out, H, W], the other unchanged; flow is not rounded."""
        if branch == "motion":
            residue, predictions = self._raw("residue"), self.frame_encoder.warp(raw)
        else:
            residue, predictions = raw, self._predictions() if "motion" in self.branches else ()
        decoded = self.frame_encoder.compose(residue, predictions)
        return planes_of(decoded)

    # -- stages -------------------------------------------------------------------------------------------------

    def _forget_for(self, name: str, smooth: bool) -> None:
        self._smooth = smooth
        self.changed(name)
        self._kept.pop(("frame", "predictions"), None)

    def _keep(self, owner: str, stage: str, make: Callable[[], Any]) -> Any:
        if (owner, stage) not in self._kept:
            self._kept[owner, stage] = make()
        return self._kept[owner, stage]

    def _value(self) -> Tensor:
        rate = torch.stack([self._rate(branch) for branch in self.branches]).sum()
        return self._measured().double() + self.loss_per_bit * rate

    def _flat(self, branch: str) -> Tensor:
        out: Tensor = self._keep(branch, "flat", lambda: self.branches[branch].rounded_latents().detach())
        return out

    def _contexts(self, branch: str) -> Tensor:
        out: Tensor = self._keep(branch, "contexts", lambda: self.branches[branch].contexts(self._flat(branch)))
        return out

    def _rate(self, branch: str) -> Tensor:
        out: Tensor = self._keep(branch, "rate", lambda: self._make_rate(branch))
        return out

    def _make_rate(self, branch: str) -> Tensor:
        """Latent bits of a branch, summed in double precision."""
        fused = self.branches[branch].fused_rate(self._flat(branch))
        if fused is not None:
            return fused.double().sum()
        rows = self._kept.get((branch, "rows")) or (self._contexts(branch), self._flat(branch), None)
        contexts, latents, counts = rows
        laplace = self.branches[branch].modules_by_name["arm"](contexts.t()).t()
        bits = latent_bits(latents, laplace[0], laplace[1]).double()
        return bits.sum() if counts is None else bits @ counts

    def _raw(self, branch: str) -> Tensor:
        coolchic = self.branches[branch]
        dense = self._keep(branch, "dense", lambda: coolchic.synthesis_input(self._flat(branch)))
        out: Tensor = self._keep(branch, "raw", lambda: coolchic.synthesised(dense))
        return out

    def _measured(self) -> Tensor:
        out: Tensor = self._keep("frame", "distortion", self._make_distortion)
        return out

    def _make_distortion(self) -> Tensor:
        predictions = self._predictions() if "motion" in self.branches else ()
        decoded = self.frame_encoder.compose(self._raw("residue"), predictions)
        return self.objective.distortion(decoded)

    def _predictions(self) -> tuple[Tensor, ...]:
        """The warped references, cached as long as the flow does not change."""
        raw = self._raw("motion")
        flow = raw if self._smooth else round_flow(raw)
        known = self._kept.get(("frame", "predictions"))
        if known is None or not torch.equal(known[0], flow):
            known = self._kept["frame", "predictions"] = (flow, self.frame_encoder.warp(flow))
        out: tuple[Tensor, ...] = known[1]
        return out


def _merged(contexts: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Merge equal columns of contexts [n, N] with equal latents [N]: (contexts, latents, counts or None).

    Most latents of a low-rate frame are zeros among zeros, with equal cost. 64-bit hashes distinguish the columns.
    """
    keys = np.zeros(latents.numel(), np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, len(contexts) + 1, dtype=np.uint64)
    for row, factor in zip((*contexts, latents), factors * np.uint64(2) + np.uint64(1), strict=True):
        bits = (row.cpu().numpy() + np.float32(0.0)).view(np.uint32)  # + 0 turns -0 into 0
        keys += bits.astype(np.uint64) * factor
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if len(first) > _WORTH_MERGING * len(keys):
        return contexts, latents, None
    chosen = torch.from_numpy(first).to(latents.device)
    return contexts[:, chosen].contiguous(), latents[chosen], torch.from_numpy(counts).to(latents.device).double()
