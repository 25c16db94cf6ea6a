"""quantize_model: float parameters to integers, module after module, by the loss of the whole frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import TrainingError
from coolvid.model.frame_encoder import FrameEncoder
from coolvid.networks import FrameNetworks
from coolvid.types import Frame

from .curvature import curvature
from .evaluate import FrameLoss
from .feedback import FeedbackRounding
from .inherit import predict
from .rdo import rdo_parameters
from .search import search_pair
from .state import QuantizedModule
from .steps import Floats, dequantise, quantise, step_range

# Distances, in steps, below which an integer may fall to its target; rounding alone is 0.5.
DEAD_ZONES = (0.6, 0.75, 0.95, 1.2)
# What a bit may count when parameters make up for each other's errors, in bits; 1 is what the search of steps takes.
PRICES = (0.5, 1.5, 2.5)


def quantize_model(
    frame_encoder: FrameEncoder, frame: Frame, frame_encoder_manager: object, predictor: FrameNetworks | None = None
) -> FrameEncoder:
    """The frame encoder, changed in place, with parameters that are multiples of power-of-two steps.

    Modules are taken in sorted order; each gets the pair of steps (weights, biases) of least distortion + lmbda *
    (latent bits + parameter bits) / pixels (codec.md, section 4), by config.training.step_search, or, where
    that is better, the predictor's parameters, which cost next to nothing; then config.training.rdo_rounds passes over
    single integers follow. With config.training.curvature_samples, parameters make up for each other's errors
    (FeedbackRounding). predictor: networks that the stream may predict these from. Raises TrainingError for
    parameters that no integer can stand for.
    """
    training = frame_encoder.config.training
    _check_finite(frame_encoder)
    predict(frame_encoder, predictor)
    loss = FrameLoss(frame_encoder, frame)
    for name in loss.modules:
        chosen = ModuleSearch(loss, name, training.curvature_samples).run(training.step_search)
        loss.load(chosen)
        _or_unchanged(loss, chosen).record(loss.coolchic(name))
    if training.rdo_rounds:
        rdo_parameters(frame_encoder, frame, frame_encoder_manager, training.rdo_rounds)
    return frame_encoder


def _or_unchanged(loss: FrameLoss, chosen: QuantizedModule) -> QuantizedModule:
    """The chosen module, which is loaded, or the predictor's if that is no worse; what is returned is loaded then."""
    if chosen.predictor is None:
        return chosen
    least = loss.total(chosen)
    other = replace(chosen, coded=chosen.predictor)
    loss.load(other)
    if loss.total(other) > least:
        loss.load(chosen)
        return chosen
    return other


def _check_finite(frame_encoder: FrameEncoder) -> None:
    bad = [name for name, value in frame_encoder.get_param().items() if not value.isfinite().all()]
    if bad:
        raise TrainingError(f"{bad[0]} is not finite after training; try a smaller learning rate")


class ModuleSearch:
    """The search of one module's steps. Equal parameters, which different steps may give, are measured once.

    samples_per_parameter: see curvature(); without a curvature, integers are the nearest ones.
    """

    def __init__(self, loss: FrameLoss, name: str, samples_per_parameter: float = 0.0) -> None:
        self.loss = loss
        self.name = name
        self.specs = loss.specs(name)
        self.values = loss.canonical(name)
        self.predictor = loss.coolchic(name).predictor.get(name.split(".")[1])
        self._rounding = self._feedback(samples_per_parameter)
        self._floor = loss.least(name)
        self._known: dict[bytes, float] = {}
        self._best = math.inf

    def _feedback(self, samples_per_parameter: float) -> FeedbackRounding | None:
        matrix = curvature(self.loss, self.name, samples_per_parameter)
        if matrix is None:
            return None
        tensors = np.repeat(np.arange(len(self.specs)), [math.prod(spec.shape) for spec in self.specs])
        return FeedbackRounding(self._exact(), matrix, tensors, self.loss.loss_per_bit)

    def _exact(self) -> Floats:
        """The float parameters [n] in stream order."""
        return np.concatenate([self.values[spec.name].ravel() for spec in self.specs] or [np.zeros(0)])

    def run(self, method: str) -> QuantizedModule:
        """The module at the steps found."""
        self.loss.settle(self.name)
        steps = step_range(self.name.split(".")[1])
        pair, least = search_pair(steps.shifts(self.specs), self.loss_of, method, steps.start)
        module = self._at(*pair)
        if module is None or math.isinf(least):
            raise TrainingError(f"{self.name} has parameters up to {self._largest():.3g}, which no step can represent")
        return self._best_at_these_steps(module, least)

    def _best_at_these_steps(self, module: QuantizedModule, least: float) -> QuantizedModule:
        """The module, or the best of the others that rounding makes at its steps."""
        best = module
        for integers in self._alternatives(module):
            trial = module.with_flat(integers)
            if trial is None:
                continue
            loss = self._measured(trial) + self.loss.loss_per_bit * trial.bits
            if loss < least:
                best, least = trial, loss
        return best

    def _alternatives(self, module: QuantizedModule) -> Iterator[NDArray[np.int64]]:
        """Integers [n] at the module's steps: bits at other prices, or, rounded to the nearest, dead zones."""
        for target in module.targets():
            if self._rounding is not None:
                yield from (self._rounding.integers(module.flat_steps(), target, price) for price in PRICES)
            else:
                yield from (self._fallen(module, target, width) for width in DEAD_ZONES)

    def _fallen(self, module: QuantizedModule, target: NDArray[np.int64], width: float) -> NDArray[np.int64]:
        """The integers [n], the target's wherever the float parameter is less than `width` steps from it."""
        near = np.abs(self._exact() / module.flat_steps() - target) < width
        return np.where(near, target, module.flat())

    def loss_of(self, weight_shift: int, bias_shift: int) -> float:
        """Loss with the bits of this module; inf for integers out of range; only a lower bound where that is already
        above the least loss seen."""
        module = self._at(weight_shift, bias_shift)
        if module is None:
            return math.inf
        bits_loss = self.loss.loss_per_bit * module.bits
        if self._floor + bits_loss > self._best:
            return self._floor + bits_loss
        loss = self._measured(module) + bits_loss
        self._best = min(self._best, loss)
        return loss

    def _at(self, weight_shift: int, bias_shift: int) -> QuantizedModule | None:
        coded = quantise(self.values, self.specs, weight_shift, bias_shift)
        if coded is None:
            return None
        module = QuantizedModule(self.name, self.specs, coded, self.predictor)
        if self._rounding is None:
            return module
        return module.with_flat(self._rounding.integers(module.flat_steps(), module.sent_from()))

    def _measured(self, module: QuantizedModule) -> float:
        key = b"".join(value.tobytes() for value in _ordered(dequantise(module.coded, self.specs)))
        if key not in self._known:
            self.loss.load(module)
            value = self.loss.value()
            self._known[key] = value if math.isfinite(value) else math.inf
        return self._known[key]

    def _largest(self) -> float:
        return max((float(np.abs(value).max(initial=0.0)) for value in self.values.values()), default=0.0)


def _ordered(values: dict[str, Floats]) -> list[Floats]:
    """Arrays by name, without the sign of zero."""
    return [values[name] + 0.0 for name in sorted(values)]
