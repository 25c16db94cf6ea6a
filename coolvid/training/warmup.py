"""The warm-up: several fresh models compete; the best one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coolvid.config import WarmupRound
from coolvid.types import Frame

from .loop import TrainingManager
from .train import train_phase

if TYPE_CHECKING:
    from coolvid.model.frame_encoder import FrameEncoder


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model in the competition, and its latest loss."""

    seed: int
    encoder: FrameEncoder
    loss: float


def compete(
    make: Callable[[int], FrameEncoder],
    frame: Frame,
    manager: TrainingManager,
    lmbda: float,
    rounds: Sequence[WarmupRound],
) -> FrameEncoder:
    """The winner. Round r trains the best rounds[r].candidates models of the round before; the first, fresh ones.

    make(seed) gives a fresh model; seeds count from 0. Of equal losses the lower seed wins. Without rounds: make(0).
    Afterwards manager.best_loss is the winner's.
    """
    if not rounds:
        return make(0)
    field = [Candidate(seed, make(seed), float("inf")) for seed in range(max(1, rounds[0].candidates))]
    for number, round_ in enumerate(rounds, 1):
        kept = field[: max(1, round_.candidates)]
        field = [_train(c, frame, manager, lmbda, round_, number) for c in kept]
        field.sort(key=lambda c: (c.loss, c.seed))
    manager.best_loss = field[0].loss
    return field[0].encoder


def _train(
    candidate: Candidate, frame: Frame, manager: TrainingManager, lmbda: float, round_: WarmupRound, number: int
) -> Candidate:
    name = f"warm-up {number}.{candidate.seed + 1}"
    encoder = train_phase(candidate.encoder, frame, manager, lmbda, round_.phase, name, warmup=True)
    assert manager.best_loss is not None
    return replace(candidate, encoder=encoder, loss=manager.best_loss)
