"""One Cool-chic in integers: latents -> upsampling -> synthesis -> final upsampling. Source: arXiv 2403.11651."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.architecture import Architecture
from coolvid.coded import CodedCoolChic
from coolvid.fixedpoint import FLOW_BITS, saturate16, shift_round
from coolvid.interfaces import Integers
from coolvid.modules import build_plugins

from .contexts import ContextModel
from .noise import common_noise
from .parameters import fixed_parameters, sent_scales
from .resize import enlarge

# Contexts of a grid that the choice of the ARM's scales looks at: half of them the largest, half evenly spread.
_CONTEXT_SAMPLE = 1 << 16


def decode_coolchic(coded: CodedCoolChic, height: int, width: int) -> tuple[Integers, int]:
    """(int32 [n_out, height, width] within int16, its fractional bits). Raises StreamError for wrong parameters."""
    planes, bits, _ = _dense(coded, height, width, choose=False)
    architecture = coded.architecture
    finest = architecture.latent_resolution[0]
    return enlarge(planes, finest, architecture.final_upsampling, height, width), bits


def decode_flow(coded: CodedCoolChic, height: int, width: int) -> Integers:
    """What decode_coolchic() gives, rounded to FLOW_BITS."""
    planes, bits, _ = _dense(coded, height, width, choose=False)
    finest, method = coded.architecture.latent_resolution[0], coded.architecture.final_upsampling
    if kernels.decode is not None and (method == "nearest" or finest == 0):
        out: Integers = kernels.decode.repeat(planes, finest, bits - FLOW_BITS, height, width)
        return out
    return shift_round(enlarge(planes, finest, method, height, width), bits - FLOW_BITS).astype(np.int32)


def choose_scales(coded: CodedCoolChic, height: int, width: int) -> CodedCoolChic:
    """The same Cool-chic with every module's scales set so that its own activations fit (encoder side)."""
    _, _, scales = _dense(coded, height, width, choose=True)
    scales |= {"arm": _arm_scales(coded, height, width), "ifce": ()}
    modules = {name: replace(module, scales=scales[name]) for name, module in coded.modules.items()}
    return replace(coded, modules=modules)


def _dense(
    coded: CodedCoolChic, height: int, width: int, choose: bool
) -> tuple[Integers, int, dict[str, tuple[int, ...]]]:
    """Synthesis output at the finest grid's size, its fractional bits, and the scales that were used."""
    architecture, forms = coded.architecture, {}
    for name in ("upsampling", "synthesis"):
        plugin = build_plugins(architecture)[name]
        scales = None if choose else sent_scales(coded.modules, name, plugin.n_scales())
        forms[name] = plugin.integer(fixed_parameters(coded.modules[name], plugin.tensors()), scales)
    upsampling, synthesis = forms["upsampling"], forms["synthesis"]
    grids = architecture.grids(height, width)
    normal = [latent for latent, grid in zip(coded.latents, grids, strict=True) if not grid.is_hyper]
    planes = _with_noise(upsampling(normal), upsampling.out_bits, architecture, height, width)
    out = synthesis(planes, upsampling.out_bits)
    return out, synthesis.out_bits, {name: tuple(form.scales) for name, form in forms.items()}


def _with_noise(planes: Integers, bits: int, architecture: Architecture, height: int, width: int) -> Integers:
    if not architecture.common_randomness:
        return planes
    noise, noise_bits = common_noise(architecture, height, width)
    return np.concatenate((planes, saturate16(shift_round(noise, noise_bits - bits))))


def _arm_scales(coded: CodedCoolChic, height: int, width: int) -> tuple[int, ...]:
    model = ContextModel(coded.architecture, coded.modules, height, width, choose=True)
    samples = [_telling(model.contexts(i, coded.latents)) for i in range(len(coded.latents))]
    choose = getattr(model.arm, "choose", model.arm)
    choose(np.concatenate(samples).astype(np.int32))
    return tuple(model.arm.scales)


def _telling(contexts: NDArray[np.int16]) -> NDArray[np.int16]:
    """All rows, or those of greatest magnitude and an even spread of the others, when there are many."""
    if len(contexts) <= _CONTEXT_SAMPLE:
        return contexts
    half = _CONTEXT_SAMPLE // 2
    magnitude = np.abs(contexts.astype(np.int32)).sum(axis=1)
    largest = np.argpartition(magnitude, -half)[-half:]
    return np.concatenate((contexts[largest], contexts[:: -(-len(contexts) // half)]))
