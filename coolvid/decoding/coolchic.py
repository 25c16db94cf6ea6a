"""One Cool-chic in integers: latents -> upsampling -> synthesis -> final upsampling. Source: arXiv 2403.11651."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.coded_frame import CodedCoolChic
from coolvid.codec.fixed_point import FLOW_BITS, Integers, saturate16, shift_round
from coolvid.plugin.contract import check_integers, check_scales
from coolvid.plugin.modules import build_plugins

from .contexts import ContextModel, nearest
from .noise import common_noise
from .parameters import fixed_parameters, sent_scales
from .resize import enlarge

# Contexts of a grid from which the ARM's scales are chosen: half of them the largest, half evenly spread.
_CONTEXT_SAMPLE = 1 << 16


def decode_coolchic(coded: CodedCoolChic, height: int, width: int) -> tuple[Integers, int]:
    """(int32 [n_out, height, width] within int16, its fractional bits). Raises StreamError for wrong shapes."""
    planes, bits = decode_planes(coded, height, width)
    return planes.astype(np.int32), bits


def decode_planes(coded: CodedCoolChic, height: int, width: int, threads: int = 1) -> tuple[NDArray[Any], int]:
    """The planes of decode_coolchic(), int16 from the compiled kernel, else int32, and their fractional bits.

    threads: the number that share the rows in the kernel; the result never depends on it.
    """
    planes, bits = _decoded(coded, height, width, threads)
    architecture = coded.architecture
    finest = architecture.latent_resolution[0]
    return enlarge(planes, finest, architecture.final_upsampling, height, width), bits


@dataclass(frozen=True, eq=False)
class Flow:
    """Motion int32 [n, h, w] with FLOW_BITS, x and y of each reference, per block of 2**log2 x 2**log2 pixels."""

    vectors: Integers
    log2: int

    def dense(self, height: int, width: int) -> Integers:
        """The vector of every pixel, int32 [n, height, width]."""
        return nearest(self.vectors, self.log2, height, width)


def decode_flow(coded: CodedCoolChic, height: int, width: int, threads: int = 1) -> Flow:
    """The planes of decode_coolchic() as a flow, rounded to FLOW_BITS. threads: as for decode_planes()."""
    planes, bits = _decoded(coded, height, width, threads)
    finest, method = coded.architecture.latent_resolution[0], coded.architecture.final_upsampling
    if method != "nearest":
        planes, finest = enlarge(planes, finest, method, height, width), 0
    if kernels.decode is not None:
        return Flow(kernels.decode.rounded(planes, bits - FLOW_BITS), finest)
    return Flow(shift_round(planes, bits - FLOW_BITS).astype(np.int32), finest)


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
    forms, plugins = _forms(coded, choose), build_plugins(coded.architecture)
    upsampling, synthesis = forms["upsampling"], forms["synthesis"]
    latents = _normal(coded, height, width)
    planes = upsampling(latents)
    check_integers("upsampling", plugins.upsampling.name, planes, (len(latents), *latents[0].shape))
    noise = _noise(upsampling.out_bits, coded, height, width)
    out = synthesis(planes if noise is None else np.concatenate((planes, noise)), upsampling.out_bits)
    check_integers("synthesis", plugins.synthesis.name, out, (coded.architecture.n_out, *latents[0].shape))
    by_name = plugins.by_name()
    scales = {n: check_scales(n, by_name[n].name, form, by_name[n].n_scales()) for n, form in forms.items()}
    return out, synthesis.out_bits, scales


def _decoded(coded: CodedCoolChic, height: int, width: int, threads: int) -> tuple[NDArray[Any], int]:
    """_dense() with the sent scales; int16, and without planes in between, where both modules have folded forms."""
    forms, plugins = _forms(coded, choose=False), build_plugins(coded.architecture)
    filters = None if kernels.decode is None else plugins.upsampling.folded(forms["upsampling"])
    layers = None if filters is None else plugins.synthesis.folded(forms["synthesis"], filters.out_bits)
    if filters is None or layers is None:
        out, bits, _ = _dense(coded, height, width, choose=False)
        return out, bits
    latents, noise = _normal(coded, height, width), _noise(filters.out_bits, coded, height, width)
    out = kernels.decode.dense(latents, *filters, noise, *layers, threads)
    return out, forms["synthesis"].out_bits


def _forms(coded: CodedCoolChic, choose: bool) -> dict[str, Any]:
    """The integer forms of upsampling and synthesis."""
    forms = {}
    plugins = build_plugins(coded.architecture).by_name()
    for name in ("upsampling", "synthesis"):
        plugin = plugins[name]
        scales = None if choose else sent_scales(coded.modules, name, plugin.n_scales())
        forms[name] = plugin.integer(fixed_parameters(coded.modules[name], plugin.tensors()), scales)
    return forms


def _normal(coded: CodedCoolChic, height: int, width: int) -> list[Integers]:
    """The latents that are upsampled."""
    grids = coded.architecture.grids(height, width)
    return [latent for latent, grid in zip(coded.latents, grids, strict=True) if not grid.is_hyper]


def _noise(bits: int, coded: CodedCoolChic, height: int, width: int) -> Integers | None:
    """The planes of common randomness with `bits` fractional bits; None without common randomness."""
    if not coded.architecture.common_randomness:
        return None
    noise, noise_bits = common_noise(coded.architecture, height, width)
    return saturate16(shift_round(noise, noise_bits - bits))


def _arm_scales(coded: CodedCoolChic, height: int, width: int) -> tuple[int, ...]:
    model = ContextModel(coded.architecture, coded.modules, height, width, choose=True)
    samples = [_sample(model.contexts(i, coded.latents)) for i in range(len(coded.latents))]
    return model.choose_scales(np.concatenate(samples).astype(np.int32))


def _sample(contexts: NDArray[np.int16]) -> NDArray[np.int16]:
    """All rows; of more than _CONTEXT_SAMPLE, half of these with the largest magnitudes, the others evenly spread."""
    if len(contexts) <= _CONTEXT_SAMPLE:
        return contexts
    half = _CONTEXT_SAMPLE // 2
    magnitude = np.abs(contexts.astype(np.int32)).sum(axis=1)
    largest = np.argpartition(magnitude, -half)[-half:]
    return np.concatenate((contexts[largest], contexts[:: -(-len(contexts) // half)]))
