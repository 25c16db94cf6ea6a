"""What plugins return is checked at the first call, in one line that names them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coolvid.bitstream.latents import encode_latents
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule
from coolvid.codec.fixed_point import FixedPoint
from coolvid.decoding import ContextModel
from coolvid.decoding.coolchic import choose_scales
from coolvid.decoding.frame import reconstruct_frame
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.errors import PluginError
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.contract import check_integers, check_scales, check_tensor
from coolvid.plugin.interfaces import BASES, ArmPlugin
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config

SHIFT = 10

GOOD = torch.ones(1, 3, requires_grad=True)
BROKEN = [
    (0.5, "returns a float; expected a tensor [1, 3] (see"),
    (GOOD[0], "returns a tensor [3]; expected a tensor [1, 3] (see"),
    (torch.ones(1, 3, dtype=torch.int32), "returns a tensor of torch.int32; expected one of floating-point numbers"),
    (GOOD.detach(), "returns a detached tensor; expected one that autograd can differentiate"),
    (GOOD * torch.tensor([1.0, torch.nan, torch.inf]), "returns 2 of 3 values that are not finite"),
]


@pytest.mark.parametrize("value, message", BROKEN)
def test_a_tensor_that_breaks_the_contract(value, message):
    with pytest.raises(PluginError) as caught:
        check_tensor("synthesis", "mine", value, (1, 3), needs_grad=True)
    assert str(caught.value).startswith(f"synthesis 'mine' {message}") and "\n" not in str(caught.value)


def test_a_tensor_that_keeps_it():
    check_tensor("synthesis", "mine", GOOD, (1, 3), needs_grad=True)
    check_tensor("synthesis", "mine", GOOD.detach(), (1, 3))
    check_tensor("distortion", "mine", GOOD.sum(), (), needs_grad=True)
    with pytest.raises(PluginError, match=r"returns a tensor \[1, 3\]; expected a scalar tensor"):
        check_tensor("distortion", "mine", GOOD, ())


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], "returns a list"),
        (np.ones(3, np.int32), "returns an array [3]; expected an integer array [2]"),
        (np.ones(2), "returns an array of float64"),
    ],
)
def test_integers_that_break_the_contract(value, message):
    with pytest.raises(PluginError) as caught:
        check_integers("arm", "mine", value, (2,))
    assert str(caught.value).startswith(f"arm 'mine' {message}")
    check_integers("arm", "mine", np.ones(2, np.int32), (2,))


# In a model: at the first call, by name ----------------------------------------------------------------------------

BREAKS = [
    (lambda out: out.flatten(), "returns a tensor ["),
    (lambda out: 0.5, "returns a float"),
    (lambda out: out.detach(), "returns a detached tensor"),
    (lambda out: out / 0 * 0, "values that are not finite"),
    (lambda out: out[..., 1:], "returns a tensor ["),
    (lambda out: out.numpy(force=True), "returns a ndarray"),
]
NAMES = {"arm": "mlp", "upsampling": "separable", "synthesis": "conv", "warper": "sinc"}


def frame(number):
    y, x = np.mgrid[:32, :48]
    planes = tuple(((3 * x + 5 * y + 9 * number + 40 * i) % 200 + 20).astype(np.uint16) for i in range(3))
    return Frame(planes, VideoFormat(32, 48, PixelFormat.YUV444, 8))


def p_frame():
    return FrameEncoder(frame_config(EncodeConfig(preset="fast"), FrameType.P, 1, (32, 48)), frame(1), [frame(0)])


@pytest.mark.parametrize("change, message", BREAKS)
@pytest.mark.parametrize("kind", NAMES)
def test_a_module_that_breaks_the_contract_is_named(kind, change, message, monkeypatch):
    encoder = p_frame()
    module = encoder.warper if kind == "warper" else encoder.branches["residue"].modules_by_name[kind]
    calls, forward = [], module.warp_blocks if kind == "warper" else module.forward

    def broken(*inputs):
        calls.append(0)
        return change(forward(*inputs))

    monkeypatch.setattr(module, "warp_blocks" if kind == "warper" else "forward", broken)
    monkeypatch.setattr(type(encoder.branches["residue"].plugins.arm), "rate", ArmPlugin.rate)
    with pytest.raises(PluginError) as caught:
        encoder.train()()
    assert str(caught.value).startswith(f"{kind} '{NAMES[kind]}' returns") and message in str(caught.value)
    assert len(calls) == 1


def test_rates_are_checked_too(monkeypatch):
    encoder = p_frame()
    monkeypatch.setattr(type(encoder.branches["residue"].plugins.arm), "rate", lambda *_: torch.zeros(()))
    with pytest.raises(PluginError, match=r"arm 'mlp' returns a tensor \[\]; expected a tensor \["):
        encoder.train()()


def test_numbers_that_training_broke_are_no_mistake_of_a_plugin():
    encoder = p_frame()
    with torch.no_grad():
        for parameter in encoder.branches["residue"].modules_by_name["synthesis"].parameters():
            parameter.fill_(torch.nan)
    assert not torch.isfinite(encoder.train()().decoded_image).any()


INTEGER_BREAKS = [
    ("arm", lambda out: out[0], "an array [2]; expected an integer array ["),
    ("upsampling", lambda out: out * 0.5, "an array of float64; expected an integer array ["),
    ("synthesis", lambda out: out.tolist(), "a list; expected an integer array ["),
    ("warper", lambda out: out[:, 1:], "an array [3, 31, 48]; expected an integer array [3, 32, 48]"),
]


@pytest.mark.parametrize("kind, change, message", INTEGER_BREAKS)
def test_an_integer_form_that_breaks_the_contract_is_named(kind, change, message, monkeypatch):
    encoder = p_frame()
    plugins = {**encoder.branches["residue"].plugins.by_name(), "warper": encoder.warper_plugin}
    plugin = plugins[kind]
    form = type(plugin.integer({s.name: FixedPoint(np.zeros(s.shape, np.int32), SHIFT) for s in plugin.tensors()}))
    call, shortcut = form.__call__, "of_frame" if kind == "warper" else "folded"
    monkeypatch.setattr(form, "__call__", lambda self, *inputs: change(call(self, *inputs)))
    monkeypatch.setattr(type(plugin), shortcut, getattr(BASES[kind], shortcut))
    with pytest.raises(PluginError) as caught:
        decoded(encoder)
    assert str(caught.value).startswith(f"{kind} '{NAMES[kind]}' returns {message}")


def decoded(encoder):
    """The picture of the encoder's latents and of networks of zeros, after its latents were coded."""
    branches = {}
    for name, branch in encoder.branches.items():
        zeros = {
            module: {s.name: np.zeros(s.shape, np.int32) for s in specs} for module, specs in branch.tensors.items()
        }
        modules = {module: CodedModule(values, SHIFT, SHIFT) for module, values in zeros.items()}
        branches[name] = choose_scales(CodedCoolChic(branch.architecture, modules, branch.quantized_latents()), 32, 48)
        model = ContextModel(branch.architecture, branches[name].modules, 32, 48)
        encode_latents([latent + 1 for latent in branches[name].latents], branch.grids, model)
    whole = CodedFrame(1, encoder.architecture, (0,), encoder.global_translation, None, branches)
    return reconstruct_frame(whole, [frame(0)], encoder.format)


def test_scales_that_break_the_contract():
    for scales in (None, (3,), (3, 16), (3, 0.5)):
        with pytest.raises(PluginError, match=r"arm 'mine' returns an integer form with scales \(.*2 whole numbers"):
            check_scales("arm", "mine", SimpleNamespace(scales=scales), 2)
    assert check_scales("arm", "mine", SimpleNamespace(scales=(3, 15)), 2) == (3, 15)
    assert check_scales("warper", "mine", object(), 0) == ()
