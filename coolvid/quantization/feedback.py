"""Rounding in which parameters make up for each other's errors, and for what they cost.

Babai's nearest plane (Combinatorica 6, 1986), as GPTQ has it for networks (arXiv 2210.17323): parameters become
integers one after the other, and those still to come move to where the loss is least, given the errors so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .steps import Floats

DAMPING = 1e-2
PASSES = 2
Integers64 = NDArray[np.int64]


class _Prices(NamedTuple):
    """Bits [n] of each difference to the target: of none, of one of 1 or -1, and what each further step adds."""

    zero: Floats
    one: Floats
    more: Floats

    @classmethod
    def like(cls, differences: Floats, tensors: NDArray[np.int64]) -> _Prices:
        """As if a tensor's differences that are not zero were two-sided geometric, with the mean magnitude of these."""
        zero, one, more = (np.zeros(len(differences)) for _ in range(3))
        for tensor in np.unique(tensors):
            own = tensors == tensor
            sizes = np.abs(differences[own])
            present = sizes[sizes > 0]
            chance = (present.size + 0.5) / (sizes.size + 1)
            stop = 1 / max(1.05, present.mean() if present.size else 1.0)
            zero[own] = -np.log2(1 - chance)
            one[own] = 1 - np.log2(chance * stop)
            more[own] = -np.log2(1 - stop)
        return cls(zero, one, more)


@dataclass(frozen=True, eq=False)
class FeedbackRounding:
    """exact [n]: a module's parameters. curvature [n, n]: second derivatives of the loss by them. tensors [n]: to which
    of its tensors each belongs. loss_per_bit: what a bit is worth."""

    exact: Floats
    curvature: Floats
    tensors: NDArray[np.int64]
    loss_per_bit: float

    def integers(self, steps: Floats, target: Integers64, price: float = 1.0) -> Integers64:
        """Multiples [n] of steps [n]. What rounds to target [n], which is cheap to send, becomes it first; the others
        follow, those first whose errors cost most. price: a factor for bits."""
        exact = self.exact / steps
        bends = self.curvature * np.outer(steps, steps)
        diagonal = bends.diagonal()
        bends = bends + np.diag(DAMPING * diagonal + 1e-6 * diagonal.mean() + 1e-300)
        stays = np.rint(exact) == target
        order = np.lexsort((-diagonal, ~stays))[::-1]
        factor = np.asarray(np.linalg.cholesky(bends[np.ix_(order, order)]).T, np.float64)
        chosen = np.rint(exact)
        for _ in range(PASSES):
            prices = _Prices.like(chosen - target, self.tensors)
            walk = _Walk(exact[order], target[order].astype(float), stays[order], factor)
            chosen[order] = walk.run(_Prices(*(part[order] * (price * self.loss_per_bit) for part in prices)))
        return chosen.astype(np.int64)


class _Walk(NamedTuple):
    """Parameters in steps, last first. factor [n, n]: upper, factor' factor the curvature."""

    exact: Floats
    target: Floats
    stays: NDArray[np.bool_]
    factor: Floats

    def run(self, prices: _Prices) -> Floats:
        """The integers [n] chosen."""
        pivots = self.factor.diagonal()
        rows = self.factor / pivots[:, None]
        halves = (pivots**2 / 2).tolist()
        errors, chosen = np.zeros(len(self.exact)), self.target.copy()
        exact, zero, one, more = (part.tolist() for part in (self.exact, *prices))
        for k in range(len(exact) - 1, -1, -1):
            if not self.stays[k]:
                wanted = exact[k] + float(rows[k, k + 1 :] @ errors[k + 1 :]) - float(self.target[k])
                chosen[k] += _cheapest(wanted, halves[k], zero[k], one[k], more[k])
            errors[k] = exact[k] - chosen[k]
        return chosen


def _cheapest(wanted: float, half: float, zero: float, one: float, more: float) -> float:
    """The difference to the target that costs least: the one nearest to wanted, the one before it, or none."""
    best, least = 0.0, half * wanted * wanted + zero
    nearest = float(round(wanted))
    for size in (abs(nearest), abs(nearest) - 1):
        cost = half * (abs(wanted) - size) ** 2 + one + more * (size - 1)
        if size > 0 and cost < least:
            best, least = size, cost
    return best if wanted > 0 else -best
