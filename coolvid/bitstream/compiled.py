"""Latents decoded by the compiled kernel, for context models of linear layers.

latents.py, rans.py and laplace.py define the format; the kernel gives the same latents and the same errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.architecture import NEIGHBOURS, Grid, wave_delay
from coolvid.codec.fixed_point import FoldedModel, Integers
from coolvid.codec.laplace import tables

from .rans import no_escape, out_of_range, wrong_end


class Foldable(Protocol):
    """A context model that may have a form for the compiled kernel."""

    def folded(self) -> FoldedModel | None:
        """The model as linear layers; None where it cannot be written as such."""
        ...


def folded(model: Foldable) -> FoldedModel | None:
    """The model in the kernel's form; None where there is no kernel or the model has no such form."""
    return None if kernels.decode is None else model.folded()


def decode_latents(
    parts: Sequence[bytes], grids: Sequence[Grid], present: Sequence[bool], n_context: int, model: FoldedModel
) -> tuple[Integers, ...]:
    """Latents int32 [h, w] of all grids, finest first. Raises StreamError."""
    fault, value, latents = kernels.decode.latents(
        parts=list(parts),
        starts=_starts(),
        shifts=tables().shifts,
        neighbours=list(NEIGHBOURS[:n_context]),
        n_features=model.n_features,
        delay=wave_delay(n_context),
        hidden=model.hidden,
        output=model.output,
        stabiliser=model.stabiliser,
        grids=[(*g.shape, g.log2, p, m) for g, p, m in zip(grids, present, model.maps, strict=True)],
    )
    if fault:
        raise (out_of_range(value), no_escape(), wrong_end())[fault - 1]
    return tuple(latents)


@cache
def _starts() -> NDArray[np.uint16]:
    """The cumulative frequency before each symbol, uint16 [rows, 64]."""
    return tables().starts.astype(np.uint16)
