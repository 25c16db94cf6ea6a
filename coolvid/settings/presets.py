"""Presets and operating points. Each preset is defined by its differences from medium."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast, get_type_hints

from coolvid.codec.architecture import Ports
from coolvid.errors import ConfigError, choose
from coolvid.picture.detail import detail
from coolvid.picture.types import Frame, FrameType
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.contract import check_scale
from coolvid.plugin.interfaces import DistortionPlugin
from coolvid.plugin.registry import followed, make
from coolvid.values import OneOf, Within, check_fields

from .config import (
    STEP_SEARCHES,
    Candidates,
    CoolChicEncoderParameter,
    EncodeConfig,
    FrameConfig,
    Iterations,
    Phase,
    SomeIterations,
    TrainingConfig,
    WarmupRound,
    warmup_iterations,
)
from .values import fit_table

_TAIL = "X-1-linear-none,X-3-residual-relu,X-3-residual-none"
_SHORT_TAIL = "X-1-linear-none,X-3-residual-none"


def _point(context: int, hidden: int, features: int, layers: str) -> dict[str, Any]:
    return {
        "spatial_context_arm": context,
        "n_hidden_layers_arm": hidden,
        "output_feature_ifce": features,
        "ifce_resolution": (0, 2) if features else None,
        "layers_synthesis": layers,
    }


INTRA = {
    "lop": _point(6, 2, 2, f"8-1-linear-relu,{_SHORT_TAIL}"),
    "mop": _point(10, 2, 4, f"16-1-linear-relu,{_TAIL}"),
    "hop": _point(14, 2, 6, f"48-1-linear-relu,{_TAIL}"),
    "vhop": _point(20, 2, 6, f"64-1-linear-relu,{_TAIL}"),
    "xhop": _point(26, 2, 6, f"64-1-linear-relu,{_TAIL}"),
}
RESIDUE = {
    "vlop": _point(6, 1, 0, f"8-1-linear-relu,{_SHORT_TAIL}"),
    "lop": _point(6, 2, 0, f"16-1-linear-relu,{_TAIL}"),
    "mop": _point(10, 2, 2, f"16-1-linear-relu,{_TAIL}"),
    "hop": _point(10, 2, 4, f"48-1-linear-relu,{_TAIL}"),
}
_MOTION_GRIDS = {"latent_resolution": (2, 6), "hyperlatent_resolution": None, "final_upsampling_type": "nearest"}
MOTION = {
    "lop": {**_point(6, 1, 0, "8-1-linear-relu,X-1-linear-none"), **_MOTION_GRIDS},
    "mop": {**_point(6, 2, 2, "16-1-linear-relu,X-1-linear-none"), **_MOTION_GRIDS, "ifce_resolution": (2, 2)},
}


@dataclass(frozen=True)
class Preset:
    """Training effort. Iterations are those of the main phase; `final` counts those of the rounding phase after it.
    b_iterations: for the B frame between two anchors; multiplied by b_iterations_per_depth at each deeper level,
    because frames close to their references have little to learn.

    coarse_start: for I frames (training/warmup.py).

    inherit_lr_scale: factor on the learning rates of B frames that inherit networks. With few iterations, a lower rate
    gives better results (docs/experiments/learning-rate.md).

    intra, p_residue, b_residue, motion: operating points. Of several, separated by commas, the encoder tries each for
    every frame and keeps the best. huge_intra and large_intra are for pictures with much detail, small_intra for other
    small pictures (see fit_intra), intra for the rest."""

    intra: str = "hop"
    small_intra: str = "mop"
    large_intra: str = "hop"
    huge_intra: str = "hop"
    p_residue: str = "mop"
    b_residue: str = "mop"
    motion: str = "mop"
    intra_iterations: Iterations = 1700
    p_iterations: Iterations = 1900
    b_iterations: Iterations = 750
    b_iterations_per_depth: Annotated[float, Within(0.1, 1.0)] = 0.6
    final: Iterations = 30
    warmup: tuple[tuple[Candidates, SomeIterations], ...] = ((2, 300),)
    coarse_start: Iterations = 20
    motion_start: Iterations = 150
    frequency_validation: SomeIterations = 50
    step_search: Annotated[str, OneOf(STEP_SEARCHES)] = "descent"
    curvature_samples: Annotated[float, Within(0, 100)] = 2.0
    rdo_rounds: Annotated[int, Within(0, 100)] = 0
    latent_rdo_rounds: Annotated[int, Within(0, 1000)] = 4
    network_rate_weight: Annotated[float, Within(0, 1000)] = 1.5
    inherit_lr_scale: Annotated[float, Within(0.01, 10.0)] = 0.6

    def __post_init__(self) -> None:
        check_fields(self)


# OPERATING_POINTS are set by EncodeConfig.intra, residue and motion, not by EncodeConfig.training. MAIN_PHASE are the
# settings in EncodeConfig.training that apply exactly to the main phase of every frame, independent of
# EncodeConfig.iterations (start_lr before inherit_lr_scale).
OPERATING_POINTS = ("intra", "small_intra", "large_intra", "huge_intra", "p_residue", "b_residue", "motion")
MAIN_PHASE = (
    "max_iterations",
    "start_lr",
    "cosine_scheduling_lr",
    "patience",
    "softround_temperature",
    "noise_parameter",
    "least_gain",
)
GAINS = {
    FrameType.I: ((2e-4, 0, 24.0), (5e-4, 0, 20.0), (2e-3, 300_000, 20.0)),
    FrameType.P: ((2e-4, 0, 24.0),),
    FrameType.B: (),
}
"""(lmbda, pixels, encoder_gain): the first entry with lmbda above the frame's, and at most as many pixels as the
picture, sets the gain. At high quality, latents are large, and larger steps reach them sooner
(docs/experiments/gain.md)."""
LARGE = 40_000
HUGE = 65_000
"""Pictures with at least this detail() get large or huge networks (docs/experiments/network-sizes.md)."""
SMALL = 7e6
"""Other pictures with fewer pixels than SMALL * sqrt(lmbda) get small networks (city, without the prior: mop is 2 %
better than hop at lambda 1e-3, and 1 % worse at 3e-4)."""
CURVED_DEPTH = 2
"""The encoder estimates the curvature of the loss for frames up to this depth: I, P and the first B. Deeper frames send
too few parameters to benefit."""

MEDIUM = Preset()
TABLE = {
    "fast": replace(
        MEDIUM,
        intra="mop",
        large_intra="mop",
        huge_intra="mop",
        p_residue="lop",
        b_residue="vlop",
        motion="lop",
        intra_iterations=500,
        p_iterations=350,
        b_iterations=250,
        b_iterations_per_depth=1.0,
        warmup=((2, 20),),
        coarse_start=0,
        motion_start=60,
        frequency_validation=25,
        curvature_samples=0.0,
        latent_rdo_rounds=2,
    ),
    "medium": MEDIUM,
    "slow": replace(
        MEDIUM,
        large_intra="vhop",
        huge_intra="xhop",
        intra_iterations=4600,
        p_iterations=3000,
        b_iterations=3000,
        final=300,
        warmup=((2, 700),),
        coarse_start=50,
        motion_start=500,
        frequency_validation=100,
        curvature_samples=16.0,
        rdo_rounds=1,
        latent_rdo_rounds=8,
        inherit_lr_scale=1.0,
    ),
    "placebo": replace(
        MEDIUM,
        intra="hop,mop",
        small_intra="mop,hop",
        large_intra="vhop,hop",
        huge_intra="xhop,vhop",
        p_residue="mop,hop",
        b_residue="mop,hop",
        intra_iterations=20000,
        p_iterations=10000,
        b_iterations=6000,
        final=1000,
        warmup=((2, 3000),),
        coarse_start=100,
        motion_start=1000,
        frequency_validation=100,
        step_search="full",
        curvature_samples=16.0,
        rdo_rounds=3,
        latent_rdo_rounds=16,
        inherit_lr_scale=1.0,
    ),
}


def training_types() -> dict[str, Any]:
    """The settings in EncodeConfig.training, name -> type: fields of Preset, and the fields of Phase in MAIN_PHASE."""
    preset = {name: kind for name, kind in get_type_hints(Preset).items() if name not in OPERATING_POINTS}
    phase = get_type_hints(Phase)
    return preset | {name: phase[name] for name in MAIN_PHASE}


def effective_preset(config: EncodeConfig) -> Preset:
    """The preset, with the fields that config.training sets. Raises ConfigError."""
    given = fit_table(dict(config.training), training_types(), "training")
    return replace(TABLE[config.preset], **{name: given[name] for name in given if name not in MAIN_PHASE})


def check_choices(config: EncodeConfig) -> None:
    """Raise ConfigError for an operating point or a training setting that does not exist or is out of range."""
    for branch, table in (("intra", INTRA), ("residue", RESIDUE), ("motion", MOTION)):
        if names := getattr(config, branch):
            _points(branch, names, table)
    if config.training:
        effective_preset(config)
        _main_phase(Phase(1), config)


def fit_intra(config: EncodeConfig, picture: Frame) -> EncodeConfig:
    """The config with the preset's operating point for I frames like this picture, unless the config names one."""
    if config.intra:
        return config
    preset = effective_preset(config)
    lmbda = config.lmbda_at(FrameType.I, 0) / _distortion_scale(config)
    found = detail(picture, lmbda)
    if found >= LARGE:
        return replace(config, intra=preset.huge_intra if found >= HUGE else preset.large_intra)
    is_small = picture.height * picture.width < SMALL * math.sqrt(lmbda)
    return replace(config, intra=preset.small_intra if is_small else preset.intra)


def frame_configs(
    config: EncodeConfig, frame_type: FrameType, depth: int, img_size: tuple[int, int]
) -> tuple[FrameConfig, ...]:
    """The configurations to try for a frame of this type and depth, one per operating point or pair of them.
    img_size: (height, width). I frames have the preset's `intra` unless the config names another (see fit_intra).
    Raises ConfigError for an unknown operating point."""
    preset = effective_preset(config)
    lmbda = config.lmbda_at(frame_type, depth)
    motions: tuple[CoolChicEncoderParameter | None, ...] = (None,)
    if frame_type is FrameType.I:
        residues = _parameters(config, "intra", config.intra or preset.intra, INTRA, img_size)
    else:
        usual = preset.p_residue if frame_type is FrameType.P else preset.b_residue
        residues = _parameters(config, "residue", config.residue or usual, RESIDUE, img_size)
        motions = _parameters(config, "motion", config.motion or preset.motion, MOTION, img_size)
    n_pixels, equivalent = img_size[0] * img_size[1], lmbda / _distortion_scale(config)
    gain = next((gain for limit, least, gain in GAINS[frame_type] if equivalent < limit and n_pixels >= least), None)
    if gain is not None:
        residues = tuple(replace(each, encoder_gain=gain) for each in residues)
    return tuple(
        FrameConfig(
            frame_type=frame_type,
            lmbda=lmbda,
            residue=residue,
            motion=motion,
            warper=_warper(config),
            training=_training(config, preset, frame_type, depth, equivalent),
            distortion=config.distortion,
            motion_estimator=config.motion_estimator,
        )
        for residue in residues
        for motion in motions
    )


def frame_config(config: EncodeConfig, frame_type: FrameType, depth: int, img_size: tuple[int, int]) -> FrameConfig:
    """The first of frame_configs(), for training a single frame."""
    return frame_configs(config, frame_type, depth, img_size)[0]


def _distortion_scale(config: EncodeConfig) -> float:
    """Divides a lambda to give the equivalent lambda for mean squared error, on which the rules here are based."""
    return check_scale(config.distortion.name, _distortion(config).scale)


def _distortion(config: EncodeConfig) -> DistortionPlugin:
    return cast(DistortionPlugin, make("distortion", config.distortion.name, dict(config.distortion.options)))


def _warper(config: EncodeConfig) -> PluginChoice:
    """The warper; an option that follows warp_filter_size has this value unless given. Raises ConfigError."""
    choice = config.plugin("warper", PluginChoice("sinc"))
    taken = followed("warper", choice.name, Ports(1, 1), {"warp_filter_size": config.warp_filter_size})
    if not taken and config.warp_filter_size != EncodeConfig().warp_filter_size:
        raise ConfigError(
            f"warp_filter_size is {config.warp_filter_size}, but the warper '{choice.name}' does not use it; "
            "leave it out or choose another warper"
        )
    return PluginChoice(choice.name, tuple({**taken, **dict(choice.options)}.items()))


def _parameters(
    config: EncodeConfig, branch: str, names: str, table: dict[str, dict[str, Any]], img_size: tuple[int, int]
) -> tuple[CoolChicEncoderParameter, ...]:
    """The operating points with these names, each once. Raises ConfigError for a name that is not in the table."""
    return tuple(_parameter(config, branch, table[name], img_size) for name in _points(branch, names, table))


def _points(branch: str, names: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of operating points, each once. Raises ConfigError for a name that is not in the table."""
    once = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in once:
        choose(f"{branch} operating point", name, tuple(table))
    return once


def _parameter(
    config: EncodeConfig, branch: str, point: Mapping[str, Any], img_size: tuple[int, int]
) -> CoolChicEncoderParameter:
    chosen: dict[str, Any] = {
        kind: choice for kind, choice in config.plugins if kind in ("arm", "upsampling", "synthesis")
    }
    randomness = branch != "motion" and (config.common_randomness or _distortion(config).common_randomness)
    return CoolChicEncoderParameter(img_size=img_size, flag_common_randomness=randomness, **point, **chosen)


def _training(config: EncodeConfig, preset: Preset, frame_type: FrameType, depth: int, lmbda: float) -> TrainingConfig:
    main = _main_iterations(preset, frame_type, depth)
    scale = config.iterations / max(1, intra_total(preset)) if config.iterations else 1.0
    is_intra = frame_type is FrameType.I

    def scaled(n: float) -> int:
        return max(1, round(n * scale)) if n else 0

    common = {
        "frequency_validation": max(1, scaled(preset.frequency_validation)),
        "network_rate_weight": preset.network_rate_weight,
    }
    warmup_noise = min(1.0, max(0.0, -0.0432 * math.log10(lmbda) + 0.0747))
    warmup = Phase(
        1,
        cosine_scheduling_lr=False,
        softround_temperature=(0.35 if is_intra else 0.3,) * 2,
        noise_parameter=(warmup_noise if is_intra else 0.25,) * 2,
        **common,  # type: ignore[arg-type]
    )
    phases = (
        Phase(
            scaled(main),
            softround_temperature=(0.35, 0.08) if is_intra else (0.3, 0.1),
            noise_parameter=(0.22, 0.15) if is_intra else (0.25, 0.1),
            **common,  # type: ignore[arg-type]
        ),
        Phase(
            scaled(preset.final),
            start_lr=1e-4,
            cosine_scheduling_lr=False,
            quantizer_type="hardround",
            quantizer_noise_type="none",
            **common,  # type: ignore[arg-type]
        ),
    )
    rounds = tuple(WarmupRound(n, replace(warmup, max_iterations=scaled(k))) for n, k in preset.warmup)
    return TrainingConfig(
        warmup=tuple(WarmupRound(r.candidates, _with_quantizer(r.phase, config.quantizer)) for r in rounds),
        phases=(_with_quantizer(_main_phase(phases[0], config), config.quantizer), phases[1]),
        motion_start=0 if is_intra else scaled(preset.motion_start),
        coarse_start=scaled(preset.coarse_start) if is_intra else 0,
        step_search=preset.step_search,
        curvature_samples=preset.curvature_samples if depth <= CURVED_DEPTH else 0.0,
        rdo_rounds=preset.rdo_rounds,
        latent_rdo_rounds=preset.latent_rdo_rounds,
        inherit_lr_scale=preset.inherit_lr_scale if frame_type is FrameType.B else 1.0,
    )


def _main_iterations(preset: Preset, frame_type: FrameType, depth: int) -> float:
    """Iterations of the main phase."""
    if frame_type is FrameType.B:
        return preset.b_iterations * preset.b_iterations_per_depth ** max(0, depth - FrameType.B.value)
    return preset.intra_iterations if frame_type is FrameType.I else preset.p_iterations


def intra_total(preset: Preset) -> int:
    """Training iterations of an I frame."""
    return preset.intra_iterations + preset.final + warmup_iterations(preset.warmup, preset.coarse_start)


def _main_phase(phase: Phase, config: EncodeConfig) -> Phase:
    given = fit_table(dict(config.training), training_types(), "training")
    return replace(phase, **{name: given[name] for name in given if name in MAIN_PHASE})


def _with_quantizer(phase: Phase, choice: PluginChoice | None) -> Phase:
    if choice is None:
        return phase
    noise = str(dict(choice.options).get("noise", phase.quantizer_noise_type))
    parameter = (2.0, 1.0) if noise == "kumaraswamy" else phase.noise_parameter
    return replace(phase, quantizer_type=str(choice), quantizer_noise_type=noise, noise_parameter=parameter)
