"""quantize_model: float parameters to integers, module by module, by the loss of the whole frame."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.coded_frame import MAX_SHIFT
from coolvid.codec.networks import FrameNetworks
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.errors import TrainingError
from coolvid.picture.types import Frame

from .curvature import curvature
from .evaluate import FrameLoss
from .feedback import FeedbackRounding
from .inherit import set_predictor
from .rdo import rdo_parameters
from .search import search_pair
from .state import QuantizedModule
from .steps import Floats, dequantize, quantize, step_range

# Distances, in steps, within which an integer is set to its target; plain rounding is 0.5.
DEAD_ZONES = (0.6, 0.75, 0.95, 1.2)
# Multiples of the bit price for rounding with feedback.
PRICES = (0.5, 1.0, 1.5, 2.5)


class QuantizationManager(Protocol):
    """The part of FrameEncoderManager that quantize_model() uses."""

    total_training_time_sec: float
    iterations_counter: int

    @property
    def lmbda(self) -> float: ...


def quantize_model(
    frame_encoder: FrameEncoder,
    frame: Frame,
    frame_encoder_manager: QuantizationManager,
    predictor: FrameNetworks | None = None,
    *,
    step_search: str = "full",
) -> FrameEncoder:
    """The frame encoder, changed in place, with parameters that are multiples of power-of-two steps.

    Modules are quantized in sorted order. Each gets the pair of steps (weights, biases) with the least distortion +
    lmbda * (latent bits + parameter bits) / pixels (codec.md, section 4), or the predictor's parameters, which cost
    almost no bits, if those are better. Then config.training.rdo_rounds passes over single integers follow. With
    config.training.curvature_samples, parameters compensate for each other's errors (FeedbackRounding), and every
    tensor has its own step.

    frame_encoder_manager: its lambda counts; its total_training_time_sec and iterations_counter advance by the seconds
    and by the losses measured. predictor: networks that the stream may predict these from. step_search: "full" tries
    all pairs, "descent" few (see TrainingConfig). Raises TrainingError for parameters that no integer can represent.
    """
    started = time.monotonic()
    device = next(frame_encoder.parameters()).device
    objective = Objective.of(frame_encoder.config, frame, device, frame_encoder_manager.lmbda)
    n_measured = quantize_for(frame_encoder, objective, predictor, step_search)
    frame_encoder_manager.iterations_counter += n_measured
    frame_encoder_manager.total_training_time_sec += time.monotonic() - started
    return frame_encoder


def quantize_for(
    frame_encoder: FrameEncoder, objective: Objective, predictor: FrameNetworks | None, step_search: str
) -> int:
    """quantize_model() for an existing objective. Returns the number of losses measured."""
    training = frame_encoder.config.training
    _check_finite(frame_encoder)
    set_predictor(frame_encoder, predictor)
    loss = FrameLoss(frame_encoder, objective)
    n_measured = 0
    for name in loss.modules:
        search = ModuleSearch(loss, name, training.curvature_samples)
        chosen = search.run(step_search)
        n_measured += search.n_measured
        loss.load(chosen)
        _or_unchanged(loss, chosen).record(loss.coolchic(name))
    if training.rdo_rounds:
        rdo_parameters(frame_encoder, objective, training.rdo_rounds)
    return n_measured


def _or_unchanged(loss: FrameLoss, chosen: QuantizedModule) -> QuantizedModule:
    """The chosen module, already loaded, or the predictor's if that is no worse. The returned module is loaded."""
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


Shifts = tuple[int, ...]


class ModuleSearch:
    """Search for one module's steps 2**-shift. Parameters that several steps have in common are measured once.

    samples_per_parameter: see curvature(). Without a curvature, integers are rounded to nearest.
    """

    def __init__(self, loss: FrameLoss, name: str, samples_per_parameter: float = 0.0) -> None:
        self.loss = loss
        self.name = name
        self.specs = loss.specs(name)
        self.predictor = loss.coolchic(name).predictor.get(name.split(".")[1])
        self.values = loss.canonical(name, is_predicted=self.predictor is not None)
        loss.write(name, self.values)
        self._rounding = self._feedback(samples_per_parameter)
        self._floor = loss.least(name)
        self._known: dict[bytes, float] = {}
        self._best = math.inf
        self.n_measured = 0

    def _feedback(self, samples_per_parameter: float) -> FeedbackRounding | None:
        matrix = curvature(self.loss, self.name, samples_per_parameter)
        if matrix is None:
            return None
        tensors = self._spread(range(len(self.specs)))
        return FeedbackRounding(self._exact(), matrix, tensors, self.loss.loss_per_bit)

    def _spread(self, by_tensor: Sequence[int]) -> NDArray[np.int64]:
        """Expand one number per tensor to one per parameter [n]."""
        return np.repeat(np.array(by_tensor, np.int64), [math.prod(spec.shape) for spec in self.specs])

    def _exact(self) -> Floats:
        """The float parameters [n] in stream order."""
        return np.concatenate([self.values[spec.name].ravel() for spec in self.specs] or [np.zeros(0)])

    def run(self, method: str) -> QuantizedModule:
        """The module at the steps that the search finds."""
        self.loss.settle(self.name)
        steps = step_range(self.name.split(".")[1])
        pair, least = search_pair(steps.shifts(self.specs), self.loss_of, method, steps.start)
        if math.isinf(least):
            raise TrainingError(f"{self.name} has parameters up to {self._largest():.3g}, which no step can represent")
        shifts = self._of_kinds(*pair)
        if self._rounding is not None:
            shifts, least = self._each_tensor(shifts, least)
        return self._best_at(shifts, least)

    def _of_kinds(self, weight_shift: int, bias_shift: int) -> Shifts:
        """Shifts of all tensors from those of the kinds."""
        return tuple(weight_shift if spec.kind == "weight" else bias_shift for spec in self.specs)

    def _each_tensor(self, shifts: Shifts, least: float) -> tuple[Shifts, float]:
        """Improve shifts with loss `least` by moving one tensor's shift at a time. Returns shifts and loss."""
        before = None
        while before != shifts:
            before = shifts
            for tensor, move in product(range(len(shifts)), (-1, 1)):
                while (loss := self._loss_at(trial := _moved(shifts, tensor, move))) < least:
                    shifts, least = trial, loss
        return shifts, least

    def _best_at(self, shifts: Shifts, least: float) -> QuantizedModule:
        """The module at these shifts, or the best of its alternative roundings."""
        best = self._at(shifts)
        assert best is not None, "a loss was measured at these shifts"
        for trial in self._alternatives(best, shifts):
            if trial is None:
                continue
            loss = self._measured(trial) + self.loss.loss_per_bit * trial.bits
            if loss < least:
                best, least = trial, loss
        return best

    def _alternatives(self, module: QuantizedModule, shifts: Shifts) -> Iterator[QuantizedModule | None]:
        """The module with other bit prices, or, without feedback, with dead zones."""
        for target in module.targets():
            if self._rounding is not None:
                lengths = self._lengths(module, shifts)
                rounded = self._rounding.thorough(module.flat_steps(), target, lengths, PRICES)
                yield from (module.with_flat(integers) for integers in rounded)
            else:
                yield from (module.with_flat(self._fallen(module, target, width)) for width in DEAD_ZONES)

    def _fallen(self, module: QuantizedModule, target: NDArray[np.int64], width: float) -> NDArray[np.int64]:
        """The integers [n], set to the target's where the float parameter is less than `width` steps from it."""
        near = np.abs(self._exact() / module.flat_steps() - target) < width
        return np.where(near, target, module.flat())

    def loss_of(self, weight_shift: int, bias_shift: int) -> float:
        """Loss with the bits of this module; inf for integers out of range; only a lower bound if that already exceeds
        the least loss so far."""
        return self._loss_at(self._of_kinds(weight_shift, bias_shift))

    def _loss_at(self, shifts: Shifts) -> float:
        """loss_of() with a shift for each tensor."""
        module = self._at(shifts)
        if module is None:
            return math.inf
        bits_loss = self.loss.loss_per_bit * module.bits
        if self._floor + bits_loss > self._best:
            return self._floor + bits_loss
        loss = self._measured(module) + bits_loss
        self._best = min(self._best, loss)
        return loss

    def _at(self, shifts: Shifts) -> QuantizedModule | None:
        """The module with one shift per tensor; without feedback, tensors of one kind must share a shift."""
        if not all(0 <= shift <= MAX_SHIFT for shift in shifts):
            return None
        finest = dict(sorted(zip((spec.kind for spec in self.specs), shifts, strict=True)))  # the largest of each kind
        coded = quantize(self.values, self.specs, finest.get("weight", 0), finest.get("bias", 0))
        if coded is None:
            return None
        module = QuantizedModule(self.name, self.specs, coded, self.predictor)
        if self._rounding is None:
            return module
        lengths = self._lengths(module, shifts)
        return module.with_flat(self._rounding.integers(module.flat_steps(), module.sent_from(), lengths))

    def _lengths(self, module: QuantizedModule, shifts: Shifts) -> NDArray[np.int64]:
        """The steps [n] of these shifts, in units of the module's steps."""
        finest = self._of_kinds(module.coded.weight_shift, module.coded.bias_shift)
        return self._spread([1 << own - shift for own, shift in zip(finest, shifts, strict=True)])

    def _measured(self, module: QuantizedModule) -> float:
        key = b"".join(value.tobytes() for value in _ordered(dequantize(module.coded, self.specs)))
        if key not in self._known:
            self.loss.load(module)
            self.n_measured += 1
            value = self.loss.value()
            self._known[key] = value if math.isfinite(value) else math.inf
        return self._known[key]

    def _largest(self) -> float:
        return max((float(np.abs(value).max(initial=0.0)) for value in self.values.values()), default=0.0)


def _moved(shifts: Shifts, tensor: int, by: int) -> Shifts:
    return *shifts[:tensor], shifts[tensor] + by, *shifts[tensor + 1 :]


def _ordered(values: dict[str, Floats]) -> list[Floats]:
    """Arrays by name, with -0 replaced by 0."""
    return [values[name] + 0.0 for name in sorted(values)]
