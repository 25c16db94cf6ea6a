"""Rounding in which parameters compensate for each other's errors, weighed against their bits.

Babai's nearest plane (Combinatorica 6, 1986), as in GPTQ for networks (arXiv 2210.17323): parameters become
integers one after the other, and the remaining ones move to the minimum of the loss, given the errors so far. Linear
algebra uses torch, because numpy would start its own threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .steps import Floats

DAMPING = 1e-2
PASSES = 2
WIDTH = 32
Integers64 = NDArray[np.int64]


class _Prices(NamedTuple):
    """Bits [n] per difference: of 0, of 1 or -1, and of each further step."""

    zero: Floats
    one: Floats
    more: Floats

    @classmethod
    def like(cls, differences: Floats, tensors: NDArray[np.int64]) -> _Prices:
        """Prices if each tensor's nonzero differences were two-sided geometric, with the mean magnitude of these."""
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
    """exact [n]: a module's parameters. curvature [n, n]: second derivatives of the loss with respect to them.
    tensors [n]: index of each parameter's tensor. loss_per_bit: loss per bit of rate."""

    exact: Floats
    curvature: Floats
    tensors: NDArray[np.int64]
    loss_per_bit: float

    def integers(self, steps: Floats, target: Integers64, lengths: Integers64) -> Integers64:
        """Multiples [n] of steps [n] whose differences from target [n], which is cheap to send, are multiples of
        lengths [n]. Parameters that round to the target are set to it first; then the most costly errors first."""
        differences = _Differences.of(self, self.exact - target * steps, steps * lengths, False)
        return target + lengths * differences.rounded(1.0, 1)

    def thorough(
        self, steps: Floats, target: Integers64, lengths: Integers64, prices: Iterable[float]
    ) -> Iterator[Integers64]:
        """integers() at these multiples of the bit price, in a better order, with a beam of WIDTH."""
        differences = _Differences.of(self, self.exact - target * steps, steps * lengths, True)
        for price in prices:
            yield target + lengths * differences.rounded(price, WIDTH)


@dataclass(frozen=True, eq=False)
class _Differences:
    """Parameters during rounding. exact [n]: in steps. order [n]: last to first, with those that stay 0 at the end.
    n_free: number of the others. factor [n, n]: upper triangular; factor' factor is the curvature, in this order."""

    source: FeedbackRounding
    exact: Floats
    order: Integers64
    n_free: int
    factor: Floats

    @classmethod
    def of(cls, source: FeedbackRounding, values: Floats, steps: Floats, in_best_order: bool) -> _Differences:
        exact = values / steps
        bends = source.curvature * np.outer(steps, steps)
        diagonal = bends.diagonal()
        bends = bends + np.diag(DAMPING * diagonal + 1e-6 * diagonal.mean() + 1e-300)
        stays = np.rint(exact) == 0
        order = np.lexsort((-diagonal, ~stays))[::-1]
        n_free = int((~stays).sum())
        if in_best_order:
            free = order[:n_free]
            order = np.concatenate([free[_least_first(bends[np.ix_(free, free)])], order[n_free:]])
        factor = torch.linalg.cholesky(torch.from_numpy(bends[np.ix_(order, order)])).numpy().T
        return cls(source, exact, order, n_free, factor)

    def rounded(self, price: float, width: int) -> Integers64:
        """The integers [n]. price: a factor for bits."""
        plane = _NearestPlane(self.exact[self.order], self.n_free, self.factor)
        chosen = np.rint(self.exact)
        for _ in range(PASSES):
            prices = _Prices.like(chosen, self.source.tensors)
            scaled = _Prices(*(part[self.order] * (price * self.source.loss_per_bit) for part in prices))
            chosen[self.order] = plane.run(scaled) if width == 1 else plane.run_wide(scaled, width)
        return chosen.astype(np.int64)


def _least_first(matrix: Floats) -> Integers64:
    """Order that makes the pivots of a Cholesky factor most alike: always the smallest that is left (sorted QR, Wübben
    et al., Electronics Letters 37, 2001). Nothing compensates for the last parameter's error, so it should cost little.
    """
    n, given = len(matrix), torch.from_numpy(matrix)
    columns, left = torch.zeros(n, n, dtype=torch.float64), given.diagonal().clone()
    order = np.empty(n, np.int64)
    for i in range(n):
        order[i] = k = int(left.argmin())
        column = given[k] - columns[:i].T @ columns[:i, k]
        columns[i] = column / math.sqrt(float(column[k]))
        left -= columns[i] ** 2
        left[k] = math.inf
    return order


class _NearestPlane(NamedTuple):
    """Parameters in steps, last to first; those from n_free on become 0. factor [n, n]: upper triangular;
    factor' factor is the curvature."""

    exact: Floats
    n_free: int
    factor: Floats

    def run(self, prices: _Prices) -> Floats:
        """The integers [n], each the cheapest at its turn."""
        pivots = self.factor.diagonal()
        rows = self.factor / pivots[:, None]
        halves = (pivots**2 / 2).tolist()
        errors = self.exact.copy()
        exact, zero, one, more = (part.tolist() for part in (self.exact, *prices))
        for k in range(self.n_free - 1, -1, -1):
            wanted = exact[k] + float(rows[k, k + 1 :] @ errors[k + 1 :])
            errors[k] = exact[k] - _cheapest(wanted, halves[k], zero[k], one[k], more[k])
        return np.rint(self.exact - errors)

    def run_wide(self, prices: _Prices, width: int) -> Floats:
        """The same with a beam of the `width` cheapest prefixes (the M-algorithm)."""
        pivots = self.factor.diagonal()
        rows = self.factor / pivots[:, None]
        errors, costs = self.exact[None].copy(), np.zeros(1)
        for k in range(self.n_free - 1, -1, -1):
            wanted = self.exact[k] + np.einsum("ij,j->i", errors[:, k + 1 :], rows[k, k + 1 :])
            below = np.floor(np.abs(wanted))
            sizes = np.stack([np.zeros_like(below), below, below + 1])
            bits = np.where(sizes > 0, prices.one[k] + prices.more[k] * (sizes - 1), prices.zero[k])
            total = costs + pivots[k] ** 2 / 2 * (np.abs(wanted) - sizes) ** 2 + bits
            total[1, below == 0] = np.inf  # duplicate of the previous one
            best = np.argsort(total, axis=None, kind="stable")[: min(width, int(np.isfinite(total).sum()))]
            which, parent = np.divmod(best, len(costs))
            errors, costs = errors[parent], total.ravel()[best]
            errors[:, k] = self.exact[k] - np.copysign(sizes[which, parent], wanted[parent])
        chosen: Floats = np.rint(self.exact - errors[0])
        return chosen


def _cheapest(wanted: float, half: float, zero: float, one: float, more: float) -> float:
    """The integer with the least cost: the nearest to wanted, the one next to it toward 0, or 0."""
    best, least = 0.0, half * wanted * wanted + zero
    nearest = float(round(wanted))
    for size in (abs(nearest), abs(nearest) - 1):
        cost = half * (abs(wanted) - size) ** 2 + one + more * (size - 1)
        if size > 0 and cost < least:
            best, least = size, cost
    return best if wanted > 0 else -best
