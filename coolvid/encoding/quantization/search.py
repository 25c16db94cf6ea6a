"""Search for a module's two steps: all pairs, or a descent that evaluates few of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

Pair = tuple[int, int]
LossOf = Callable[[int, int], float]

# Moves of a descent, tried in this order: coarser first, both steps together last.
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1))
_SCAN_STRIDE = 2
_STRIDES = (2, 1)


def search_pair(ranges: tuple[range, range], loss_of: LossOf, method: str, start: Pair) -> tuple[Pair, float]:
    """The pair (weight shift, bias shift) with the least loss that the method finds, and its loss.

    loss_of returns inf for pairs that cannot be represented; if all are inf, so is the returned loss. Ties go to the
    coarser pair. method: "full" or "descent" (see TrainingConfig.step_search). start: a typical pair. A descent first
    scans pairs with the same difference as start, then descends, and finally scans both axes.
    """
    if method == "full":
        return _least(loss_of, product(*ranges))
    known: dict[Pair, float] = {}

    def remembered(weight: int, bias: int) -> float:
        if (weight, bias) not in known:
            known[weight, bias] = loss_of(weight, bias)
        return known[weight, bias]

    best, _ = _least(remembered, _diagonal(ranges, start))
    for stride in _STRIDES:
        best = _descend(ranges, remembered, best, stride)
    best, _ = _least(remembered, [*product(ranges[0], best[1:]), *product(best[:1], ranges[1])])
    best = _descend(ranges, remembered, best, 1)
    return best, remembered(*best)


def _least(loss_of: LossOf, pairs: Iterable[Pair]) -> tuple[Pair, float]:
    """The first pair with the least loss."""
    best, least = (0, 0), math.inf
    for pair in pairs:
        loss = loss_of(*pair)
        if loss < least:
            best, least = pair, loss
    return best, least


def _diagonal(ranges: tuple[range, range], start: Pair) -> list[Pair]:
    """Every second pair with the same difference as start, inside the ranges, coarse to fine; (0, 0) before them."""
    weights, biases = ranges
    offset = start[1] - start[0]
    longest = max(len(weights), len(biases))
    clipped = ((min(i, weights[-1]), min(max(i + offset, 0), biases[-1])) for i in range(0, longest, _SCAN_STRIDE))
    return list(dict.fromkeys([(0, 0), *clipped]))


def _descend(ranges: tuple[range, range], loss_of: LossOf, best: Pair, stride: int) -> Pair:
    """From best, walk along every move as long as the loss falls, until no move lowers it."""
    moved = True
    while moved:
        before = best
        for move in _MOVES:
            best = _walk(ranges, loss_of, best, (move[0] * stride, move[1] * stride))
        moved = best != before
    return best


def _walk(ranges: tuple[range, range], loss_of: LossOf, best: Pair, move: Pair) -> Pair:
    while True:
        trial = best[0] + move[0], best[1] + move[1]
        if trial[0] not in ranges[0] or trial[1] not in ranges[1]:
            return best
        gain = loss_of(*best) - loss_of(*trial)
        if not (gain > 0 or (gain == 0 and sum(move) < 0)):
            return best
        best = trial
