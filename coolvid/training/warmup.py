"""The warm-up: several models compete, fresh ones and such that inherit networks; the best one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from coolvid.config import WarmupRound
from coolvid.types import Frame

from .loop import TrainingManager
from .train import evaluate, train_phase

if TYPE_CHECKING:
    from coolvid.model.frame_encoder import FrameEncoder


@dataclass(frozen=True)
class Heir:
    """Makes a model that inherits networks; network_bits: what those that it will send may be expected to cost."""

    make: Callable[[], FrameEncoder]
    network_bits: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model in the competition, what its networks may cost, and its latest loss."""

    seed: int
    encoder: FrameEncoder
    network_bits: float
    loss: float


def compete(
    make: Callable[[int], FrameEncoder],
    frame: Frame,
    manager: TrainingManager,
    lmbda: float,
    rounds: Sequence[WarmupRound],
    heirs: Sequence[Heir] = (),
    network_bits: float = 0.0,
) -> FrameEncoder:
    """The winner. Round r trains the best rounds[r].candidates models of the round before; the first, so many fresh
    models and all heirs.

    make(seed) gives a fresh model; seeds count from 0. Where there are heirs, what counts is distortion + lmbda * bits
    per pixel, with the expected bits of the networks (network_bits for a fresh model); else the validation loss. Equal
    losses: the lower seed, heirs last. Without rounds: make(0). Afterwards manager.best_loss is the winner's.
    """
    if not rounds:
        return make(0)
    n_fresh = max(1, rounds[0].candidates)
    entrants = [*(Heir(partial(make, seed), network_bits) for seed in range(n_fresh)), *heirs]
    field = [Candidate(seed, each.make(), each.network_bits, float("inf")) for seed, each in enumerate(entrants)]
    for number, round_ in enumerate(rounds, 1):
        kept = field if number == 1 else field[: max(1, round_.candidates)]
        field = [_train(c, frame, manager, lmbda, round_, number) for c in kept]
        if heirs:
            field = [replace(c, loss=_price(c, frame, lmbda)) for c in field]
        field.sort(key=lambda c: (c.loss, c.seed))
    manager.best_loss = field[0].loss
    return field[0].encoder


def _price(candidate: Candidate, frame: Frame, lmbda: float) -> float:
    """Loss, with what the networks may be expected to cost."""
    bits_per_pixel = candidate.network_bits / (frame.height * frame.width)
    return evaluate(candidate.encoder, frame, lmbda).loss + lmbda * bits_per_pixel


def _train(
    candidate: Candidate, frame: Frame, manager: TrainingManager, lmbda: float, round_: WarmupRound, number: int
) -> Candidate:
    name = f"warm-up {number}.{candidate.seed + 1}"
    encoder = train_phase(candidate.encoder, frame, manager, lmbda, round_.phase, name, warmup=True)
    assert manager.best_loss is not None
    return replace(candidate, encoder=encoder, loss=manager.best_loss)
