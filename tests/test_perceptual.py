"""Perceptual distortions: their values, slopes and scales, and encodes that use them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from coolvid_plugins.features import Steerable, Vgg16, lowpass, pyramid
from coolvid_plugins.perceptual import VARIANCE_FLOOR, ms_ssim, statistics, wasserstein

import coolvid
from coolvid.bitstream.stream import StreamReader
from coolvid.decoding.schedule import decode_stream
from coolvid.encoding.objective import Objective, distortion_function
from coolvid.errors import ConfigError
from coolvid.picture import quality
from coolvid.picture.color import to_rgb, to_yuv
from coolvid.picture.types import ColorInfo, Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config
from pictures import edge, waves

COLOR = ColorInfo(1, 1, 1, 1)
RGB = ColorInfo(1, 13, 0, 2)
YUV420 = VideoFormat(48, 64, PixelFormat.YUV420, 8)
CHOICES = ["ms_ssim", "ms_ssim:alpha=0.5,planes=all", "wasserstein", "wasserstein:log2_sigma=1.5,alpha=1.0"]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def picture(format=YUV420, seed=0):
    planes = [noise(1, 1, *shape, seed=seed + i) for i, shape in enumerate(format.plane_shapes)]
    return dict(zip("yuv", planes, strict=True)) if format.pixel_format.is_subsampled else torch.cat(planes, dim=1)


def blurred(plane):
    return lowpass(lowpass(plane))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "format", [YUV420, VideoFormat(17, 19, PixelFormat.RGB, 8), VideoFormat(16, 48, PixelFormat.YUV444, 10)]
)
def test_equal_pictures_have_no_distortion_and_others_have_slopes_everywhere(choice, format):
    measure = distortion_function(PluginChoice.parse(choice))
    target = picture(format)
    assert float(measure(target, target)) == pytest.approx(0.0, abs=1e-6)
    leaves = [
        t.clone().requires_grad_()
        for t in ([*picture(format, 9).values()] if isinstance(target, dict) else [picture(format, 9)])
    ]
    decoded = dict(zip("yuv", leaves, strict=True)) if isinstance(target, dict) else leaves[0]
    loss = measure(decoded, target)
    loss.backward()
    assert float(loss.detach()) > 0
    for leaf in leaves:
        assert bool(leaf.grad.isfinite().all()) and float((leaf.grad == 0).float().mean()) < 0.01


@pytest.mark.parametrize("choice", CHOICES)
def test_a_flat_picture_has_a_finite_slope(choice):
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    loss = distortion_function(PluginChoice.parse(choice))(flat, noise(1, 3, 32, 32))
    loss.backward()
    assert math.isfinite(float(loss.detach())) and bool(flat.grad.isfinite().all()) and float(flat.grad.abs().max()) < 1


@pytest.mark.parametrize("size", [(200, 180), (177, 176)])
def test_ms_ssim_is_the_measure(size):
    source = (noise(1, 1, *size) * 255).round() / 255
    other = (blurred(source) * 255).round() / 255
    frames = [
        Frame(
            tuple(np.rint(x[0, 0].numpy() * 255).astype(np.uint16) for _ in range(3)),
            VideoFormat(*size, PixelFormat.YUV444, 8),
        )
        for x in (source, other)
    ]
    assert float(ms_ssim(source.double(), other.double())) == pytest.approx(quality.ms_ssim(*frames), abs=1e-6)


@pytest.mark.parametrize("side, n_scales", [(16, 1), (22, 2), (87, 3), (88, 4), (176, 5), (1000, 5)])
def test_small_pictures_have_fewer_scales(side, n_scales):
    from coolvid_plugins.perceptual import _n_scales

    assert _n_scales((side, 2000)) == n_scales


def test_ms_ssim_of_luma_keeps_the_squared_error_of_chroma():
    target, decoded = picture(), picture(seed=5)
    decoded["y"] = target["y"]
    measure = distortion_function(PluginChoice.parse("ms_ssim"))
    assert float(measure(decoded, target)) == pytest.approx(
        float(distortion_function(PluginChoice("mse"))(decoded, target))
    )


def test_alpha_0_is_mean_squared_error():
    target, decoded = picture(), picture(seed=5)
    wanted = float(distortion_function(PluginChoice("mse"))(decoded, target))
    for name in ("ms_ssim", "wasserstein"):
        found = distortion_function(PluginChoice(name, (("alpha", 0.0),)))(decoded, target)
        assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_lowpass_and_pyramid():
    x = noise(1, 2, 9, 12)
    kernel = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    wanted = torch.nn.functional.conv2d(padded, kernel.expand(2, 1, 3, 3), groups=2)
    torch.testing.assert_close(lowpass(x), wanted)
    torch.testing.assert_close(lowpass(x, 2), wanted[..., ::2, ::2])
    assert [tuple(p.shape[-2:]) for p in pyramid(noise(1, 1, 33, 70), 4)] == [(33, 70), (17, 35), (9, 18)]


def test_statistics_are_local_means_and_deviations():
    x = noise(1, 3, 16, 16)
    (own,) = statistics(x, 0.0)
    assert own.deviation is None and torch.equal(own.mean, x) and own.weight == 1.0
    (one,) = statistics(x, 1.0)
    torch.testing.assert_close(one.mean, lowpass(x))
    torch.testing.assert_close(one.deviation, torch.sqrt(lowpass(x * x) - lowpass(x) ** 2 + VARIANCE_FLOOR))
    (signed,) = statistics(x - 0.5, 2.0)
    torch.testing.assert_close(signed.mean, lowpass(lowpass((x - 0.5).abs(), 2)))
    half = statistics(x, 1.5)
    assert [each.weight for each in half] == [0.5, 0.5] and half[1].mean.shape[-2:] == (8, 8)
    (three,) = statistics(x, 3.0)
    assert three.mean.shape[-2:] == (4, 4)


def test_a_map_of_one_value_equals_the_value():
    x, y = noise(1, 3, 32, 24), noise(1, 3, 32, 24, seed=1)
    for value in (0.0, 1.0, 2.5):
        level = torch.full((1, 1, 32, 24), value)
        by_map = wasserstein(statistics(x, level), statistics(y, level))
        assert float(by_map) == pytest.approx(float(wasserstein(statistics(x, value), statistics(y, value))), rel=1e-4)


def test_moved_texture_costs_less_than_blur_with_a_radius_and_more_without():
    source = noise(1, 1, 96, 96)
    moved, soft = source.roll((1, 1), (2, 3)), blurred(source)
    target = [torch.cat((p, p, p), dim=1) for p in (source, moved, soft)]
    near, far = (distortion_function(PluginChoice.parse(f"wasserstein:alpha=1.0,log2_sigma={s}")) for s in (0, 4))
    assert float(near(target[1], target[0])) > float(near(target[2], target[0]))
    assert float(far(target[1], target[0])) < float(far(target[2], target[0])) / 3


def test_a_sigma_map_comes_from_a_file(tmp_path):
    target, decoded = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=3)
    np.save(tmp_path / "map.npy", np.full((16, 16), 2.0))
    by_map = distortion_function(PluginChoice("wasserstein", (("sigma_map", str(tmp_path / "map.npy")),)))
    by_value = distortion_function(PluginChoice("wasserstein", (("log2_sigma", 2.0),)))
    assert float(by_map(decoded, target)) == pytest.approx(float(by_value(decoded, target)), rel=1e-4)
    np.save(tmp_path / "high.npy", np.full((16, 16), 9.0))
    for name, says in (("high.npy", "within 0..5"), ("none.npy", "cannot read sigma_map")):
        with pytest.raises(ConfigError, match=says):
            distortion_function(PluginChoice("wasserstein", (("sigma_map", str(tmp_path / name)),)))(decoded, target)


def vgg_weights():
    sizes = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
             17: (256, 512), 19: (512, 512), 21: (512, 512)}  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for number, (n_in, n_out) in sizes.items():
        weights[f"features.{number}.weight"] = torch.randn(n_out, n_in, 3, 3, generator=generator) / (3 * n_in**0.5)
        weights[f"features.{number}.bias"] = torch.zeros(n_out)
    return weights


def test_vgg16_takes_torchvisions_weights_from_a_file(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save(vgg_weights(), path)
    found = Vgg16.read(str(path), n_levels=1)(noise(1, 3, 32, 48), RGB)
    assert [tuple(each.shape[1:]) for each in found] == [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6)]
    measure = distortion_function(PluginChoice("wasserstein", (("features", "vgg16"), ("weights", str(path)))))
    assert float(measure(noise(1, 3, 32, 48), noise(1, 3, 32, 48, seed=1))) > 0


@pytest.mark.parametrize(
    "weights, says",
    [
        ("", "need weights=PATH"),
        ("text", "cannot read the VGG-16 weights"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "have no 'features.0.bias'"),
        ({"features.0.weight": torch.zeros(64, 3, 1, 1), "features.0.bias": torch.zeros(64)}, "has shape"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(tmp_path, weights, says):
    path = tmp_path / "weights.pth"
    if weights == "text":
        path.write_text("no weights")
    elif weights:
        torch.save(weights, path)
    choice = PluginChoice("wasserstein", (("features", "vgg16"), ("weights", str(path) if weights else "")))
    with pytest.raises(ConfigError, match=says) as caught:
        distortion_function(choice)(noise(1, 3, 32, 32), noise(1, 3, 32, 32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code, color, rgb",
    [
        ((16, 128, 128), ColorInfo(1, 1, 1, 1), (0, 0, 0)),
        ((235, 128, 128), ColorInfo(1, 1, 1, 1), (1, 1, 1)),
        ((255, 127.5, 127.5), ColorInfo(1, 1, 1, 2), (1, 1, 1)),
        ((81, 90, 240), ColorInfo(6, 6, 6, 1), (1, 0, 0)),  # BT.601 red
        ((63, 102, 240), ColorInfo(1, 1, 1, 1), (1, 0, 0)),  # BT.709 red
        ((255, 0, 0), RGB, (1, 0, 0)),
    ],
)
def test_yuv_becomes_rgb_by_its_matrix(code, color, rgb):
    dense = torch.tensor(code).view(1, 3, 1, 1).expand(1, 3, 4, 4) / 255
    assert to_rgb(dense, color)[0, :, 0, 0].tolist() == pytest.approx(rgb, abs=0.01)
    if color == RGB:
        y, u, v = (float(p[0, 0, 0, 0]) for p in to_yuv(dense, color))
        assert (y, u, v) == pytest.approx((0.2126, 0.5 - 0.2126 / 1.8556, 1.0), abs=1e-3)


def test_steerable_responses_are_of_one_direction():
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 40, 40)
    features = Steerable(1)(torch.cat((ramp, ramp, ramp), dim=1), COLOR)[0]
    inner = features[0, 1:, 10:30, 10:30].mean(dim=(1, 2))
    assert int(inner.argmax()) == 0 and float(inner[2]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("tune", ["ms_ssim", "wasserstein"])
def test_tune_selects_the_distortion_and_randomness(tune):
    config = EncodeConfig(preset="fast", tune=tune, alpha=0.7)
    assert config == EncodeConfig(preset="fast", distortion=PluginChoice(tune, (("alpha", 0.7),)))
    frame = frame_config(config, FrameType.P, 1, (48, 64))
    assert frame.distortion.name == tune
    assert frame.residue.flag_common_randomness == (tune == "wasserstein")
    assert not frame.motion.flag_common_randomness


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"tune": "vmaf"}, "tune 'vmaf'; choose one of: mse, ms_ssim, wasserstein"),
        ({"alpha": 0.5}, "alpha is 0.5; it weighs a perceptual tune: ms_ssim, wasserstein"),
        ({"tune": "ms_ssim", "alpha": 1.5}, "alpha is 1.5"),
        (
            {"tune": "ms_ssim", "distortion": PluginChoice("wasserstein")},
            "tune is ms_ssim and distortion is wasserstein",
        ),
    ],
)
def test_impossible_tunes_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        EncodeConfig(**settings)


def test_warm_up_minimizes_squared_error():
    config = frame_config(EncodeConfig(preset="fast", tune="wasserstein"), FrameType.I, 0, (48, 64))
    objective = Objective.of(config, edge(YUV420, 0))
    assert not objective.is_squared_error and objective.squared.is_squared_error
    assert objective.squared.lmbda == objective.lmbda
    plain = Objective.of(replace(config, distortion=PluginChoice("mse")), edge(YUV420, 0))
    assert plain.squared is plain


@pytest.mark.parametrize("tune", ["ms_ssim", "wasserstein"])
def test_an_encode_lowers_its_own_distortion(tmp_path, tune):
    """Of two streams of one frame, the tuned one has the lesser D + lambda R."""
    frame, loss = waves(YUV420, 1, grain=0.1)[0], {}
    config = EncodeConfig(preset="fast", iterations=120, tune=tune, lmbda=2e-3)
    objective = Objective.of(frame_config(config, FrameType.I, 0, (48, 64)), frame)
    for name in ("mse", tune):
        path = tmp_path / f"{name}.cvd"
        coolvid.encode_frames([frame], path, EncodeConfig(preset="fast", iterations=120, tune=name, lmbda=2e-3))
        with StreamReader(path) as reader:
            loss[name] = objective.of_packet(next(iter(decode_stream(reader))), reader.read(0))
    assert loss[tune] < loss["mse"]
