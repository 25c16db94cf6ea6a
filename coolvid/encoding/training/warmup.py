"""The warm-up: several fresh models compete; the best one is trained on.

Where latents of the finest grid and of the next could both carry a picture's details, the first iterations decide which
of them does, and training stays with it; which is cheaper depends on the picture. So every second candidate gives the
coarser grids a start: its finest grid is left out at first (a coarse start). Coarse starts are mostly ahead early on,
also where they lose, so that they have to be ahead by a margin (docs/experiments/coarse-start.md).
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
    """A model in the competition, whether it had a coarse start, and its latest loss."""

    seed: int
    encoder: FrameEncoder
    is_coarse: bool
    loss: float = float("inf")

    @property
    def rank(self) -> tuple[float, int]:
        """The lower, the better: the loss expected in the end, and the seed."""
        return self.loss * (COARSE_HANDICAP if self.is_coarse else 1.0), self.seed


def compete(
    make: Callable[[int], FrameEncoder],
    objective: Objective,
    manager: TrainingManager,
    rounds: Sequence[WarmupRound],
    coarse_start: int = 0,
) -> FrameEncoder:
    """The winner. Round r trains the best rounds[r].candidates models of the round before; the first, fresh ones.

    make(seed) gives a fresh model; seeds count from 0. Of equal losses the lower seed wins. Without rounds: make(0).
    coarse_start: iterations that candidates with odd seeds train before the first round without the finest grid of the
    residue (0: none); where it is over, they are better if their loss times COARSE_HANDICAP is less.
    Afterwards manager.best_loss is the winner's.
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
