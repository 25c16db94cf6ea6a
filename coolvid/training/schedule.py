"""One frame from nothing to a trained model: motion start, warm-up, phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from coolvid.config import FrameConfig
from coolvid.types import Frame

from .loop import TrainingManager
from .motion_start import start_motion
from .train import train_phase
from .warmup import Heir, compete

if TYPE_CHECKING:
    from coolvid.model.frame_encoder import FrameEncoder


def train_frame(
    frame_encoder_factory: Callable[[int], FrameEncoder],
    frame: Frame,
    manager: TrainingManager,
    config: FrameConfig,
    heirs: Sequence[Heir] = (),
    network_bits: float = 0.0,
) -> FrameEncoder:
    """Train one frame by its configuration and return the best encoder (float networks, to be quantised next).

    frame_encoder_factory(i) makes a fresh encoder, the same each time for the same candidate i = 0, 1, ...; all
    else is deterministic. With a motion start, even candidates begin with motion that follows the optical flow.
    heirs, network_bits: models that inherit networks, and compete with the fresh ones (see compete()).
    Raises ConfigError, PluginError (motion estimator), TrainingError.
    """
    make = _with_motion_start(frame_encoder_factory, frame, manager, config)
    born = [replace(each, make=partial(_started, each.make, frame, manager, config)) for each in heirs]
    encoder = compete(make, frame, manager, config.lmbda, config.training.warmup, born, network_bits)
    for number, phase in enumerate(config.training.phases, 1):
        encoder = train_phase(encoder, frame, manager, config.lmbda, phase, f"phase {number}")
    return encoder


def _started(
    make: Callable[[], FrameEncoder], frame: Frame, manager: TrainingManager, config: FrameConfig
) -> FrameEncoder:
    """A model that inherits networks, its motion started as far as that is not inherited."""
    encoder = make()
    if config.motion is not None and config.training.motion_start:
        encoder.branches["motion"].set_param(start_motion(encoder, frame, manager, config))
    return encoder


def _with_motion_start(
    factory: Callable[[int], FrameEncoder], frame: Frame, manager: TrainingManager, config: FrameConfig
) -> Callable[[int], FrameEncoder]:
    """The factory, whose even candidates come with a motion branch trained beforehand."""
    if config.motion is None or config.training.motion_start == 0:
        return factory
    motion = start_motion(factory(0), frame, manager, config)

    def make(seed: int) -> FrameEncoder:
        encoder = factory(seed)
        if seed % 2 == 0:
            encoder.branches["motion"].set_param(motion)
        return encoder

    return make
