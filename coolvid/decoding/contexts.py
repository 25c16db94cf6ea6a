"""Integer context model of the entropy coder: IFCE features and the ARM, for one Cool-chic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import NEIGHBOURS, Architecture, Grid
from coolvid.codec.coded_frame import CodedModule
from coolvid.codec.fixed_point import (
    CONTEXT_BITS,
    INT16_MAX,
    INT16_MIN,
    FixedPoint,
    Folded,
    FoldedModel,
    Integers,
    align_bias,
    fit_weights,
    folded,
    matmul_exact,
    saturate16,
    shift_round,
)
from coolvid.plugin.contract import check_integers, check_scales
from coolvid.plugin.modules import build_plugins, ifce_tensors

from .parameters import fixed_parameters, sent_scales

_REACH = 4
_LEAST_SHIFT = 8


class ContextModel:
    """The entropy model of one Cool-chic: contexts from coarser grids, and the Laplace parameters of contexts.

    choose: the ARM chooses its scales from the first contexts it is called with (encoder side), instead of those sent.
    Raises StreamError for parameters that do not fit the architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        modules: Mapping[str, CodedModule],
        height: int,
        width: int,
        choose: bool = False,
    ) -> None:
        arm = build_plugins(architecture).arm
        scales = None if choose else sent_scales(modules, "arm", arm.n_scales())
        self.n_context = architecture.n_context
        self.n_ifce = architecture.n_ifce
        self.grids: tuple[Grid, ...] = architecture.grids(height, width)
        self.plugin = arm
        self.arm = arm.integer(fixed_parameters(modules["arm"], arm.tensors()), scales)
        self._levels = {level: i for i, level in enumerate(architecture.ifce_levels)}
        self._maps = fixed_parameters(modules["ifce"], ifce_tensors(architecture)) if self._levels else {}

    def features(self, index: int, latents: Sequence[Integers]) -> Integers:
        """IFCE contexts int32 [n_ifce, h, w] within int16 of grid `index`, from the coarser grids of `latents`."""
        grid = self.grids[index]
        number = self._levels.get((grid.log2, grid.is_hyper))
        if number is None:
            return np.zeros((self.n_ifce, *grid.shape), np.int32)
        stack = self._coarser(grid, latents)
        features = _linear(self._maps[f"maps.{number}.weight"], self._maps[f"maps.{number}.bias"], stack)
        return nearest(features, 1, *grid.shape)

    def folded(self) -> FoldedModel | None:
        """The model as the compiled decoder takes it; None for an ARM without that form."""
        arm = self.plugin.folded(self.arm)
        if arm is None:
            return None
        numbers = (self._levels.get((grid.log2, grid.is_hyper)) for grid in self.grids)
        maps = tuple(None if n is None else self._folded_map(n) for n in numbers)
        return FoldedModel(*arm, self.n_ifce, maps)

    def _folded_map(self, number: int) -> Folded:
        weight = fit_weights(self._maps[f"maps.{number}.weight"], least=_LEAST_SHIFT)
        return folded(weight, self._maps[f"maps.{number}.bias"], 0, CONTEXT_BITS)

    def choose_scales(self, contexts: Integers) -> tuple[int, ...]:
        """The ARM's scales, chosen from contexts int32 [N, n_context + n_ifce]."""
        self.plugin.choose_scales(self.arm, contexts)
        return check_scales("arm", self.plugin.name, self.arm, self.plugin.n_scales())

    def laplace(self, contexts: Integers) -> Integers:
        """(mu, raw log scale) int32 [N, 2] with ARM_OUT_BITS of contexts int32 [N, n_context + n_ifce]."""
        out: Integers = self.arm(contexts)
        check_integers("arm", self.plugin.name, out, (len(contexts), 2))
        return out

    def contexts(self, index: int, latents: Sequence[Integers]) -> NDArray[np.int16]:
        """All contexts [h * w, n_context + n_ifce] of grid `index`, rows in raster order."""
        height, width = self.grids[index].shape
        out = np.empty((self.n_context + self.n_ifce, height, width), np.int16)
        padded = np.pad(latent_context(latents[index]), _REACH)
        for i, (dy, dx) in enumerate(NEIGHBOURS[: self.n_context]):
            top, left = _REACH + dy, _REACH + dx
            out[i] = padded[top : top + height, left : left + width]
        out[self.n_context :] = self.features(index, latents)
        return np.ascontiguousarray(out.reshape(len(out), -1).T)

    def _coarser(self, grid: Grid, latents: Sequence[Integers]) -> Integers:
        """All coarser grids at the next coarser resolution, finest first, int32 [n, h, w]; one zero plane if none."""
        shape = (grid.height + 1) // 2, (grid.width + 1) // 2
        planes = [
            nearest(np.clip(latents[i], INT16_MIN, INT16_MAX), other.log2 - grid.log2 - 1, *shape)
            for i, other in enumerate(self.grids)
            if other.log2 > grid.log2
        ]
        return np.stack(planes) if planes else np.zeros((1, *shape), np.int32)


def latent_context(latent: Integers) -> Integers:
    """Latents as contexts: CONTEXT_BITS fractional bits, saturated to int16."""
    return saturate16(shift_round(latent, -CONTEXT_BITS))


def nearest(plane: NDArray[np.int32], log2: int, height: int, width: int) -> Integers:
    """Each value repeated 2**log2 times along the last two axes, cropped to height x width."""
    rows, columns = np.arange(height) >> log2, np.arange(width) >> log2
    return plane[..., rows[:, None], columns]


def _linear(weight: FixedPoint, bias: FixedPoint, stack: Integers) -> Integers:
    """IFCE map of whole numbers [n, h, w] -> int32 [n_out, h, w] within int16, CONTEXT_BITS fractional bits."""
    fitted = fit_weights(weight, least=_LEAST_SHIFT)
    accumulator = matmul_exact(fitted.values, stack.reshape(len(stack), -1))
    accumulator += align_bias(bias, fitted.shift)[:, None]
    return saturate16(shift_round(accumulator, fitted.shift - CONTEXT_BITS)).reshape(-1, *stack.shape[1:])
