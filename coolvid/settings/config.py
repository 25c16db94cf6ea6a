"""All settings of an encode: EncodeConfig > FrameConfig > CoolChicEncoderParameter. All are frozen and validated.

Change a configuration with `dataclasses.replace`. presets.py defines the presets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from coolvid.codec.architecture import (
    FINAL_UPSAMPLINGS,
    MAX_CONTEXT,
    MAX_FEATURES,
    MAX_RESOLUTION,
    Architecture,
    FrameArchitecture,
    PluginRecord,
    Ports,
)
from coolvid.codec.gop import StructureConfig
from coolvid.errors import ConfigError, choose
from coolvid.picture.types import MAX_SIDE, MIN_SIDE, ColorInfo, FrameType
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.interfaces import NORMATIVE
from coolvid.plugin.registry import record, require
from coolvid.values import OneOf, Within, check_fields

from .spelling import spelled

Span = tuple[int, int]
RecordOf = Callable[[str, str, Ports, dict[str, Any], Mapping[str, Any]], PluginRecord]

ACTIVATIONS = ("none", "relu")
LAYER_TYPES = ("linear", "residual")
MAX_ITERATIONS = 10_000_000
QUANTIZER_NOISES = ("kumaraswamy", "gaussian", "none")
NETWORK_SETTINGS = (
    "n_hidden_layers_arm",
    "linear_stabiliser_arm",
    "ups_k_size",
    "ups_preconcat_k_size",
    "layers_synthesis",
    "linear_stabiliser_synth",
)
"""Fields of CoolChicEncoderParameter that options of plugins may follow (see NormativePlugin.follows)."""
TUNES = ("mse", "ms_ssim", "wasserstein")
ENCODER_ONLY = {"quantizer": "quantizer", "distortion": "distortion", "motion_estimator": "motion"}
"""Settings that name a plugin which the stream does not name, and the plugin's kind."""
Iterations = Annotated[int, Within(0, MAX_ITERATIONS)]
SomeIterations = Annotated[int, Within(1, MAX_ITERATIONS)]
Candidates = Annotated[int, Within(1, 100)]
Threads = Annotated[int, Within(0, 1024)]
Side = Annotated[int, Within(MIN_SIDE, MAX_SIDE)]
Temperature = Annotated[float, Within(1e-3, 1e3)]
NoiseParameter = Annotated[float, Within(0, 100)]
STEP_SEARCHES = ("full", "descent")
PRESETS = ("fast", "medium", "slow", "placebo")


@dataclass(frozen=True)
class SynthesisLayer:
    """One convolution of the synthesis. n_out 0 means X, the number of outputs of the branch."""

    n_out: Annotated[int, Within(0, 256)]
    kernel: Annotated[int, OneOf((1, 3, 5, 7))]
    residual: bool
    activation: Annotated[str, OneOf(ACTIVATIONS)]

    def __post_init__(self) -> None:
        check_fields(self, "synthesis layer: ")

    @classmethod
    def parse(cls, text: str) -> SynthesisLayer:
        """``out-kernel-type-activation``, for example ``48-1-linear-relu`` or ``X-3-residual-none``."""
        match = re.fullmatch(r"(X|\d+)-(\d+)-([a-z]+)-([a-z]+)", text.strip())
        if not match:
            raise ConfigError(
                f"cannot read synthesis layer '{text}'; write out-kernel-type-activation, for example 48-1-linear-relu"
            )
        choose("synthesis layer type", match[3], LAYER_TYPES)
        n_out = 0 if match[1] == "X" else int(match[1])
        if match[1] != "X" and n_out == 0:
            raise ConfigError(f"synthesis layer '{text}' has no outputs; write 1 or more, or X for those of the branch")
        return cls(n_out, int(match[2]), match[3] == "residual", match[4])

    def __str__(self) -> str:
        return f"{self.n_out or 'X'}-{self.kernel}-{LAYER_TYPES[self.residual]}-{self.activation}"


def parse_layers(layers: str | tuple[SynthesisLayer | str, ...]) -> tuple[SynthesisLayer, ...]:
    """Layers from comma-separated text, or from a tuple of texts and layers."""
    parts = tuple(layers.split(",")) if isinstance(layers, str) else layers
    if not parts:
        raise ConfigError("a synthesis needs at least one layer")
    return tuple(part if isinstance(part, SynthesisLayer) else SynthesisLayer.parse(part) for part in parts)


@spelled("hyperlatent_resolution", "hyper_latent_resolution")
@dataclass(frozen=True)
class CoolChicEncoderParameter:
    """The encoder's description of one Cool-chic.

    img_size: (height, width) in pixels. layers_synthesis: text ``48-1-linear-relu,X-1-linear-none`` or layers.
    latent_resolution, hyperlatent_resolution, ifce_resolution: inclusive log2 downsampling (finest, coarsest);
    ``auto`` follows the frame size, None means no such grids (and output_feature_ifce is ignored).
    hyper_latent_resolution is another spelling of hyperlatent_resolution. ups_k_size: even, >= 4.
    ups_preconcat_k_size: odd. arm, upsampling, synthesis: the plugins that compute each module. Raises ConfigError.
    """

    img_size: tuple[Side, Side]
    layers_synthesis: tuple[SynthesisLayer, ...] | str = (
        "48-1-linear-relu,X-1-linear-none,X-3-residual-relu,X-3-residual-none"
    )
    linear_stabiliser_synth: bool = True
    ups_k_size: int = 8
    ups_preconcat_k_size: int = 7
    ifce_resolution: Span | None = (0, 2)
    output_feature_ifce: Annotated[int, Within(0, MAX_FEATURES)] = 6
    spatial_context_arm: Annotated[int, Within(1, MAX_CONTEXT)] = 14
    linear_stabiliser_arm: bool = True
    n_hidden_layers_arm: Annotated[int, Within(0, 8)] = 2
    latent_resolution: Span | Literal["auto"] = "auto"
    hyperlatent_resolution: Span | Literal["auto"] | None = "auto"
    flag_common_randomness: bool = False
    encoder_gain: Annotated[float, Within(1e-3, 1e6)] = 16.0
    final_upsampling_type: Annotated[str, OneOf(FINAL_UPSAMPLINGS)] = "bicubic"
    arm: PluginChoice = PluginChoice("mlp")
    upsampling: PluginChoice = PluginChoice("separable")
    synthesis: PluginChoice = PluginChoice("conv")

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "layers_synthesis", parse_layers(self.layers_synthesis))
        check_fields(self)
        if self.latent_resolution == "auto":
            set_(self, "latent_resolution", (0, automatic_top(self.img_size)))
        if self.hyperlatent_resolution == "auto":
            set_(self, "hyperlatent_resolution", (4, max(4, self._latent_span[1])))
        if self.output_feature_ifce == 0:
            set_(self, "ifce_resolution", None)
        if self.ifce_resolution is None:
            set_(self, "output_feature_ifce", 0)
        if self.ups_k_size % 2 or not 4 <= self.ups_k_size <= 16:
            raise ConfigError(f"ups_k_size is {self.ups_k_size}; choose an even size 4..16")
        if not self.ups_preconcat_k_size % 2 or not 1 <= self.ups_preconcat_k_size <= 15:
            raise ConfigError(f"ups_preconcat_k_size is {self.ups_preconcat_k_size}; choose an odd size 1..15")
        for name in ("latent_resolution", "hyperlatent_resolution", "ifce_resolution"):
            span = getattr(self, name)
            if span is not None and not 0 <= span[0] <= span[1] <= MAX_RESOLUTION:
                raise ConfigError(f"{name} is {span}; choose (finest, coarsest) inside 0..{MAX_RESOLUTION}")

    @property
    def _latent_span(self) -> Span:
        assert self.latent_resolution != "auto"
        return self.latent_resolution

    def architecture(self, n_out: int, record: RecordOf) -> Architecture:
        """The stream's description of this Cool-chic with n_out outputs. record: registry.record."""
        bare = PluginRecord("", 0)
        shape = Architecture(
            self._latent_span,
            self.hyperlatent_resolution,  # type: ignore[arg-type]
            self.ifce_resolution,
            self.output_feature_ifce,
            self.spatial_context_arm,
            self.flag_common_randomness,
            self.final_upsampling_type,
            n_out,
            bare,
            bare,
            bare,
        )
        ports = {"arm": shape.arm_ports, "upsampling": shape.upsampling_ports, "synthesis": shape.synthesis_ports}
        settings = {name: getattr(self, name) for name in NETWORK_SETTINGS}
        records = {
            kind: record(kind, choice.name, ports[kind], dict(choice.options), settings)
            for kind, choice in (("arm", self.arm), ("upsampling", self.upsampling), ("synthesis", self.synthesis))
        }
        return Architecture(**{**{f.name: getattr(shape, f.name) for f in fields(shape)}, **records})


def automatic_top(img_size: tuple[int, int]) -> int:
    """The coarsest latent resolution for a frame size: 6 below 1 Mpixel, 7 below 3, else 8."""
    pixels = img_size[0] * img_size[1]
    return 6 if pixels < 1_000_000 else 7 if pixels < 3_000_000 else 8


@dataclass(frozen=True)
class Phase:
    """One call of train(), with the same parameters. Pairs change linearly from the first to the second value.

    network_rate_weight: weight of the networks' estimated bits in the loss (0: none). least_gain: relative gain of a
    validation below which a phase with a cosine schedule skips half of its remaining iterations (0: never). patience:
    in iterations; from max_iterations on it has no effect.
    """

    max_iterations: Iterations
    start_lr: Annotated[float, Within(0, 1)] = 1e-2
    cosine_scheduling_lr: bool = True
    frequency_validation: SomeIterations = 100
    patience: SomeIterations = MAX_ITERATIONS
    optimized_module: tuple[str, ...] = ("all",)
    quantizer_type: str = "softround"
    quantizer_noise_type: Annotated[str, OneOf(QUANTIZER_NOISES)] = "gaussian"
    softround_temperature: tuple[Temperature, Temperature] = (0.35, 0.08)
    noise_parameter: tuple[NoiseParameter, NoiseParameter] = (0.22, 0.15)
    network_rate_weight: Annotated[float, Within(0, 1000)] = 0.0
    least_gain: Annotated[float, Within(0, 1)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class WarmupRound:
    """Trains `candidates` models for phase.max_iterations each; the next round keeps the best of them."""

    candidates: Candidates
    phase: Phase

    def __post_init__(self) -> None:
        check_fields(self, "warm-up round: ")


@dataclass(frozen=True)
class TrainingConfig:
    """Training and quantization of one frame.

    motion_start: initial iterations in which the motion branch learns to reproduce an optical flow (0: none).
    coarse_start: initial iterations in which every second warm-up candidate trains without the finest grid of the
    residue (0: none).
    step_search: "full" tries all pairs of quantization steps, "descent" changes one step at a time.
    curvature_samples: samples per parameter of a module that estimate the curvature of the loss, so that parameters
    compensate for each other's quantization errors (0: each parameter is rounded to the nearest step).
    rdo_rounds: passes of the subsequent search over single integers (0: none). latent_rdo_rounds: rounds of the final
    search over single latents, for each branch (0: none).
    inherit_lr_scale: factor on the learning rates of a frame that inherits networks.
    """

    warmup: tuple[WarmupRound, ...]
    phases: tuple[Phase, ...]
    motion_start: Iterations = 0
    coarse_start: Iterations = 0
    step_search: Annotated[str, OneOf(STEP_SEARCHES)] = "descent"
    curvature_samples: Annotated[float, Within(0, 100)] = 0.0
    rdo_rounds: Annotated[int, Within(0, 100)] = 0
    latent_rdo_rounds: Annotated[int, Within(0, 1000)] = 0
    inherit_lr_scale: Annotated[float, Within(0.01, 10.0)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def total_iterations(self, is_fresh: bool) -> int:
        """Iterations of a frame without early stopping. is_fresh: with a warm-up, which frames that start from an
        earlier frame's networks skip."""
        rounds = [(r.candidates, r.phase.max_iterations) for r in self.warmup]
        warmup = warmup_iterations(rounds, self.coarse_start) if is_fresh else 0
        return warmup + self.motion_start + sum(p.max_iterations for p in self.phases)


def warmup_iterations(rounds: Sequence[tuple[int, int]], coarse_start: int) -> int:
    """Iterations of all candidates together. rounds: (candidates, iterations of each)."""
    n_coarse = rounds[0][0] // 2 if rounds else 0
    return n_coarse * coarse_start + sum(candidates * iterations for candidates, iterations in rounds)


@dataclass(frozen=True)
class FrameConfig:
    """Everything that the encoder of one frame needs.

    lmbda: the objective is distortion + lmbda * bits per pixel, with samples in [0, 1]. color: for distortions that
    convert the picture to RGB.
    """

    frame_type: FrameType
    lmbda: Annotated[float, Within(1e-9, 1e6)]
    residue: CoolChicEncoderParameter
    motion: CoolChicEncoderParameter | None
    warper: PluginChoice
    training: TrainingConfig
    distortion: PluginChoice = PluginChoice("mse")
    motion_estimator: PluginChoice = PluginChoice("block_matching")
    color: ColorInfo = ColorInfo()

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.motion is None) != (self.frame_type is FrameType.I):
            raise ConfigError(f"a {self.frame_type.name} frame {'has no' if self.motion else 'needs a'} motion branch")


@dataclass(frozen=True)
class EncodeConfig:
    """One encode.

    intra lop|mop|hop|vhop|xhop, residue vlop|lop|mop|hop, motion lop|mop: operating points ("": from the preset). Of
    several, separated by commas, the encoder tries each for every frame and keeps the best.

    iterations: total for an I frame; other frames scale in the preset's proportions (0: from the preset).
    distortion: the D of D + lmbda * R. tune names one of the perceptual distortions TUNES, and alpha its weight beside
    mean squared error, 0..1; both become part of distortion.
    quantizer replaces the quantizer of all phases except the last, which rounds. plugins: kind -> choice for arm,
    upsampling, synthesis, warper. inherit: predict networks from those of an earlier frame, or from the built-in prior.
    training: settings that replace those of the preset, by name (see presets.training_types). Raises ConfigError.
    """

    lmbda: Annotated[float, Within(1e-7, 10)] = 1e-3
    structure: StructureConfig = StructureConfig()
    preset: Annotated[str, OneOf(PRESETS)] = "medium"
    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    intra: str = ""
    residue: str = ""
    motion: str = ""
    iterations: Iterations = 0
    warp_filter_size: Annotated[int, Within(1, 64)] = 8
    quantizer: PluginChoice | None = None
    distortion: PluginChoice = PluginChoice("mse")
    tune: str = ""
    alpha: Annotated[float, Within(0, 1)] | None = None
    motion_estimator: PluginChoice = PluginChoice("block_matching")
    plugins: tuple[tuple[str, PluginChoice], ...] = ()
    training: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    lmbda_per_depth: Annotated[float, Within(0.1, 10)] = 1.9
    common_randomness: bool = False
    inherit: bool = True
    threads: Threads = 0
    device: str = "cpu"
    n_frames: Annotated[int, Within(0, 2**31 - 1)] = 0

    def __post_init__(self) -> None:
        from .presets import check_choices

        check_fields(self)
        self._fold_tune()
        object.__setattr__(self, "training", tuple(dict(self.training).items()))
        for kind, choice in self.plugins:
            choose("plugin kind", kind, NORMATIVE)
            require(kind, choice.name)
        for name, kind in ENCODER_ONLY.items():
            chosen = getattr(self, name)
            if chosen != self.__dataclass_fields__[name].default:
                require(kind, chosen.name)
        _check_device(self.device)
        check_choices(self)

    def _fold_tune(self) -> None:
        """Write tune and alpha into distortion, so that equal settings compare equal."""
        chosen = self.distortion
        if self.tune:
            choose("tune", self.tune, TUNES)
            if chosen.name not in (TUNES[0], self.tune):
                raise ConfigError(f"tune is {self.tune} and distortion is {chosen.name}; give one of them")
            chosen = PluginChoice(self.tune, chosen.options if chosen.name == self.tune else ())
        if self.alpha is not None:
            if chosen.name == TUNES[0]:
                raise ConfigError(f"alpha is {self.alpha:g}; it weighs a perceptual tune: {', '.join(TUNES[1:])}")
            chosen = PluginChoice(chosen.name, tuple({**dict(chosen.options), "alpha": float(self.alpha)}.items()))
        for name, value in (("distortion", chosen), ("tune", ""), ("alpha", None)):
            object.__setattr__(self, name, value)

    def plugin(self, kind: str, default: PluginChoice) -> PluginChoice:
        return dict(self.plugins).get(kind, default)

    def lmbda_at(self, frame_type: FrameType, depth: int) -> float:
        """lmbda of a frame; references are coded finer. I frames have lmbda itself, P frames lmbda *
        lmbda_per_depth**0.5, B frames of depth d (2 and more) lmbda * lmbda_per_depth**d."""
        exponent = {FrameType.I: 0.0, FrameType.P: 0.5, FrameType.B: float(depth)}[frame_type]
        return float(self.lmbda * self.lmbda_per_depth**exponent)


def _check_device(name: str) -> None:
    """Raise ConfigError unless this is a name of a device. Whether this machine has it, only its use shows."""
    if name == "cpu":  # without torch
        return
    import torch

    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device is '{name}'; choose cpu, or a device that PyTorch knows, for example cuda"
        ) from error


def frame_architecture(config: FrameConfig) -> FrameArchitecture:
    """The stream's description of frames coded with this configuration."""
    kind = config.frame_type
    motion = warper = None
    if config.motion is not None:
        motion = config.motion.architecture(kind.n_motion, record)
        warper = record("warper", config.warper.name, Ports(1, 1), dict(config.warper.options))
    return FrameArchitecture(kind, config.residue.architecture(kind.n_residue, record), motion, warper)
