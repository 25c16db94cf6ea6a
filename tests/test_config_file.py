"""Configurations as TOML and as single settings: round trips, precedence, and what is said of mistakes."""

import tomllib
from pathlib import Path

import pytest

import coolvid
from coolvid import EncodeConfig, PluginChoice, StructureConfig
from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.picture.types import FrameType
from coolvid.settings.presets import TABLE, effective_preset, frame_config
from coolvid.settings.toml import (
    make_config,
    parse_setting,
    read_config,
    setting_names,
    settings_of,
    to_toml,
    write_config,
)

FULL = EncodeConfig(
    lmbda=2.5e-5,
    structure=StructureConfig(gop=4, intra_pos=(0, -1), p_pos=(4,)),
    preset="fast",
    seed=7,
    intra="lop",
    quantizer=PluginChoice("softround", (("noise", "gaussian"),)),
    plugins=(("warper", PluginChoice("sinc", (("taps", "6"),))), ("arm", PluginChoice("mlp"))),
    training={"warmup": ((2, 3), (1, 4)), "start_lr": 0.02, "noise_parameter": (0.2, 0.1)},
    lmbda_per_depth=1.25,
    common_randomness=True,
    inherit=False,
    device="cuda:1",
)


@pytest.mark.parametrize("config", [EncodeConfig(), FULL], ids=["defaults", "everything"])
def test_a_written_configuration_reads_back_as_itself(tmp_path, config):
    write_config(config, tmp_path / "run.toml")
    assert make_config([read_config(tmp_path / "run.toml")]) == config
    assert [p.name for p in tmp_path.iterdir()] == ["run.toml"]
    plain = tomllib.loads(to_toml(settings_of(config)))
    assert plain == {name: value for name, value in settings_of(config).items() if value != {}}


def test_every_setting_can_be_set_by_its_dotted_name():
    """To its own value, as the file says it."""
    flat = {}
    for name, value in settings_of(FULL).items():
        flat.update(
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    assert set(flat) <= set(setting_names())
    layers = [parse_setting(f"{name} = {to_toml({'v': value})[4:]}") for name, value in flat.items()]
    assert make_config(layers) == FULL
    assert {"structure.gop", "plugins.warper", "training.final", "training.max_iterations"} <= set(setting_names())


def test_text_of_any_kind_is_written():
    values = {"source": 'a "quoted" \\ näme', "lines": "1\n2\t3"}
    assert tomllib.loads(to_toml(values)) == values


SETTINGS = [
    ("preset=slow", {"preset": "slow"}),
    ('preset="slow"', {"preset": "slow"}),
    ("lmbda=1", {"lmbda": 1.0}),
    ("lmbda = 3e-4", {"lmbda": 3e-4}),
    ("inherit=false", {"inherit": False}),
    ("quantizer=softround:noise=gaussian", {"quantizer": PluginChoice("softround", (("noise", "gaussian"),))}),
    ("quantizer=", {"quantizer": None}),
    ("structure.p_pos=[2, -1]", {"structure": {"p_pos": (2, -1)}}),
    ("plugins.arm=mlp", {"plugins": {"arm": PluginChoice("mlp")}}),
    ("training.warmup=[[2,30],[1,5]]", {"training": {"warmup": ((2, 30), (1, 5))}}),
]


@pytest.mark.parametrize("text, layer", SETTINGS)
def test_a_setting_is_a_layer(text, layer):
    assert parse_setting(text) == layer


def test_later_layers_win_and_tables_are_joined():
    file = {"preset": "fast", "lmbda": 0.1, "structure": {"gop": 4, "intra_period": 8}, "training": {"final": 1}}
    made = make_config([file, parse_setting("structure.gop=2"), {"lmbda": 0.2, "structure": {}, "plugins": {}}])
    assert made == EncodeConfig(
        preset="fast", lmbda=0.2, structure=StructureConfig(gop=2, intra_period=8), training={"final": 1}
    )


BAD_SETTINGS = [
    ("structure.gopp=3", r"no setting 'structure.gopp'; did you mean structure.gop\? choose one of: structure.gop, "),
    ("gop=4", r"no setting 'gop'; did you mean structure.gop\? choose one of: lmbda, structure.NAME, preset"),
    ("lambda=1", r"no setting 'lambda'; did you mean lmbda\?"),
    ("training.max_iteration=1", r"did you mean training.max_iterations\? choose one of: training.intra_iterations"),
    ("training.intra=lop", "no setting 'training.intra'; choose one of: training.intra_iterations"),
    ("zzz=1", "no setting 'zzz'; choose one of: lmbda"),
    ("structure=3", "structure is a table, not 3; set one of: structure.gop, "),
    ("structure.gop=eight", "structure.gop is 'eight'; write a whole number"),
    ("structure.gop=true", "structure.gop is true; write a whole number"),
    ("seed=1.5", "seed is 1.5; write a whole number"),
    ("lmbda=small", "lmbda is 'small'; write a number"),
    ("inherit=1", "inherit is 1; write true or false"),
    ("preset=3", "preset is 3; write a string"),
    ("structure.p_pos=2", r"structure.p_pos is 2; write a list, for example \[8\]"),
    ("training.noise_parameter=[1]", r"training.noise_parameter is \[1\]; write a list of 2, for example \[0.5, 0.5\]"),
    ("training.warmup=[[2,x]]", r"training.warmup is '\[\[2,x\]\]'; write a list"),
    ('training.warmup=[[2,"x"]]', r"training.warmup\[0\]\[1\] is 'x'; write a whole number"),
    ("quantizer=3", "quantizer is 3; write a string, for example NAME or NAME:key=value"),
    ("quantizer=a b", "cannot read plugin choice 'a b'"),
    ("quantizer.name=ste", "quantizer is {'name': 'ste'}; write a string, for example NAME"),
    ("gop", "cannot read setting 'gop'; write NAME=VALUE, for example structure.gop=4"),
    ("=3", "cannot read setting '=3'"),
]


@pytest.mark.parametrize("text, message", BAD_SETTINGS)
def test_a_wrong_setting_is_named_with_the_choices(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_setting(text)


BAD_VALUES = [
    ("preset=quick", "preset 'quick'; choose one of: fast"),
    ("training.final=-1", "final is -1; choose 0..10000000"),
    ("training.warmup=[[0, 5]]", r"warmup\[0\]\[0\] is 0"),
    ("training.step_search=best", "step_search 'best'; choose one of: full, descent"),
    ("training.start_lr=2", "start_lr is 2.0"),
    ("intra=top", "intra operating point 'top'; choose one of: lop"),
    ("structure.intra_period=3", "intra_period 3 is not a multiple of gop 8"),
]


@pytest.mark.parametrize("text, message", BAD_VALUES)
def test_a_value_outside_its_choices_is_refused_before_any_encode(text, message):
    with pytest.raises(ConfigError, match=message):
        make_config([parse_setting(text)])


BAD_FILES = [
    ("gop = 4\n", ConfigError, "run.toml: no setting 'gop'"),
    ("[structure]\ngop = 'x'\n", ConfigError, "run.toml: structure.gop is 'x'"),
    ("lmbda = \n", ConfigError, "run.toml is not valid TOML: .*line 1"),
]


@pytest.mark.parametrize("content, kind, message", BAD_FILES)
def test_a_wrong_file_is_named(tmp_path, content, kind, message):
    (tmp_path / "run.toml").write_text(content)
    with pytest.raises(kind, match=message):
        read_config(tmp_path / "run.toml")


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(OutputError, match=r"cannot write .*run\.toml: the folder"):
        write_config(FULL, tmp_path / "none" / "run.toml")
    with pytest.raises(ConfigError, match="plugin kind 'quantizer'; choose one of: arm"):
        EncodeConfig(plugins=(("quantizer", PluginChoice("ste")),))


def frame(frame_type, **settings):
    return frame_config(EncodeConfig(**settings), frame_type, frame_type.value, (64, 64)).training


def test_training_settings_replace_those_of_the_preset():
    own = {"intra_iterations": 70, "final": 9, "warmup": ((1, 4),), "network_rate_weight": 0.5, "motion_start": 0}
    intra, b = (frame(t, preset="fast", training=own) for t in (FrameType.I, FrameType.B))
    assert [p.max_iterations for p in intra.phases] == [70, 9]
    assert [p.max_iterations for p in b.phases] == [TABLE["fast"].b_iterations, 9]
    assert [(r.candidates, r.phase.max_iterations) for r in intra.warmup] == [(1, 4)]
    assert {p.network_rate_weight for p in intra.phases} == {0.5}
    assert b.motion_start == 0
    assert effective_preset(EncodeConfig(preset="slow", training=own)).intra_iterations == 70


def test_settings_of_the_main_phase_are_exact_for_every_frame():
    own = {"max_iterations": 33, "start_lr": 0.004, "patience": 7, "softround_temperature": (0.5, 0.1)}
    for frame_type in FrameType:
        main, last = frame(frame_type, iterations=600, training=own).phases
        assert (main.max_iterations, main.start_lr, main.patience) == (33, 0.004, 7)
        assert main.softround_temperature == (0.5, 0.1)
        assert (last.start_lr, last.patience) == (1e-4, 10_000_000)


def test_iterations_scale_what_the_training_settings_say():
    made = frame(FrameType.I, iterations=100, training={"intra_iterations": 900, "final": 100, "warmup": ()})
    assert [p.max_iterations for p in made.phases] == [90, 10]


def test_the_written_file_encodes_to_the_same_bytes(tmp_path):
    card = Path(__file__).parents[1] / "sequences" / "tiny" / "card_64x48.png"
    base = {"preset": "fast", "iterations": 8, "threads": 1}
    config = make_config([base, parse_setting("training.final=3"), parse_setting("quantizer=ste")])
    write_config(config, tmp_path / "run.toml")
    coolvid.encode(card, tmp_path / "a.cvd", config)
    coolvid.encode(card, tmp_path / "b.cvd", make_config([read_config(tmp_path / "run.toml")]))
    coolvid.encode(card, tmp_path / "c.cvd", make_config([base]))
    a, b, c = ((tmp_path / f"{name}.cvd").read_bytes() for name in "abc")
    assert a == b != c
