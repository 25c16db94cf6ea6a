"""Training of one frame from start to end: motion start, warm-up, phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from coolvid.encoding.objective import Objective
from coolvid.settings.config import FrameConfig

from .loop import TrainingManager
from .motion_start import start_motion
from .train import train_phase
from .warmup import compete

if TYPE_CHECKING:
    from coolvid.encoding.model.frame_encoder import FrameEncoder


def train_frame(
    frame_encoder_factory: Callable[[int], FrameEncoder],
    objective: Objective,
    manager: TrainingManager,
    config: FrameConfig,
    is_trained: bool = False,
) -> FrameEncoder:
    """Train one frame by its configuration and return the best encoder (float networks, not yet quantized).

    frame_encoder_factory(i) returns a new encoder, always the same for the same candidate i = 0, 1, ...; everything
    else is deterministic. is_trained: the networks come from a similar frame. Then there is no warm-up, because there
    is nothing to choose from, and learning rates are multiplied by inherit_lr_scale. With a motion start, the motion
    branch first learns the optical flow. Motion start and warm-up minimize mean squared error, whatever the distortion.
    Raises ConfigError, PluginError (motion estimator), TrainingError.
    """
    start = objective.squared
    if is_trained:
        encoder = _started(frame_encoder_factory(0), start, manager, config)
    else:
        make = _with_motion_start(frame_encoder_factory, start, manager, config)
        encoder = compete(make, start, manager, config.training.warmup, config.training.coarse_start)
    scale = config.training.inherit_lr_scale if is_trained else 1.0
    for number, phase in enumerate(config.training.phases, 1):
        settings = replace(phase, start_lr=phase.start_lr * scale)
        encoder = train_phase(encoder, objective, manager, settings, f"phase {number}")
    return encoder


def _started(
    encoder: FrameEncoder, objective: Objective, manager: TrainingManager, config: FrameConfig
) -> FrameEncoder:
    """The encoder, after the motion start if there is one."""
    if config.motion is not None and config.training.motion_start:
        encoder.branches["motion"].set_param(start_motion(encoder, objective, manager, config))
    return encoder


def _with_motion_start(
    factory: Callable[[int], FrameEncoder], objective: Objective, manager: TrainingManager, config: FrameConfig
) -> Callable[[int], FrameEncoder]:
    """The factory, with a pretrained motion branch in each candidate."""
    if config.motion is None or config.training.motion_start == 0:
        return factory
    motion = start_motion(factory(0), objective, manager, config)

    def make(seed: int) -> FrameEncoder:
        encoder = factory(seed)
        encoder.branches["motion"].set_param(motion)
        return encoder

    return make
