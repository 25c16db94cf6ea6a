"""Arguments of the Python interface: refused as those of the command line are, with field, value and choices."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

import coolvid
from coolvid import (
    ColorInfo,
    EncodeConfig,
    Frame,
    PixelFormat,
    PluginChoice,
    SourceSpec,
    StructureConfig,
    Target,
    VideoFormat,
)  # fmt: skip
from coolvid.errors import ConfigError, CoolvidError, UnknownPlugin
from coolvid.events import EncodeStarted
from coolvid.study.compare import compare
from coolvid.study.review import make_review
from coolvid.values import OneOf, Within, fit, parse_json, parse_toml
from pictures import noise

STREAM = next((Path(__file__).parent / "golden").glob("*.cvd"))
FORMAT = VideoFormat(16, 16, PixelFormat.YUV444, 8)

REFUSED = [
    (EncodeConfig, {"n_frames": -1}, "n_frames is -1; choose 0..2147483647"),
    (EncodeConfig, {"device": "foo"}, "device is 'foo'; choose cpu, or a device that PyTorch knows, for example cuda"),
    (EncodeConfig, {"device": None}, "device is None; write a string"),
    (EncodeConfig, {"threads": 1.5}, "threads is 1.5; write a whole number 0..1024"),
    (EncodeConfig, {"threads": -1}, "threads is -1; choose 0..1024"),
    (EncodeConfig, {"seed": 1.5}, "seed is 1.5; write a whole number 0..4294967295"),
    (EncodeConfig, {"seed": True}, "seed is true; write a whole number"),
    (EncodeConfig, {"iterations": 1.5}, "iterations is 1.5; write a whole number"),
    (EncodeConfig, {"lmbda": "0.1"}, "lmbda is '0.1'; write a number 1e-07..10"),
    (EncodeConfig, {"lmbda": float("nan")}, "lmbda is nan; choose 1e-07..10"),
    (EncodeConfig, {"lmbda": 10**400}, r"lmbda is 10+…; write a number"),
    (EncodeConfig, {"inherit": 1}, "inherit is 1; write true or false"),
    (EncodeConfig, {"preset": 3}, "preset '3'; choose one of: fast, medium, slow, placebo"),
    (EncodeConfig, {"residue": "foo"}, "residue operating point 'foo'; choose one of: vlop, lop, mop, hop"),
    (EncodeConfig, {"intra": None}, "intra is None; write a string"),
    (EncodeConfig, {"structure": {"gop": 1}}, "structure is .*; write a value of type StructureConfig"),
    (EncodeConfig, {"quantizer": "nope"}, "no quantizer named 'nope'; installed: hardround, none, softround"),
    (EncodeConfig, {"distortion": PluginChoice("nope")}, "no distortion named 'nope'; installed: "),
    (EncodeConfig, {"motion_estimator": 5}, "motion_estimator is 5; write a string, for example NAME"),
    (EncodeConfig, {"plugins": (("arm", PluginChoice("nope")),)}, "no arm named 'nope'; installed: mlp"),
    (EncodeConfig, {"plugins": (("foo", PluginChoice("mlp")),)}, "plugin kind 'foo'; choose one of: arm, upsampling"),
    (EncodeConfig, {"plugins": {"arm": "mlp"}}, "plugins is .*; write a list, for example"),
    (EncodeConfig, {"training": 5}, "training is 5; write a value of type Mapping"),
    (EncodeConfig, {"training": {"foo": 1}}, "no setting 'training.foo'; choose one of: "),
    (EncodeConfig, {"training": {"start_lr": 7}}, "start_lr is 7.0; choose 0..1"),
    (StructureConfig, {"gop": 2.5}, "gop is 2.5; write a whole number 1..4096"),
    (StructureConfig, {"intra_pos": 5}, "intra_pos is 5; write a list"),
    (StructureConfig, {"p_pos": (1, "2")}, r"p_pos\[1\] is '2'; write a whole number"),
    (PluginChoice, {"name": 5}, "name is 5; write a string"),
    (SourceSpec, {"scale": 32}, "scale is 32; write a list of 2"),
    (SourceSpec, {"size": (96.5, 64)}, r"size\[0\] is 96.5; write a whole number"),
    (SourceSpec, {"crop": (1, 2, 3)}, r"crop is \(1, 2, 3\); write a list of 4"),
    (SourceSpec, {"fps": 29.97}, "fps is 29.97; write a Fraction"),
    (SourceSpec, {"start": -1}, "start is -1; choose 0.."),
    (Target, {"quantity": "psnr", "value": "30"}, "target: value is '30'; write a number"),
    (Target, {"quantity": "ssim", "value": 1}, "target: quantity 'ssim'; choose one of: bpp, bitrate, psnr"),
    (VideoFormat, {"height": 32.5, "width": 32, "pixel_format": PixelFormat.RGB, "bit_depth": 8}, "height is 32.5"),
    (VideoFormat, {"height": 32, "width": 32, "pixel_format": "rgb", "bit_depth": 8}, "pixel_format is 'rgb'"),
    (ColorInfo, {"primaries": 256}, "primaries is 256; choose 0..255"),
    (Frame, {"planes": (1, 2, 3), "format": FORMAT}, r"planes are int64 \[\], .*; give arrays uint16 \[16, 16\]"),
]  # fmt: skip


@pytest.mark.parametrize("make, given, says", REFUSED)
def test_settings_are_refused_at_construction(make, given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make(**given)
    assert "\n" not in str(caught.value)


ACCEPTED = [
    (EncodeConfig, {"seed": np.int64(3), "lmbda": np.float64(0.5), "inherit": np.True_, "n_frames": np.uint8(2)}),
    (StructureConfig, {"gop": np.int32(4), "intra_pos": [0, np.int16(-1)]}),
    (SourceSpec, {"size": [np.int64(32), 16], "fps": 25}),
    (Target, {"quantity": "psnr", "value": 30}),
]


@pytest.mark.parametrize("make, given", ACCEPTED)
def test_numbers_of_numpy_and_lists_become_python_values(make, given):
    made = make(**given)
    for name in given:
        value = getattr(made, name)
        parts = value if isinstance(value, tuple) else (value,)
        assert {type(part) for part in parts} <= {int, float, bool, str, Fraction}, (name, value)
    assert replace(made) == made and hash(made) == hash(make(**given))


def test_a_name_stands_for_a_plugin():
    assert EncodeConfig(quantizer="softround:noise=gaussian").quantizer == PluginChoice.parse(
        "softround:noise=gaussian"
    )


def one_frame():
    return noise(FORMAT, 1)


CALLS = [
    (lambda out: coolvid.digest(STREAM, threads=-1), "threads is -1; choose 0..1024"),
    (lambda out: coolvid.digest(STREAM, threads=1.5), "threads is 1.5; write a whole number 0..1024"),
    (lambda out: coolvid.decode(STREAM, out, frames=[0, 1]), r"frames is \[0, 1\]; give a value of type range"),
    (lambda out: coolvid.decode(STREAM, "a\0b"), "out is 'a.x00b', which names no file"),
    (lambda out: coolvid.digest("a\0b"), "path is 'a.x00b', which names no file"),
    (lambda out: coolvid.read_info(None), "path is None; give the name of a file"),
    (lambda out: coolvid.report(STREAM, "a\0b"), "out is 'a.x00b'"),
    (lambda out: coolvid.report(STREAM, out, threads=True), "threads is true"),
    (lambda out: make_review(STREAM, "a\0b", out), "source is 'a.x00b'"),
    (lambda out: make_review(STREAM, "a", out, amplify="2"), "amplify is '2'; write a number"),
    (lambda out: compare("a\0b", out, [1e-3], []), "source is 'a.x00b'"),
    (lambda out: compare("a", out, [1e-3, 50.0], []), "lmbda is 50.0; choose 1e-07..10"),
    (lambda out: coolvid.encode("a\0b", out), "source is 'a.x00b'"),
    (lambda out: coolvid.encode("", out), "source is '', which names no file"),
    (lambda out: coolvid.encode("a", out, source_spec=None), "source_spec is None; give a value of type SourceSpec"),
    (lambda out: coolvid.encode("a", out, {"lmbda": 1}), "config is {'lmbda': 1}; give a value of type EncodeConfig"),
    (lambda out: coolvid.encode_to_target("a", out, "psnr"), "target is 'psnr'; give a value of type Target"),
    (lambda out: coolvid.encode_to_target("a", out, Target("psnr", 30), max_encodes=1.5), "max_encodes is 1.5; write"),
    (lambda out: coolvid.encode_frames([1], out), "frame 0 is 1; give a value of type Frame"),
    (lambda out: coolvid.encode_frames(one_frame(), out, fps=25.5), "fps is 25.5; write a Fraction"),
    (lambda out: coolvid.encode_frames(one_frame(), out, color=3), "color is 3; give a value of type ColorInfo"),
]  # fmt: skip


@pytest.mark.parametrize("call, says", CALLS)
def test_arguments_are_refused_in_one_line(tmp_path, call, says):
    with pytest.raises(ConfigError, match=says):
        call(tmp_path / "out.cvd")
    assert not list(tmp_path.iterdir())


UNUSABLE = [
    ({"device": "meta"}, "cannot train on device 'meta': .*; choose cpu"),
    ({"device": "cuda:99"}, "cannot train on device 'cuda:99': .*; choose cpu"),
    ({"quantizer": "softround:foo=1"}, "quantizer 'softround' has no option 'foo'; it has: noise"),
    ({"motion_estimator": "block_matching:foo=1"}, "motion 'block_matching' has no option 'foo'"),
    ({"distortion": "mse:foo=1"}, "distortion 'mse' has no option 'foo'"),
    ({"plugins": (("arm", "mlp:foo=1"),)}, "arm 'mlp' has no option 'foo'"),
]


@pytest.mark.parametrize("given, says", UNUSABLE)
def test_a_device_or_plugin_is_refused_before_the_encode_is_announced(tmp_path, given, says):
    told = []
    with pytest.raises(CoolvidError, match=says) as caught:
        coolvid.encode_frames(one_frame(), tmp_path / "out.cvd", EncodeConfig(**given), listen=told.append)
    assert not any(isinstance(event, EncodeStarted) for event in told) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_plugin_is_its_own_kind_of_error():
    with pytest.raises(UnknownPlugin):
        EncodeConfig(quantizer="nope")


FITS = [
    ("", int | None, None),
    (3, Annotated[int, Within(1, 4)], 3),
    (3, Annotated[float, Within(1, 4)], 3.0),
    ("b", Annotated[str, OneOf(("a", "b"))], "b"),
    ("auto", tuple[int, int] | Literal["auto"] | None, "auto"),
    ([1, 2], tuple[int, int] | Literal["auto"] | None, (1, 2)),
    ([1, 2], tuple[Annotated[float, Within(0, 9)], ...], (1.0, 2.0)),
]


@pytest.mark.parametrize("value, wanted, fitted", FITS)
def test_values_fit_annotations(value, wanted, fitted):
    found = fit(value, wanted, "x")
    assert found == fitted and type(found) is type(fitted)


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("parse, text", [(parse_toml, f"a = {DEEP}"), (parse_json, DEEP)])
def test_text_that_is_nested_too_deeply_is_a_value_error(parse, text):
    with pytest.raises(ValueError, match="it is nested too deeply"):
        parse(text)
