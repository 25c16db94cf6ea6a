"""Rate-distortion optimization of single parameter integers: +-1, +-2, ... while the loss falls.

Every trial costs a forward pass of what the parameter affects, so trials are selected. To first order, and exactly
where the loss is convex along one parameter, a step can help only if slope * step + lmbda * extra bits per pixel is
negative. If these exceed the work limit, only the most promising are tried. Their order is random, from a fixed seed,
so the same model gives the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective

from .evaluate import FrameLoss
from .state import QuantizedModule

SEED = 0
# Multiplications per module and round, about five seconds on one core.
WORK_LIMIT = 2e10
MIN_TRIALS = 64


@dataclass
class _Descent:
    """A module's integers during the descent. values [n]: all parameters, flat, in stream order. lengths [n]: size of
    each one's moves."""

    module: QuantizedModule
    loss: FrameLoss
    values: NDArray[np.int64]
    lengths: NDArray[np.int64]
    least: float

    @classmethod
    def start(cls, loss: FrameLoss, name: str) -> _Descent:
        module = QuantizedModule.of(loss.coolchic(name), name)
        loss.settle(name)
        return cls(module, loss, module.flat(), module.lengths(), loss.total(module))

    def move(self, index: int, direction: int) -> bool:
        """Move one integer by its length if the loss falls, else change nothing."""
        trial = self.values.copy()
        trial[index] += direction * self.lengths[index]
        moved = self.module.with_flat(trial)
        if moved is None:
            return False
        self.loss.load(moved)
        total = self.loss.total(moved)
        if total < self.least:
            self.values, self.least, self.module = trial, total, moved
            return True
        self.loss.load(self.module)
        return False


def rdo_parameters(frame_encoder: FrameEncoder, objective: Objective, rounds: int) -> FrameEncoder:
    """The quantized frame encoder, its integers improved in place. The loss never rises (codec.md, section 4).

    rounds: passes over all modules; stops early if a pass changes nothing. Raises ConfigError before quantization.
    """
    loss = FrameLoss(frame_encoder, objective)
    random = np.random.default_rng(SEED)
    for _ in range(rounds):
        if not sum(_refine(loss, name, random) for name in loss.modules):
            break
    return frame_encoder


def _refine(loss: FrameLoss, name: str, random: np.random.Generator) -> int:
    """One pass over a module. Returns the number of changed parameters."""
    descent = _Descent.start(loss, name)
    changed = 0
    for index, direction in _promising(loss, descent, random):
        moved = False
        while descent.move(index, direction):
            moved = True
        changed += moved
    descent.module.record(loss.coolchic(name))
    return changed


def _promising(loss: FrameLoss, descent: _Descent, random: np.random.Generator) -> list[tuple[int, int]]:
    """(index, direction) of the trials worth trying, in random order."""
    n = descent.values.size
    if not n:
        return []
    slope = loss.slope(descent.module) * descent.lengths
    changes = [descent.module.extra_bits(by) * loss.loss_per_bit + slope * by for by in (-1, 1)]
    gains = -np.concatenate(changes)
    limit = max(MIN_TRIALS, int(WORK_LIMIT / loss.work(descent.module.name)))
    order = np.argsort(-gains, kind="stable")[:limit]
    chosen = random.permutation(order[gains[order] > 0])
    return [(int(i % n), -1 if i < n else 1) for i in chosen]
