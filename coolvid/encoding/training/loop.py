"""The loop of every phase: optimize, validate, keep the best parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from coolvid.errors import TrainingError
from coolvid.plugin.interfaces import TrainingState
from coolvid.settings.config import Phase

from .fused import FusedLoss
from .optimizers import Optimizers, cosine_lr

RAMP = 10
LATENTS = (".latents", ".coarse")


class TrainingManager(Protocol):
    """The part of FrameEncoderManager that training uses: counters that it advances, and a progress callback.

    total_training_time_sec, iterations_counter: of the frame so far. best_loss: validation loss of the encoder that the
    last train() returned. Training calls progress() at each validation, after it updates iterations_counter; the
    argument iteration counts within the phase.
    """

    total_training_time_sec: float
    iterations_counter: int
    best_loss: float | None

    def progress(self, phase: str, iteration: int, loss: float, psnr_db: float, rate_bpp: float) -> None: ...


@dataclass
class Counters:
    """Minimal manager for train() and quantize_model(): counts, and ignores progress."""

    lmbda: float = 1e-3
    total_training_time_sec: float = 0.0
    iterations_counter: int = 0
    best_loss: float | None = None

    def progress(self, phase: str, iteration: int, loss: float, psnr_db: float, rate_bpp: float) -> None:
        """Ignored."""


@dataclass(frozen=True)
class Validation:
    """loss: the minimized value. psnr_db: over all samples. rate_bpp: latents and networks, bits per pixel."""

    loss: float
    psnr_db: float
    rate_bpp: float


class Task(Protocol):
    """An optimization problem. groups: parameters of each module, by name. Adam trains LATENTS, SOAP the rest.

    is_fresh: untrained, so that large first steps are safe. fused: loss() and its gradient without autograd, or None.
    distortion_name: of the plugin that measures it, "" for squared errors.
    """

    module: nn.Module
    groups: Mapping[str, Sequence[Tensor]]
    is_fresh: bool
    distortion_name: str

    @property
    def fused(self) -> FusedLoss | None: ...

    def get_param(self) -> Any: ...

    def set_param(self, param: Any) -> None: ...

    def loss(self, settings: Phase, temperature: float, noise_parameter: float, state: TrainingState) -> Tensor: ...

    def validate(self) -> Validation: ...


def optimize(task: Task, settings: Phase, manager: TrainingManager, name: str, warmup: bool = False) -> Validation:
    """Run one phase. Restores the parameters of the best validation into the task and returns that validation.

    Raises TrainingError when a validation is not finite; the task then holds its best parameters so far.
    """
    started = time.monotonic()
    try:
        with only_trainable(task):
            best = PhaseRun(task, settings, manager, name, warmup).run()
    finally:
        manager.total_training_time_sec += time.monotonic() - started
    manager.best_loss = best.loss
    return best


class PhaseRun:
    """State of one phase in progress: optimizers, and the best validation so far.

    waiting_since: the iteration of that validation, or of the restart after it.
    """

    def __init__(self, task: Task, settings: Phase, manager: TrainingManager, name: str, warmup: bool) -> None:
        self.task, self.settings, self.manager, self.name = task, settings, manager, name
        self.fused = task.fused
        latents, weights = _split(task.groups)
        self.optimizers = Optimizers(weights, latents, settings.start_lr, warmup)
        self.n_iterations = settings.max_iterations if weights or latents else 0
        self.best: Validation | None = None
        self.best_param: Any = None
        self.waiting_since = 0
        self.counted = 0

    def run(self) -> Validation:
        best, done = self.validate(0), 0
        while done < self.n_iterations:
            self.step(done)
            done += 1
            if done % self.settings.frequency_validation == 0 or done == self.n_iterations:
                before, best = best.loss, self.validate(done)
                self.shorten(done, before - best.loss)
                if done - self.waiting_since >= self.settings.patience:
                    if not self.settings.cosine_scheduling_lr:
                        break
                    self.restart(done)
        self.task.set_param(self.best_param)
        return best

    def step(self, i: int) -> None:
        s = self.settings
        progress = i / max(1, self.n_iterations - 1)
        state = TrainingState(i, self.n_iterations)
        given = s, linear(s.softround_temperature, progress), linear(s.noise_parameter, progress), state
        if self.fused is not None:
            self.fused.differentiate(*given)
        elif not self.differentiate(*given):
            return
        self.optimizers.step(self.lr(i))

    def differentiate(self, settings: Phase, temperature: float, noise_parameter: float, state: TrainingState) -> bool:
        """Gradients of the loss by autograd. False if the loss does not depend on any trained parameter."""
        self.optimizers.zero_grad()
        loss = self.task.loss(settings, temperature, noise_parameter, state)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.requires_grad

    def lr(self, i: int) -> float:
        """Constant or cosine. For a trained model it starts low, while the optimizers estimate the second moments."""
        s = self.settings
        lr = cosine_lr(s.start_lr, i, self.n_iterations) if s.cosine_scheduling_lr else s.start_lr
        return lr if self.task.is_fresh else lr * min(1.0, (i + 1) / RAMP)

    def validate(self, done: int) -> Validation:
        """Validate; keep the parameters if they are the best so far. Returns the best validation."""
        with evaluation(self.task.module):
            measured = self.task.validate()
        self.count(done)
        if not math.isfinite(measured.loss):
            self.fail(measured.loss, done)
        self.manager.progress(self.name, done, measured.loss, measured.psnr_db, measured.rate_bpp)
        if self.best is None or measured.loss < self.best.loss:
            self.best, self.best_param, self.waiting_since = measured, self.task.get_param(), done
        return self.best

    def shorten(self, done: int, gain: float) -> None:
        """Skip half of the remaining cosine if a validation gained little, after the first quarter of the cosine."""
        assert self.best is not None
        is_due = self.settings.cosine_scheduling_lr and 4 * done >= self.settings.max_iterations
        if is_due and gain < self.settings.least_gain * self.best.loss:
            self.n_iterations = done + (self.n_iterations - done) // 2

    def count(self, done: int) -> None:
        self.manager.iterations_counter += done - self.counted
        self.counted = done

    def fail(self, loss: float, done: int) -> None:
        if self.best_param is not None:
            self.task.set_param(self.best_param)
        plugin = self.task.distortion_name
        suspect = f", or check the distortion '{plugin}' (coolvid.testing.check)" if plugin else ""
        raise TrainingError(
            f"the loss is {loss} after {done} iterations of phase '{self.name}'; "
            f"try a start_lr below {self.settings.start_lr:g} or another seed{suspect}"
        )

    def restart(self, done: int) -> None:
        self.task.set_param(self.best_param)
        self.optimizers.forget_momentum()
        self.waiting_since = done


def _split(groups: Mapping[str, Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """(latents, weights), each tensor once even when two groups share it."""
    latents = {id(p): p for key, members in groups.items() if key.endswith(LATENTS) for p in members}
    others = {id(p): p for members in groups.values() for p in members if id(p) not in latents}
    return list(latents.values()), list(others.values())


def linear(span: tuple[float, float], progress: float) -> float:
    """From span[0] at progress 0 to span[1] at 1."""
    return span[0] + (span[1] - span[0]) * progress


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the previous mode."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


@contextmanager
def only_trainable(task: Task) -> Iterator[None]:
    """Training mode with gradients for the task's groups only. Restores the previous state and drops the gradients."""
    module = task.module
    before = [(p, p.requires_grad) for p in module.parameters()]
    was_training = module.training
    module.train()
    for p, _ in before:
        p.requires_grad_(False)
    for trained in (p for members in task.groups.values() for p in members):
        trained.requires_grad_(True)
    try:
        yield
    finally:
        module.train(was_training)
        for p, wanted in before:
            p.requires_grad_(wanted)
            p.grad = None
