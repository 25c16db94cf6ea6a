"""The built-in encoder-only plugins: quantizers, distortion, motion estimators. Reached by name, as everybody does."""

import sys

import numpy as np
import pytest
import torch

from coolvid import EncodeConfig, FrameType, PixelFormat, VideoFormat
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.train import train
from coolvid.errors import ConfigError, PluginError
from coolvid.plugin.interfaces import TRAINED, QuantizerOptions, QuantizerPlugin
from coolvid.plugin.registry import make
from coolvid.settings.presets import frame_config
from pictures import waves

QUANTIZERS = ("softround", "softround_alone", "ste", "hardround", "none")
X = torch.linspace(-3.3, 3.3, 101, dtype=torch.float64)
NOISE = 0.1 * torch.sin(17 * X)


def slope(name, x, noise, temperature):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(make("quantizer", name).quantize(x, noise, temperature, TRAINED).sum(), x)
    return gradient


def staircase(x, t):
    """The formula as it is printed."""
    whole = torch.floor(x)
    return whole + torch.tanh((x - whole - 0.5) / t) / (2 * np.tanh(1 / (2 * t))) + 0.5


@pytest.mark.parametrize("t", [0.08, 0.35, 2.0])
def test_formulas(t):
    def quantize(name, noise=NOISE):
        return make("quantizer", name).quantize(X, noise, t, TRAINED)

    torch.testing.assert_close(quantize("softround_alone"), staircase(X, t))
    torch.testing.assert_close(quantize("softround"), staircase(staircase(X, t) + NOISE, t))
    torch.testing.assert_close(quantize("softround", None), staircase(staircase(X, t), t))
    torch.testing.assert_close(quantize("ste"), torch.round(X))
    torch.testing.assert_close(quantize("hardround"), torch.round(X))
    torch.testing.assert_close(quantize("none"), X + NOISE)
    torch.testing.assert_close(quantize("none", None), X)


def test_slopes():
    soft = slope("softround_alone", X, None, 0.3)
    torch.testing.assert_close(slope("ste", X, NOISE, 0.3), soft)
    assert (soft > 0).all()
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: make("quantizer", "softround").quantize(v, NOISE, 0.3, TRAINED), (x,))
    torch.testing.assert_close(slope("none", X, NOISE, 0.3), torch.ones_like(X))


def test_hardround_gives_latents_no_gradient():
    assert torch.equal(slope("hardround", X, None, 0.3), torch.zeros_like(X))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_temperature_may_be_a_tensor(name):
    quantizer = make("quantizer", name)
    tensor = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(
        quantizer.quantize(X, NOISE, tensor, TRAINED), quantizer.quantize(X, NOISE, 0.3, TRAINED)
    )


def test_mse_of_dense_and_subsampled_pictures():
    distortion = make("distortion", "mse").distortion
    a, b = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.25)
    assert distortion(a, b).item() == pytest.approx(1 / 16)
    half = torch.zeros(1, 1, 2, 2)
    decoded, target = {"y": a[:, :1], "u": half, "v": half}, {"y": b[:, :1], "u": half, "v": half}
    assert distortion(decoded, target).item() == pytest.approx(16 / 24 / 16)


def texture(height, width, seed=0):
    """Noise with a natural spectrum, in [0, 1]."""
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    x = np.real(np.fft.ifft2(noise / (0.01 + frequency) ** 1.5))
    return ((x - x.min()) / (x.max() - x.min())).astype(np.float32)


@pytest.mark.parametrize("dy, dx", [(0, 0), (1, -2), (10, 7), (-20, 15), (0, 30), (-30, 3)])
def test_block_matching_finds_translations(dy, dx):
    big = texture(220, 260)
    target, reference = big[40:180, 40:220], big[40 - dy : 180 - dy, 40 - dx : 220 - dx]
    flow = make("motion", "block_matching").flow(target, reference)
    assert flow.shape == (2, 140, 180) and flow.dtype == np.float32
    inner = flow[:, 35:-35, 35:-35]
    assert np.median(np.hypot(inner[0] - dx, inner[1] - dy)) < 0.15


def test_block_matching_finds_two_motions():
    big = texture(128, 192, 1)
    target, reference = big[16:112, 16:176], big[16:112, 16:176].copy()
    reference[:, :80] = big[13:109, 18:98]
    flow = make("motion", "block_matching").flow(target, reference)
    left, right = flow[:, 12:-12, 12:60], flow[:, 12:-12, 100:-12]
    assert np.abs(np.median(left, axis=(1, 2)) - (-2, 3)).max() < 0.1
    assert np.abs(right).max() < 0.1


@pytest.mark.parametrize("shape", [(16, 16), (17, 40), (25, 33)])
def test_block_matching_takes_small_odd_and_flat_pictures(shape):
    flat = np.full(shape, 0.5, dtype=np.float32)
    assert np.array_equal(make("motion", "block_matching").flow(flat, flat), np.zeros((2, *shape), dtype=np.float32))
    flow = make("motion", "block_matching", {"block": "5", "reach": "2"}).flow(texture(*shape), texture(*shape, 1))
    assert flow.shape == (2, *shape) and np.isfinite(flow).all()


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("block_matching", {"block": 1}, "block is 1; choose 2..64"),
        ("dis", {"preset": "slow"}, "ultrafast, fast, medium"),
    ],
)
def test_motion_options_are_checked(name, options, says):
    with pytest.raises(ConfigError, match=says):
        make("motion", name, options)


def test_dis_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(PluginError, match=r"pip install coolvid\[flow\]"):
        make("motion", "dis").flow(texture(32, 32), texture(32, 32))


def test_dis_finds_a_translation():
    pytest.importorskip("cv2")
    big = texture(160, 160)
    flow = make("motion", "dis").flow(big[16:144, 16:144], big[18:146, 13:141])
    assert np.abs(np.median(flow[:, 20:-20, 20:-20], axis=(1, 2)) - (3, -2)).max() < 0.3


class Returning(QuantizerPlugin):
    """A quantizer that returns what `change` makes of a straight-through rounding."""

    name = "returning"

    def __init__(self, change):
        super().__init__(QuantizerOptions())
        self.change = change

    def quantize(self, x, noise, temperature, state):
        return self.change(x + (x.round() - x).detach())


BROKEN = [
    (lambda y: y[None], "a tensor [1, "),
    (lambda y: y.sum(), "a tensor []"),
    (lambda y: float(y.sum().detach()), "a float"),
    (lambda y: y.detach(), "a detached tensor"),
    (lambda y: y.double(), "a tensor of torch.float64; expected one of torch.float32"),
    (lambda y: y / 0.0, "not finite"),
    (lambda y: y.no_such_method(), "AttributeError"),
]


@pytest.mark.parametrize("change, says", BROKEN)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_broken_quantizer_is_one_line_at_its_first_call(monkeypatch, change, says, compiled):
    if not compiled:
        monkeypatch.setattr("coolvid.encoding.model.fused_branch.compiled", None)
    monkeypatch.setattr("coolvid.encoding.model.coolchic.quantizer_plugin", lambda choice: Returning(change))
    frame = waves(VideoFormat(32, 48, PixelFormat.YUV444, 8), 1)[0]
    config = frame_config(EncodeConfig(preset="fast", intra="lop"), FrameType.I, 0, (32, 48))
    with pytest.raises(PluginError) as caught:
        train(FrameEncoder(config, frame), frame, Counters(), 1e-3, max_iterations=3, quantizer_type="returning")
    assert "quantizer 'returning'" in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_quantizer_learns_how_far_training_is(monkeypatch):
    seen = []

    class Watching(Returning):
        def quantize(self, x, noise, temperature, state):
            seen.append((state.iteration, state.total, state.progress))
            return super().quantize(x, noise, temperature, state)

    monkeypatch.setattr("coolvid.encoding.model.coolchic.quantizer_plugin", lambda choice: Watching(lambda y: y))
    frame = waves(VideoFormat(32, 48, PixelFormat.YUV444, 8), 1)[0]
    config = frame_config(EncodeConfig(preset="fast", intra="lop"), FrameType.I, 0, (32, 48))
    train(FrameEncoder(config, frame), frame, Counters(), 1e-3, max_iterations=4, quantizer_type="watching")
    assert seen == [(0, 4, 0.0), (1, 4, 0.25), (2, 4, 0.5), (3, 4, 0.75)]
