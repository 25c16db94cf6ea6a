"""Warm-up: several fresh models compete, and training continues with the best.

If latents of the finest and of the next grid can both carry a picture's details, the first iterations decide between
them, and training does not change it later. Which grid is cheaper depends on the picture. So every second candidate
gets a coarse start: it first trains without the finest grid. Early on, coarse starts usually have the lower loss,
even if they lose in the end, so they must win by a margin (docs/experiments/coarse-start.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coolvid.encoding.objective import Objective
from coolvid.settings.config import Phase, WarmupRound

from .loop import TrainingManager
from .train import is_basic, train_phase

if TYPE_CHECKING:
    from coolvid.encoding.model.frame_encoder import FrameEncoder

COARSE_HANDICAP = 1.08


@dataclass(frozen=True, eq=False)
class Candidate:
    """A competing model, whether it had a coarse start, and its latest loss."""

    seed: int
    encoder: FrameEncoder
    is_coarse: bool
    loss: float = float("inf")

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key, lower is better: the expected final loss, then the seed."""
        return self.loss * (COARSE_HANDICAP if self.is_coarse else 1.0), self.seed


def compete(
    make: Callable[[int], FrameEncoder],
    objective: Objective,
    manager: TrainingManager,
    rounds: Sequence[WarmupRound],
    coarse_start: int = 0,
) -> FrameEncoder:
    """The winner. Round r trains the best rounds[r].candidates models of the previous round; round 0 trains fresh ones.

    make(seed) returns a fresh model; seeds count from 0. On equal losses the lower seed wins. Without rounds: make(0).
    coarse_start: iterations that candidates with odd seeds train without the finest residue grid before the first
    round (0: none). Their losses then count times COARSE_HANDICAP. Sets manager.best_loss to the winner's loss.
    """
    if not rounds:
        return make(0)
    seeds = range(rounds[0].candidates)
    field = [Candidate(seed, make(seed), coarse_start > 0 and seed % 2 == 1) for seed in seeds]
    for each in field:
        if each.is_coarse:
            _start_coarse(each, objective, manager, replace(rounds[0].phase, max_iterations=coarse_start))
    for number, round_ in enumerate(rounds, 1):
        field = [_train(c, objective, manager, round_, number) for c in field[: round_.candidates]]
        field.sort(key=lambda c: c.rank)
    manager.best_loss = field[0].loss
    return field[0].encoder


def _start_coarse(candidate: Candidate, objective: Objective, manager: TrainingManager, phase: Phase) -> None:
    """Train all but the finest grid of the residue."""
    trained = tuple(name for name in candidate.encoder.named_groups() if is_basic(name) and name != "residue.latents")
    settings = replace(phase, optimized_module=trained)
    train_phase(candidate.encoder, objective, manager, settings, f"coarse start {candidate.seed + 1}", warmup=True)


def _train(
    candidate: Candidate, objective: Objective, manager: TrainingManager, round_: WarmupRound, number: int
) -> Candidate:
    name = f"warm-up {number}.{candidate.seed + 1}"
    encoder = train_phase(candidate.encoder, objective, manager, round_.phase, name, warmup=True)
    assert manager.best_loss is not None
    return replace(candidate, encoder=encoder, loss=manager.best_loss)
