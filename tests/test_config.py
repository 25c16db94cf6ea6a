"""Settings: what is accepted and becomes what, and what is refused with which words."""

from dataclasses import FrozenInstanceError, replace

import pytest

from coolvid.codec.gop import StructureConfig
from coolvid.errors import ConfigError
from coolvid.picture.types import FrameType, PixelFormat, VideoFormat
from coolvid.plugin import registry
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.interfaces import WarperPlugin
from coolvid.settings import presets
from coolvid.settings.config import (
    CoolChicEncoderParameter,
    EncodeConfig,
    FrameConfig,
    Phase,
    SynthesisLayer,
    TrainingConfig,
    WarmupRound,
    automatic_top,
    parse_layers,
)
from coolvid.settings.presets import HUGE, INTRA, LARGE, MOTION, RESIDUE, TABLE, fit_intra, frame_config
from pictures import noise

SIZE = (288, 352)


def parameter(**settings):
    return CoolChicEncoderParameter(img_size=SIZE, **settings)


CHOICES = [
    ("ste", PluginChoice("ste")),
    ("my-plugin.v2", PluginChoice("my-plugin.v2")),
    ("softround:noise=kumaraswamy", PluginChoice("softround", (("noise", "kumaraswamy"),))),
    ("conv:a=1,b=two", PluginChoice("conv", (("a", "1"), ("b", "two")))),
    ("conv:a=", PluginChoice("conv", (("a", ""),))),
]


@pytest.mark.parametrize("text, choice", CHOICES)
def test_plugin_choice_is_read_and_written(text, choice):
    assert PluginChoice.parse(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize("text", ["", ":a=1", "two words", "ste:noise", "ste:=1", "ste,a=1"])
def test_plugin_choice_refuses(text):
    with pytest.raises(ConfigError, match="write NAME or NAME:key=value"):
        PluginChoice.parse(text)


LAYERS = [
    ("48-1-linear-relu", SynthesisLayer(48, 1, False, "relu")),
    ("X-3-residual-none", SynthesisLayer(0, 3, True, "none")),
    ("3-7-linear-none", SynthesisLayer(3, 7, False, "none")),
]


@pytest.mark.parametrize("text, layer", LAYERS)
def test_synthesis_layer_is_read_and_written(text, layer):
    assert SynthesisLayer.parse(text) == layer
    assert str(layer) == text


def test_layers_from_text_or_tuple():
    text = "8-1-linear-relu,X-1-linear-none"
    assert parse_layers(text) == parse_layers(tuple(text.split(","))) == parse_layers(parse_layers(text))


BAD_LAYERS = [
    ("48-1-linear", "cannot read synthesis layer '48-1-linear'"),
    ("-1-1-linear-relu", "cannot read synthesis layer"),
    ("48-2-linear-relu", "synthesis layer: kernel '2'; choose one of: 1, 3, 5, 7"),
    ("0-1-linear-relu", "has no outputs"),
    ("257-1-linear-relu", "n_out is 257; choose 0..256"),
    ("48-1-dense-relu", "type 'dense'; choose one of: linear, residual"),
    ("48-1-linear-gelu", "activation 'gelu'; choose one of: none, relu"),
    ("", "cannot read synthesis layer"),
]


@pytest.mark.parametrize("text, message", BAD_LAYERS)
def test_synthesis_layer_refuses(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_layers(text)


def test_no_layers_is_no_synthesis():
    with pytest.raises(ConfigError, match="at least one layer"):
        parse_layers(())


BAD_PARAMETERS = [
    ({"ups_k_size": 7}, "ups_k_size is 7; choose an even size 4..16"),
    ({"ups_k_size": 2}, "ups_k_size is 2"),
    ({"ups_preconcat_k_size": 6}, "ups_preconcat_k_size is 6; choose an odd size 1..15"),
    ({"latent_resolution": (3, 2)}, r"latent_resolution is \(3, 2\)"),
    ({"latent_resolution": (0, 11)}, "inside 0..10"),
    ({"hyperlatent_resolution": (-1, 2)}, "hyperlatent_resolution"),
    ({"output_feature_ifce": 65}, "output_feature_ifce is 65; choose 0..64"),
    ({"spatial_context_arm": 0}, "spatial_context_arm is 0; choose 1..40"),
    ({"spatial_context_arm": 41}, "spatial_context_arm is 41"),
    ({"n_hidden_layers_arm": 9}, "n_hidden_layers_arm is 9"),
    ({"encoder_gain": 0.0}, "encoder_gain is 0.0"),
    ({"encoder_gain": float("nan")}, "encoder_gain is nan"),
    ({"final_upsampling_type": "cubic"}, "final_upsampling_type 'cubic'; choose one of: nearest, bilinear, bicubic"),
]


@pytest.mark.parametrize("settings, message", BAD_PARAMETERS)
def test_encoder_parameter_refuses(settings, message):
    with pytest.raises(ConfigError, match=message):
        parameter(**settings)


@pytest.mark.parametrize("size", [(8, 352), (288, 20000)])
def test_encoder_parameter_refuses_sizes(size):
    with pytest.raises(ConfigError, match="img_size"):
        CoolChicEncoderParameter(img_size=size)


@pytest.mark.parametrize(
    "size, top", [((16, 16), 6), ((1000, 999), 6), ((1000, 1000), 7), ((1080, 1920), 7), ((2000, 1500), 8)]
)
def test_automatic_resolution_follows_the_frame_size(size, top):
    assert automatic_top(size) == top
    chosen = CoolChicEncoderParameter(img_size=size)
    assert (chosen.latent_resolution, chosen.hyperlatent_resolution) == ((0, top), (4, top))


def test_no_ifce_features_means_no_ifce_resolution():
    assert parameter(output_feature_ifce=0).ifce_resolution is None


BAD_STRUCTURES = [
    ({"gop": 0}, "gop is 0; choose 1..4096"),
    ({"gop": 8, "intra_period": 12}, "intra_period 12 is not a multiple of gop 8; try 16"),
    ({"intra_period": -8}, "intra_period is -8"),
]


@pytest.mark.parametrize("settings, message", BAD_STRUCTURES)
def test_structure_refuses(settings, message):
    with pytest.raises(ConfigError, match=message):
        StructureConfig(**settings)


BAD_PHASES = [
    ({"max_iterations": -1}, "max_iterations is -1"),
    ({"start_lr": 2.0}, "start_lr is 2.0"),
    ({"frequency_validation": 0}, "frequency_validation is 0"),
    ({"patience": 0}, "patience is 0"),
    ({"quantizer_noise_type": "pink"}, "quantizer_noise_type 'pink'; choose one of: kumaraswamy, gaussian, none"),
    ({"softround_temperature": (0.3, 0.0)}, r"softround_temperature\[1\] is 0.0"),
    ({"noise_parameter": (-1.0, 0.1)}, r"noise_parameter\[0\] is -1.0"),
]


@pytest.mark.parametrize("settings, message", BAD_PHASES)
def test_phase_refuses(settings, message):
    with pytest.raises(ConfigError, match=message):
        Phase(**{"max_iterations": 10, **settings})


@pytest.mark.parametrize("candidates", [0, -1, 101])
def test_a_warm_up_round_refuses(candidates):
    with pytest.raises(ConfigError, match=f"warm-up round: candidates is {candidates}; choose 1..100"):
        WarmupRound(candidates, Phase(10))


BAD_ENCODES = [
    ({"lmbda": 0.0}, "lmbda is 0.0; choose 1e-07..10"),
    ({"lmbda": float("nan")}, "lmbda is nan"),
    ({"preset": "quick"}, "preset 'quick'; choose one of: fast, medium, slow, placebo"),
    ({"seed": -1}, "seed is -1"),
    ({"iterations": -1}, "iterations is -1"),
    ({"lmbda_per_depth": 0.0}, "lmbda_per_depth is 0.0"),
    ({"threads": -1}, "threads is -1"),
]


@pytest.mark.parametrize("settings, message", BAD_ENCODES)
def test_encode_config_refuses(settings, message):
    with pytest.raises(ConfigError, match=message):
        EncodeConfig(**settings)


def test_configurations_are_frozen_and_checked_again_by_replace():
    config = EncodeConfig()
    with pytest.raises(FrozenInstanceError):
        config.lmbda = 1.0
    assert replace(config, lmbda=0.5).lmbda == 0.5
    with pytest.raises(ConfigError):
        replace(config, preset="none")
    assert hash(config) == hash(EncodeConfig())


LMBDAS = [
    (FrameType.I, 0, 1.9, 1e-3),
    (FrameType.P, 1, 1.9, 1.3784048752090222e-3),
    (FrameType.P, 7, 1.9, 1.3784048752090222e-3),
    (FrameType.B, 2, 1.9, 3.61e-3),
    (FrameType.B, 3, 1.9, 6.859e-3),
    (FrameType.B, 4, 1.9, 13.0321e-3),
    (FrameType.I, 0, 4.0, 1e-3),
    (FrameType.P, 1, 4.0, 2e-3),
    (FrameType.B, 2, 4.0, 16e-3),
    (FrameType.P, 1, 1.0, 1e-3),
    (FrameType.B, 3, 1.0, 1e-3),
]


@pytest.mark.parametrize("frame_type, depth, per_depth, lmbda", LMBDAS)
def test_frames_that_others_refer_to_are_coded_finer(frame_type, depth, per_depth, lmbda):
    config = EncodeConfig(lmbda=1e-3, lmbda_per_depth=per_depth)
    assert config.lmbda_at(frame_type, depth) == pytest.approx(lmbda)
    assert frame_config(config, frame_type, depth, SIZE).lmbda == config.lmbda_at(frame_type, depth)


def test_the_default_lmbda_per_depth():
    assert EncodeConfig().lmbda_per_depth == 1.9


def test_frame_config_wants_motion_for_p_and_b_only():
    training = TrainingConfig((), (Phase(1),))
    with pytest.raises(ConfigError, match="a P frame needs a motion branch"):
        FrameConfig(FrameType.P, 1e-3, parameter(), None, PluginChoice("sinc"), training)
    with pytest.raises(ConfigError, match="a I frame has no motion branch"):
        FrameConfig(FrameType.I, 1e-3, parameter(), parameter(), PluginChoice("sinc"), training)


@pytest.mark.parametrize("preset", TABLE)
@pytest.mark.parametrize("frame_type", FrameType)
def test_every_preset_describes_every_frame(preset, frame_type):
    config = frame_config(EncodeConfig(preset=preset), frame_type, frame_type.value, SIZE)
    assert config.frame_type is frame_type
    assert (config.motion is None) == (frame_type is FrameType.I)
    assert config.training.phases[-1].quantizer_type == "hardround"
    assert config.training.total_iterations(is_fresh=True) > config.training.total_iterations(is_fresh=False) > 0


def test_slower_presets_do_more():
    totals = [
        frame_config(EncodeConfig(preset=p), FrameType.I, 0, SIZE).training.total_iterations(is_fresh=True)
        for p in ("fast", "medium", "slow", "placebo")
    ]
    assert totals == sorted(set(totals))


ITERATIONS = [
    # preset, frame type, depth, iterations of the main phase
    ("medium", FrameType.I, 0, 1700),
    ("medium", FrameType.P, 1, 1900),
    ("slow", FrameType.P, 1, 3000),
    ("fast", FrameType.B, 2, 250),
    ("fast", FrameType.B, 4, 250),
    ("medium", FrameType.B, 2, 750),
    ("medium", FrameType.B, 3, 450),
    ("medium", FrameType.B, 4, 270),
    ("slow", FrameType.B, 2, 3000),
    ("slow", FrameType.B, 5, 648),
]


@pytest.mark.parametrize("preset, frame_type, depth, iterations", ITERATIONS)
def test_iterations_of_the_main_phase(preset, frame_type, depth, iterations):
    made = frame_config(EncodeConfig(preset=preset), frame_type, depth, SIZE)
    assert made.training.phases[0].max_iterations == iterations


SCALES = [
    # preset, settings, frame type, inherit_lr_scale
    ("fast", {}, FrameType.B, 0.6),
    ("medium", {}, FrameType.B, 0.6),
    ("medium", {}, FrameType.P, 1.0),
    ("medium", {}, FrameType.I, 1.0),
    ("medium", {"inherit_lr_scale": 0.3}, FrameType.B, 0.3),
    ("slow", {}, FrameType.B, 1.0),
]


@pytest.mark.parametrize("preset, settings, frame_type, scale", SCALES)
def test_b_frames_that_inherit_learn_slower_where_iterations_are_few(preset, settings, frame_type, scale):
    made = frame_config(EncodeConfig(preset=preset, training=settings), frame_type, frame_type.value, SIZE)
    assert made.training.inherit_lr_scale == scale


@pytest.mark.parametrize("wanted", [12, 100, 3000])
@pytest.mark.parametrize("preset", TABLE)
def test_iterations_are_those_of_an_intra_frame(preset, wanted):
    made = frame_config(EncodeConfig(preset=preset, iterations=wanted), FrameType.I, 0, SIZE)
    assert made.training.total_iterations(is_fresh=True) == pytest.approx(wanted, abs=10, rel=0.05)


def test_only_a_fresh_frame_has_a_warm_up():
    rounds = (WarmupRound(3, Phase(20)), WarmupRound(2, Phase(5)))
    training = TrainingConfig(rounds, (Phase(100), Phase(10)), motion_start=7)
    assert training.total_iterations(is_fresh=True) == 3 * 20 + 2 * 5 + 7 + 100 + 10
    assert training.total_iterations(is_fresh=False) == 7 + 100 + 10
    coarse = replace(training, coarse_start=4)
    assert coarse.total_iterations(is_fresh=True) == training.total_iterations(is_fresh=True) + 4
    assert coarse.total_iterations(is_fresh=False) == 7 + 100 + 10
    assert TrainingConfig((), (Phase(100),), coarse_start=4).total_iterations(is_fresh=True) == 100


POINTS = [
    # pixels below SMALL * sqrt(lmbda): 70,000 at 1e-4 and 221,359 at 1e-3
    *(("medium", 1e-3, (470, 470), 0, "mop"), ("medium", 1e-3, (471, 471), 0, "hop")),
    *(("medium", 1e-4, (264, 265), 0, "mop"), ("medium", 1e-4, (288, 352), 0, "hop")),
    *(("fast", 1e-3, (288, 352), 0, "mop"), ("fast", 1e-3, (1080, 1920), 0, "mop")),
    *(("placebo", 1e-2, (720, 960), 0, "mop,hop"), ("placebo", 1e-2, (720, 1280), 0, "hop,mop")),
    # of any size
    *(("slow", 1e-3, (288, 352), LARGE - 1, "mop"), ("slow", 1e-3, (288, 352), LARGE, "vhop")),
    *(("slow", 1e-3, (512, 768), LARGE - 1, "hop"), ("slow", 1e-3, (512, 768), LARGE, "vhop")),
    *(("medium", 1e-3, (288, 352), LARGE, "hop"), ("placebo", 1e-2, (720, 1280), LARGE, "vhop,hop")),
    *(("slow", 1e-3, (288, 352), HUGE - 1, "vhop"), ("slow", 1e-3, (288, 352), HUGE, "xhop")),
    *(("medium", 1e-3, (288, 352), HUGE, "hop"), ("placebo", 1e-2, (720, 1280), HUGE, "xhop,vhop")),
    *(("fast", 1e-3, (1080, 1920), LARGE, "mop"), ("fast", 1e-3, (1080, 1920), HUGE, "mop")),
]


@pytest.mark.parametrize("preset, lmbda, size, n, point", POINTS)
def test_intra_networks_grow_with_the_picture_and_its_detail(preset, lmbda, size, n, point, monkeypatch):
    asked = []
    monkeypatch.setattr(presets, "detail", lambda *given: asked.append(given) or n)
    (picture,) = noise(VideoFormat(*size, PixelFormat.YUV420, 8), 1)
    config = EncodeConfig(preset=preset, lmbda=lmbda)
    assert fit_intra(config, picture) == replace(config, intra=point)
    assert asked == [(picture, lmbda)]
    named = replace(config, intra="lop")
    assert fit_intra(named, picture) is named


KODAK = (512, 768)
GAIN_CASES = [
    *(("I", 1.9e-4, SIZE, 24), ("I", 2e-4, SIZE, 20), ("I", 4.9e-4, SIZE, 20), ("I", 5e-4, SIZE, 16)),
    *(("I", 1.9e-4, KODAK, 24), ("I", 1.9e-3, KODAK, 20), ("I", 2e-3, KODAK, 16), ("I", 1e-3, (500, 599), 16)),
    *(("P", 9e-5, SIZE, 24), ("P", 4e-4, KODAK, 16), ("B", 9e-5, KODAK, 16)),
]


@pytest.mark.parametrize(("frame_type", "lmbda", "size", "gain"), GAIN_CASES)
def test_latents_of_fine_frames_move_in_larger_steps(
    frame_type: str, lmbda: float, size: tuple[int, int], gain: float
) -> None:
    assert frame_config(EncodeConfig(lmbda=lmbda), FrameType[frame_type], 1, size).residue.encoder_gain == gain


def test_an_operating_point_counts_for_pictures_of_every_size():
    for size in ((32, 48), (1080, 1920)):
        made = frame_config(EncodeConfig(intra="vhop"), FrameType.I, 0, size)
        assert made.residue.spatial_context_arm == INTRA["vhop"]["spatial_context_arm"]


def test_operating_points_override_the_preset():
    config = EncodeConfig(preset="fast", intra="vhop", residue="hop", motion="mop")
    intra = frame_config(config, FrameType.I, 0, SIZE)
    inter = frame_config(config, FrameType.B, 2, SIZE)
    assert intra.residue.spatial_context_arm == INTRA["vhop"]["spatial_context_arm"] == 20
    assert inter.residue.output_feature_ifce == RESIDUE["hop"]["output_feature_ifce"] == 4
    assert inter.motion is not None
    assert inter.motion.ifce_resolution == MOTION["mop"]["ifce_resolution"] == (2, 2)
    assert (inter.motion.latent_resolution, inter.motion.hyperlatent_resolution) == ((2, 6), None)


@pytest.mark.parametrize("branch", ["intra", "residue", "motion"])
def test_unknown_operating_point_is_named(branch):
    frame_type = FrameType.I if branch == "intra" else FrameType.P
    with pytest.raises(ConfigError, match=f"{branch} operating point 'top'; choose one of: .*lop"):
        frame_config(EncodeConfig(**{branch: "lop,top"}), frame_type, 0, SIZE)


def test_plugins_arrive_in_the_frame(other_distortions):
    own, warper = PluginChoice.parse("mlp:width=3"), PluginChoice.parse("sinc:taps=6")
    absolute = PluginChoice("absolute")
    config = EncodeConfig(
        plugins=(("arm", own), ("warper", warper)), quantizer=PluginChoice("ste"), distortion=absolute
    )
    made = frame_config(replace(config, distortion=absolute), FrameType.P, 1, SIZE)
    assert made.residue.arm == made.motion.arm == own and made.warper == warper and made.distortion == absolute
    assert [p.quantizer_type for p in made.training.phases] == ["ste", "hardround"]
    assert {r.phase.quantizer_type for r in made.training.warmup} == {"ste"}


def test_warp_filter_size_is_the_built_in_warpers_taps():
    made = frame_config(EncodeConfig(warp_filter_size=4), FrameType.P, 1, SIZE)
    assert made.warper == PluginChoice("sinc", (("taps", 4),))


def test_common_randomness_is_for_colours_not_for_motion():
    made = frame_config(EncodeConfig(common_randomness=True), FrameType.B, 2, SIZE)
    assert (made.residue.flag_common_randomness, made.motion.flag_common_randomness) == (True, False)


WARPERS = [
    ({}, ("sinc", {"taps": 8})),
    ({"warp_filter_size": 4}, ("sinc", {"taps": 4})),
    ({"warp_filter_size": 4, "plugins": (("warper", PluginChoice("sinc")),)}, ("sinc", {"taps": 4})),
    ({"plugins": (("warper", PluginChoice("sinc", (("taps", "6"),))),)}, ("sinc", {"taps": "6"})),
    ({"plugins": (("warper", PluginChoice("other")),)}, ("other", {})),
    ({"warp_filter_size": 4, "plugins": (("warper", PluginChoice("like")),)}, ("like", {"length": 4})),
]


@pytest.fixture
def warpers(monkeypatch):
    """Two more: 'like' follows the filter size, 'other' does not."""
    found = {"other": type("Other", (WarperPlugin,), {})}
    found["like"] = type("Like", (WarperPlugin,), {"follows": {"length": "warp_filter_size"}})
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: found.get(name) or load(kind, name))
    monkeypatch.setattr("coolvid.settings.config.require", lambda kind, name: None)


@pytest.mark.parametrize("settings, wanted", WARPERS)
def test_the_filter_size_reaches_the_warper(warpers, settings, wanted):
    choice = frame_config(EncodeConfig(**settings), FrameType.P, 1, (64, 64)).warper
    assert (choice.name, dict(choice.options)) == wanted


def test_a_filter_size_that_the_warper_does_not_follow(warpers):
    config = EncodeConfig(warp_filter_size=4, plugins=(("warper", PluginChoice("other")),))
    with pytest.raises(ConfigError, match="warp_filter_size is 4, but the warper 'other' does not use it"):
        frame_config(config, FrameType.P, 1, (64, 64))
