"""Every installed plugin passes its conformance checks, and the checks do find broken ones."""

import itertools
import sys
import textwrap
from pathlib import Path

import pytest

from coolvid import kernels, testing
from coolvid.errors import ConfigError, PluginError, UnknownPlugin
from coolvid.plugin import registry
from coolvid.plugin.interfaces import KINDS

INSTALLED = registry.installed()
_numbers = itertools.count()


@pytest.mark.parametrize("found", INSTALLED, ids=lambda found: f"{found.kind}-{found.name}")
def test_installed_plugin_conforms(found):
    if found.name == "dis":
        pytest.importorskip("cv2", reason="the optional part 'flow' is not installed")
    testing.check(found.kind, found.name)


def test_every_kind_has_a_built_in_plugin():
    assert {found.kind for found in INSTALLED} == set(KINDS)


CHOICES = [
    ("arm", "mlp", {"n_hidden": 0, "stabiliser": False}),
    ("arm", "mlp", {"n_hidden": "1", "stabiliser": "yes"}),
    ("upsampling", "separable", {"k_size": 4, "preconcat_k_size": 1}),
    ("synthesis", "conv", {"layers": ((0, 3, False, False),), "stabiliser": False}),
    ("synthesis", "conv", {"layers": "((4,3,False,True),(0,1,False,False))"}),
    ("warper", "sinc", {"taps": 2}),
    ("warper", "sinc", {"taps": "4"}),
    ("warper", "sinc", {"taps": 6}),
    ("quantizer", "softround", {"noise": "kumaraswamy"}),
]


@pytest.mark.parametrize("kind, name, options", CHOICES)
def test_built_in_plugin_conforms_with_options(kind, name, options):
    testing.check(kind, name, options)


def test_unknown_kind_and_name():
    with pytest.raises(ConfigError, match="'armour'; choose one of arm"):
        testing.check("armour", "mlp")
    with pytest.raises(UnknownPlugin, match="no arm named 'mpl'"):
        testing.check("arm", "mpl")


@pytest.fixture
def publish(tmp_path: Path, monkeypatch):
    """publish(kind, source): a distribution of one plugin, class P in module text `source`; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def make(kind: str, source: str) -> str:
        name = f"broken_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source).replace("NAME", name))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(f"[coolvid.{kind}]\n{name} = {name}:P\n")
        modules.append(name)
        registry.refresh()
        return name

    yield make
    monkeypatch.undo()
    registry.refresh()
    for name in modules:
        sys.modules.pop(name, None)


QUANTIZER = """
import torch
from dataclasses import dataclass
from coolvid.plugin.interfaces import PluginOptions, QuantizerPlugin
class P(QuantizerPlugin):
    name = "NAME"
    def quantize(self, x, noise, temperature, state):
        return {}
"""
BROKEN_QUANTIZERS = [
    ("x[1:]", r"\(210,\) becomes \(209,\)"),
    ("x.detach() * 1", "does not depend on x"),
    ("x + torch.rand_like(x)", "two calls with the same arguments differ"),
    ("x + 0 * torch.rand_like(x)", "global random generator"),
    ("x * 2", "values move by up to 10000"),
    ("x.abs().sqrt() * x.sign() * x.abs().sqrt()", "gradient are not finite"),
    ("x.data.add_(1) * 0 + x", "x was changed in place"),
    ("x / 0 * 0 + x", "output are not finite"),
    ("x.no_such_thing()", "AttributeError"),
]


@pytest.mark.parametrize("body, message", BROKEN_QUANTIZERS)
def test_broken_quantizers_are_found(publish, body, message):
    name = publish("quantizer", QUANTIZER.format(body))
    with pytest.raises(PluginError, match=rf"quantizer '{name}' fails 'quantize at .*{message}"):
        testing.check("quantizer", name)


DISTORTION = """
from coolvid.plugin.interfaces import DistortionPlugin
class P(DistortionPlugin):
    name = "NAME"
    def distortion(self, decoded, target, state):
        pairs = [(decoded[k], target[k]) for k in "yuv"] if isinstance(decoded, dict) else [(decoded, target)]
        return sum({} for d, t in pairs)
"""
BROKEN_DISTORTIONS = [
    ("(d - t).square().mean().sqrt()", "gradient are not finite"),
    ("(d - t).square()", "not that of a scalar"),
    ("d.square().mean()", "equal pictures have distortion"),
    ("0 * (d - t).square().mean()", "errors 0, 0.02, 0.2 have distortions"),
]


@pytest.mark.parametrize("body, message", BROKEN_DISTORTIONS)
def test_broken_distortions_are_found(publish, body, message):
    name = publish("distortion", DISTORTION.format(body))
    with pytest.raises(PluginError, match=rf"distortion '{name}' fails .*{message}"):
        testing.check("distortion", name)


MOTION = """
import numpy as np
from coolvid.plugin.interfaces import MotionPlugin
class P(MotionPlugin):
    name = "NAME"
    def flow(self, target, reference):
        return {}
"""
BROKEN_MOTIONS = [
    ("np.zeros((2, *target.shape), np.float32)", r"the median flow is x=0.00, y=0.00"),
    ("np.zeros((2, *target.shape))", "float64, not float32"),
    ("np.zeros((*target.shape, 2), np.float32)", "not \\(2, 64, 96\\)"),
    ("target.fill(0) or np.zeros((2, *target.shape), np.float32)", "changed in place"),
]


@pytest.mark.parametrize("body, message", BROKEN_MOTIONS)
def test_broken_motions_are_found(publish, body, message):
    name = publish("motion", MOTION.format(body))
    with pytest.raises(PluginError, match=rf"motion '{name}' fails .*{message}"):
        testing.check("motion", name)


# An ARM of one linear map, with holes for one mistake each.
ARM = """
from dataclasses import dataclass
import numpy as np
from coolvid.codec.fixed_point import ARM_OUT_BITS, CONTEXT_BITS, align_bias, shift_round
from coolvid.plugin.interfaces import ArmPlugin, PluginOptions
from coolvid.codec.coded_frame import TensorSpec

@dataclass(frozen=True)
class Options(PluginOptions):
    flag: bool = True

class P(ArmPlugin):
    name = "NAME"
    Options = Options
    def tensors(self):
        return (TensorSpec("weight", (2, self.ports.n_in)), TensorSpec("bias", (2,), "bias"))
    def module(self):
        import torch
        class Module(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x)
        return Module(self.ports.n_in, 2)
    def integer(self, parameters, scales=None):
        w, b = parameters["weight"], parameters["bias"]
        def run(x):
            bits = CONTEXT_BITS + w.shift
            out = x.astype(np.int64) @ w.values.T.astype(np.int64) + align_bias(b, bits)
            return shift_round(out, bits - ARM_OUT_BITS).astype(np.int32)
        return run
"""
BROKEN_ARMS = [
    ("", "", ""),
    ('name = "NAME"', 'name = "other"', "fails 'name': the class is named 'other'"),
    ("(2, self.ports.n_in)", "(self.ports.n_in, 2)", "fails 'state dict'"),
    ('(2,), "bias"', '(2,), "scale"', "fails 'tensors'"),
    ("super().forward(x)", "super().forward(x)[0]", "fails 'module output': the shape is"),
    ("super().forward(x)", "x @ self.weight.T", "fails 'gradients': no gradient reaches bias"),
    ("super().forward(x)", "super().forward(x.detach())", "fails 'gradients': no gradient reaches input 0"),
    ("super().forward(x)", "super().forward(x) / 0", "fails 'module output': .* not finite"),
    ("ARM_OUT_BITS)", "ARM_OUT_BITS + 1)", "fails 'float/integer agreement': .* at most 1% is allowed"),
    (".astype(np.int32)", "", "fails 'float/integer agreement': the output is int64"),
    ("+ align_bias(b, bits)", "+ len(x)", "fails"),
    ("bits = CONTEXT", "x[0] = 0; bits = CONTEXT", "fails 'float/integer agreement': ValueError"),
    ("return run", "self.n_scales = lambda: 1; run.scales = (17,); return run", "fails 'scales': scales"),
    ("import numpy", "import torch, numpy", "fails 'integer form without torch': .*importing torch"),
    (
        "    def module",
        "    def canonical(self, v):\n        return {**v, 'bias': v['bias'] + 1}\n    def module",
        "fails 'canonical parameters': they change the output by up to 1",
    ),
    (
        "    def module",
        "    def ordered(self, v):\n        return {k: x[::-1].copy() for k, x in v.items()}\n    def module",
        "fails 'ordered parameters': they change the output",
    ),
    ("out = x", "out = x - (x - x[0]) * (len(x) == 1) - x[-1] % 2 * (len(x) > 1)", "fails"),
]


@pytest.mark.parametrize("old, new, message", BROKEN_ARMS)
def test_broken_arms_are_found(publish, old, new, message):
    assert old in ARM
    name = publish("arm", ARM.replace(old, new))
    if not message:
        testing.check("arm", name, {"flag": "no"})
        return
    with pytest.raises(PluginError, match=rf"arm '{name}' {message}"):
        testing.check("arm", name)


def test_rows_that_depend_on_each_other_are_found(publish):
    name = publish("arm", ARM.replace("out = x", "x = x + (x == x[:1]) * (len(x) < 9); out = x"))
    with pytest.raises(PluginError, match="fails 'independence of rows': 50 of 50 rows change"):
        testing.check("arm", name)


# Plugins that compute twice what a built-in does, and forget to override its shortcuts one after the other.
TWICE = """
from coolvid.plugin.interfaces import BASES
from coolvid_plugins.PLACE import PLUGIN
from coolvid_plugins.KIND.integer import FORM

class Form(FORM):
    def __call__(self, *inputs):
        return FACTOR * super().__call__(*inputs)

class P(PLUGIN):
    name = "NAME"
    def module(self):
        module = super().module()
        forward = module.forward
        module.forward = lambda *inputs: FACTOR * forward(*inputs)
        return module
    def integer(self, parameters, scales=None):
        form = super().integer(parameters, scales)
        form.__class__ = Form
        return form
"""
KINDS_TWICE = {
    "arm": ("arm.mlp", "MlpArm", "IntegerMlp", ("folded", "rate", "kernel")),
    "upsampling": ("upsampling.separable", "SeparableUpsampling", "IntegerUpsampling", ("kernel", "folded")),
    "synthesis": ("synthesis.conv", "ConvSynthesis", "IntegerSynthesis", ("kernel", "folded")),
    "warper": ("warper.sinc", "SincWarper", "IntegerWarper", ("warp_blocks", "kernel", "of_frame")),
}
FORGOTTEN = [(kind, i) for kind, (*_, shortcuts) in KINDS_TWICE.items() for i in range(len(shortcuts) + 1)]


@pytest.mark.skipif(kernels.decode is None, reason="no compiled kernels here")
@pytest.mark.parametrize("kind, n_overridden", FORGOTTEN)
def test_a_shortcut_that_is_not_overridden_is_found(publish, kind, n_overridden, monkeypatch):
    monkeypatch.setattr(testing, "WARP_LIMIT", 1e9)
    monkeypatch.setattr("coolvid.plugin.conformance.INT16_MAX", 1 << 20)
    monkeypatch.setattr("coolvid.plugin.conformance.INT16_MIN", -1 << 20)
    place, plugin, form, shortcuts = KINDS_TWICE[kind]
    source = TWICE.replace("PLACE", place).replace("PLUGIN", plugin).replace("KIND", kind).replace("FORM", form)
    source = source.replace("FACTOR", "2")
    for shortcut in shortcuts[:n_overridden]:
        source += f"    {shortcut} = BASES['{kind}'].{shortcut}\n"
    name = publish(kind, source)
    if n_overridden == len(shortcuts):
        testing.check(kind, name)
        return
    with pytest.raises(PluginError, match=f"{kind} '{name}' fails '{shortcuts[n_overridden]}'"):
        testing.check(kind, name)
