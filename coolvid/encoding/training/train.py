"""train(): one phase of the optimization of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from coolvid.encoding.loss import LossFunctionOutput, loss_function
from coolvid.encoding.objective import Objective
from coolvid.encoding.threads import use_threads
from coolvid.errors import choose
from coolvid.picture.types import Frame
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.interfaces import TRAINED, TrainingState
from coolvid.settings.config import Phase

from .fused import ByAutograd, FusedLoss
from .loop import TrainingManager, Validation, evaluation, optimize

if TYPE_CHECKING:
    from coolvid.encoding.model.coolchic import CoolChicEncoderOutput
    from coolvid.encoding.model.frame_encoder import FrameEncoder

Span = float | tuple[float, float]


@use_threads()
def train(
    frame_encoder: FrameEncoder,
    frame: Frame,
    frame_encoder_manager: TrainingManager,
    lmbda: float = 1e-3,
    start_lr: float = 1e-2,
    cosine_scheduling_lr: bool = True,
    max_iterations: int = 10_000,
    frequency_validation: int = 100,
    patience: int = 10,
    optimized_module: str | Sequence[str] = ("all",),
    quantizer_type: str = "softround",
    quantizer_noise_type: str = "kumaraswamy",
    softround_temperature: Span = (0.3, 0.2),
    noise_parameter: Span = (2.0, 1.0),
    network_rate_weight: float = 0.0,
    least_gain: float = 0.0,
    *,
    phase: str = "train",
    warmup: bool = False,
) -> FrameEncoder:
    """Train the named modules on one frame and return the encoder with the parameters of its best validation.

    frame: the target. lmbda: of the objective, in the units of the encoder's distortion plugin. start_lr: of both
    optimizers, constant or following a cosine to 0.

    Every frequency_validation iterations, and before the first and after the last, validation measures the loss as
    coded: integer latents, no noise. The manager's progress() receives each. If the best loss is `patience` iterations
    old at a validation, training stops, or, with cosine_scheduling_lr, continues from the best parameters;
    patience = max_iterations disables both. A validation that lowers the best loss by less than the fraction least_gain
    halves the rest of the cosine. For a trained model (latents not all 0), the learning rate rises over the first ten
    iterations. optimized_module: one or several of residue, motion or all, a point, and all, arm, upsampling,
    synthesis, latent or warper; or all. The defaults are those of the Cool-chic documents; the presets set their own.
    quantizer_type: NAME or NAME:key=value. softround_temperature, noise_parameter: one value, or
    (first, last) for a linear change. network_rate_weight: adds weight * lmbda * (estimated bits of the
    networks) / pixels to the loss, in training and validation, so that parameters of little use fade to 0.

    phase: its name in the progress events. warmup: optimizers with shorter memory. Advances the manager's counters.
    Raises ConfigError for a setting outside its choices, PluginError for a plugin whose first result is unusable,
    TrainingError when the loss is not finite.
    """
    settings = Phase(
        max_iterations,
        start_lr,
        cosine_scheduling_lr,
        frequency_validation,
        patience,
        (optimized_module,) if isinstance(optimized_module, str) else tuple(optimized_module),
        quantizer_type,
        _noise(quantizer_type, quantizer_noise_type),
        _pair(softround_temperature),
        _pair(noise_parameter),
        network_rate_weight,
        least_gain,
    )
    objective = Objective.of(frame_encoder.config, frame, device_of(frame_encoder), lmbda)
    return train_phase(frame_encoder, objective, frame_encoder_manager, settings, phase, warmup)


def train_phase(
    frame_encoder: FrameEncoder,
    objective: Objective,
    manager: TrainingManager,
    settings: Phase,
    name: str,
    warmup: bool = False,
) -> FrameEncoder:
    """train() with an existing objective and settings as one record. name: of the phase, in progress events."""
    task = FrameTask(frame_encoder, objective, settings.optimized_module, settings.network_rate_weight)
    optimize(task, settings, manager, name, warmup)
    return frame_encoder


def _pair(value: Span) -> tuple[float, float]:
    return (float(value), float(value)) if isinstance(value, (int, float)) else (float(value[0]), float(value[1]))


def _noise(quantizer_type: str, quantizer_noise_type: str) -> str:
    """The noise in the quantizer's options, else the phase's noise."""
    return str(dict(PluginChoice.parse(quantizer_type).options).get("noise") or quantizer_noise_type)


class FrameTask:
    """One frame as a task for the training loop: parameters, training loss, validation.

    names: modules to train, see train(). network_rate_weight: weight of the networks' estimated bits in the loss.
    """

    def __init__(
        self,
        frame_encoder: FrameEncoder,
        objective: Objective,
        names: Sequence[str],
        network_rate_weight: float = 0.0,
    ) -> None:
        self.encoder = frame_encoder
        self.module: nn.Module = frame_encoder
        self.objective = objective
        self.distortion_name = "" if objective.is_squared_error else objective.name
        self.groups: Mapping[str, Sequence[Tensor]] = select_groups(frame_encoder.named_groups(), names)
        latents = frame_encoder.branches["residue"].latents
        self.is_fresh = not any(bool(latent.detach().any()) for latent in latents)
        self.rate_mlp_bit = float(frame_encoder.get_network_rate()[1])
        self.loss_per_network_bit = network_rate_weight * objective.lmbda / objective.n_pixels

    def get_param(self) -> Any:
        return self.encoder.get_param()

    def set_param(self, param: Any) -> None:
        self.encoder.set_param(param)

    def loss(self, settings: Phase, temperature: float, noise_parameter: float, state: TrainingState) -> Tensor:
        """Loss of the training forward, differentiable."""
        out = self._measure(
            state,
            compute_logs=False,
            quantizer_noise_type=settings.quantizer_noise_type,
            quantizer_type=settings.quantizer_type,
            soft_round_temperature=temperature,
            noise_parameter=noise_parameter,
        )
        loss = cast(Tensor, out.loss)
        return loss + self._network_loss() if self.loss_per_network_bit else loss

    @property
    def fused(self) -> FusedLoss | None:
        """loss() and its gradient in compiled kernels only; None if the kernels do not apply."""
        encoder, objective = self.encoder, self.objective
        if encoder.warper is not None and any(True for _ in encoder.warper.parameters()):
            return None
        kernel = encoder.error_kernel(objective.target) if objective.is_squared_error else None
        measure = ByAutograd(encoder.branches, self._distortion_of) if kernel is None else kernel
        return FusedLoss.of(encoder.branches, measure, objective.loss_per_bit, self.loss_per_network_bit)

    def _distortion_of(self, outputs: Mapping[str, CoolChicEncoderOutput], state: TrainingState) -> Tensor:
        if self.objective.is_squared_error:
            measured = self.encoder.mean_squared_error(outputs, self.objective.target)
            assert measured is not None, "there are kernels for all branches, but not for the picture"
            return measured
        return self.objective.distortion(self.encoder.decoded(outputs)[0], state)

    def validate(self) -> Validation:
        """Result of the evaluation forward, in the distortion plugin's units. Requires evaluation mode."""
        out = self._measure(TRAINED, compute_logs=True, quantizer_noise_type="none", quantizer_type="hardround")
        loss = float(cast(Tensor, out.loss)) + (float(self._network_loss()) if self.loss_per_network_bit else 0.0)
        return Validation(loss * self.objective.scale, cast(float, out.psnr_db), cast(float, out.total_rate_bpp))

    def _network_loss(self) -> Tensor:
        return self.loss_per_network_bit * self.encoder.estimated_network_bits()

    def _measure(self, state: TrainingState, compute_logs: bool, **forward: Any) -> LossFunctionOutput:
        out = self.encoder(**forward, state=state)
        objective = self.objective
        distortion = None if objective.is_squared_error else lambda decoded, _: objective.distortion(decoded, state)
        return loss_function(
            out.decoded_image,
            out.rate,
            objective.target,
            objective.lmbda,
            self.rate_mlp_bit,
            compute_logs,
            distortion,
        )


def evaluate(frame_encoder: FrameEncoder, objective: Objective) -> Validation:
    """Loss, PSNR and rate, as in a validation of train()."""
    task = FrameTask(frame_encoder, objective, ())
    with evaluation(frame_encoder):
        return task.validate()


def select_groups(groups: Mapping[str, Sequence[Tensor]], names: Sequence[str]) -> dict[str, list[Tensor]]:
    """The named groups, each once, by basic name (residue.arm, motion.latents, ...).

    names: BRANCH.MODULE, BRANCH.all, all.MODULE or all; latent and latents are the same. Raises ConfigError,
    listing the choices, for any other, and for motion in an I frame.
    """
    basic = {key: list(members) for key, members in groups.items() if is_basic(key)}
    choices: dict[str, list[str]] = {"all": list(basic), "all.all": list(basic)}
    for key in basic:
        branch, _, module = key.partition(".")
        choices[key] = [key]
        choices.setdefault(f"{branch}.all", []).append(key)
        choices.setdefault(f"all.{module}", []).append(key)
    names = [f"{name}s" if name.endswith(".latent") else name for name in names]
    for name in names:
        choose("optimized_module", name, tuple(sorted(choices)))
    wanted = {key for name in names for key in choices[name]}
    return {key: basic[key] for key in basic if key in wanted}


def is_basic(name: str) -> bool:
    """Whether a group is elementary; residue.all, for example, is not."""
    return "all" not in name.split(".")


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
