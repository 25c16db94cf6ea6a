"""FrameEncoder: the frame formula in floating point, and its agreement with the integer reconstruction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule
from coolvid.codec.fixed_point import ARM_OUT_BITS, CONTEXT_BITS
from coolvid.decoding.contexts import ContextModel
from coolvid.decoding.coolchic import choose_scales
from coolvid.decoding.frame import reconstruct_frame
from coolvid.encoding.model.compose import inter, round_flow, trust
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.translation import global_translation, translate
from coolvid.errors import ConfigError
from coolvid.picture.color import dense_planes
from coolvid.picture.quality import psnr
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.interfaces import WarperPlugin
from coolvid.settings.config import CoolChicEncoderParameter, EncodeConfig
from coolvid.settings.presets import frame_config

FORMATS = [
    VideoFormat(48, 64, PixelFormat.YUV420, 8),
    VideoFormat(35, 49, PixelFormat.YUV420, 10),
    VideoFormat(33, 34, PixelFormat.YUV444, 8),
    VideoFormat(32, 40, PixelFormat.RGB, 8),
]
SHIFT = 10


def smooth_frame(fmt, seed=0, offset=(0, 0)):
    """Waves of several lengths; offset moves the scene by whole pixels."""
    rng = np.random.default_rng(seed)
    planes = []
    for plane, (h, w) in enumerate(fmt.plane_shapes):
        n = 1 if (h, w) == (fmt.height, fmt.width) else 2
        y, x = np.mgrid[0:h, 0:w].astype(float) * n + np.array(offset, float)[:, None, None]
        waves = sum(np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-0.35, 0.35, (6, 3)) * (1, 1, 9))
        planes.append(np.clip((0.5 + 0.1 * waves + 0.02 * plane) * fmt.peak, 0, fmt.peak).astype(np.uint16))
    return Frame(tuple(planes), fmt)


def config_for(fmt, frame_type, **changes):
    config = frame_config(EncodeConfig(preset="fast"), frame_type, 2, (fmt.height, fmt.width))
    return replace(config, residue=replace(config.residue, **changes)) if changes else config


def encoder_for(fmt, frame_type, seed=0, **changes):
    references = [smooth_frame(fmt, i + 1) for i in range(frame_type.n_references)]
    encoder = FrameEncoder(config_for(fmt, frame_type, **changes), smooth_frame(fmt), references, seed=seed)
    return encoder, references


def quantized(encoder, seed=0):
    """Random parameters that are integers times 2**-SHIFT, and random whole latents, sparse in the fine grids."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, branch in encoder.branches.items():
            for module in branch.modules_by_name.values():
                for p in module.parameters():
                    p.add_(torch.from_numpy(rng.normal(0, 0.12, p.shape)).float())
                    p.copy_(torch.round(p * 2**SHIFT) / 2**SHIFT)
            for latent, grid in zip(branch.latents, branch.grids, strict=True):
                values = np.rint(rng.laplace(0, 0.3 * (1 + grid.log2) * (0.2 if name == "motion" else 1), latent.shape))
                latent.copy_(torch.from_numpy(values).float() / branch.param.encoder_gain)
    return encoder.eval()


def coded(encoder):
    branches = {}
    for name, branch in encoder.branches.items():
        modules = {}
        for module, tensors in branch.tensors.items():
            state = branch.modules_by_name[module].state_dict()
            integers = {t.name: torch.round(state[t.name] * 2**SHIFT).int().numpy() for t in tensors}
            modules[module] = CodedModule(integers, SHIFT, SHIFT)
        whole = CodedCoolChic(branch.architecture, modules, branch.quantized_latents())
        branches[name] = choose_scales(whole, encoder.format.height, encoder.format.width)
    shifts = encoder.global_translation
    references = tuple(range(1, 1 + len(shifts)))
    return CodedFrame(0, encoder.architecture, references, shifts, encoder.output_range, branches)


@pytest.mark.parametrize("frame_type", list(FrameType))
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_float_and_integer_pictures_agree(fmt, frame_type):
    encoder, references = encoder_for(fmt, frame_type, output_feature_ifce=2, ifce_resolution=(0, 2))
    quantized(encoder)
    integer = reconstruct_frame(coded(encoder), references, fmt)
    assert psnr(encoder.picture(), integer) > 55


def test_float_and_integer_agree_after_a_translation():
    fmt = FORMATS[0]
    references = [smooth_frame(fmt, 1), smooth_frame(fmt, 2)]
    encoder = FrameEncoder(config_for(fmt, FrameType.B), fmt, references, ((3, -5), (-70, 2)))
    integer = reconstruct_frame(coded(quantized(encoder)), references, fmt)
    assert psnr(encoder.picture(), integer) > 55


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
def test_float_and_integer_final_upsampling_agree(kind):
    changes = {"latent_resolution": (1, 4), "hyperlatent_resolution": None, "final_upsampling_type": kind}
    encoder, _ = encoder_for(FORMATS[1], FrameType.I, **changes)
    integer = reconstruct_frame(coded(quantized(encoder)), (), FORMATS[1])
    assert psnr(encoder.picture(), integer) > 55


def test_float_and_integer_common_randomness_agree():
    encoder, _ = encoder_for(FORMATS[0], FrameType.I, flag_common_randomness=True)
    integer = reconstruct_frame(coded(quantized(encoder)), (), FORMATS[0])
    assert psnr(encoder.picture(), integer) > 55


def test_float_and_integer_entropy_models_agree():
    fmt = FORMATS[0]
    encoder, _ = encoder_for(fmt, FrameType.I, output_feature_ifce=3, ifce_resolution=(0, 3))
    branch = quantized(encoder).branches["residue"]
    coolchic = coded(encoder).coolchics["residue"]
    model = ContextModel(coolchic.architecture, coolchic.modules, fmt.height, fmt.width)
    contexts = np.concatenate([model.contexts(i, coolchic.latents) for i in range(len(coolchic.latents))])
    flat = branch.rounded_latents()
    with torch.no_grad():
        expected = branch.contexts(flat)
        laplace = branch.modules_by_name["arm"](expected.t())
    assert np.abs(contexts * 2.0**-CONTEXT_BITS - expected.t().numpy()).max() <= 2.0**-CONTEXT_BITS
    difference = np.abs(model.laplace(contexts.astype(np.int32)) * 2.0**-ARM_OUT_BITS - laplace.numpy())
    assert difference.max() < 0.1 and difference.mean() < 0.02


@pytest.mark.parametrize("frame_type", list(FrameType))
@pytest.mark.parametrize("fmt", FORMATS[1:3], ids=str)
def test_forward_has_the_shape_of_the_format_and_trains_everything(fmt, frame_type):
    encoder, _ = encoder_for(fmt, frame_type)
    quantized(encoder).train()
    out = encoder("gaussian", "softround", 0.3, 0.2)
    planes = out.decoded_image
    tensors = [planes[k] for k in "yuv"] if isinstance(planes, dict) else [planes]
    if isinstance(planes, dict):
        assert tuple(t.shape[2:] for t in tensors) == fmt.plane_shapes
    else:
        assert planes.shape == (1, 3, fmt.height, fmt.width)
    (sum((t**2).sum() for t in tensors) + 1e-3 * out.rate).backward()
    assert out.rate.shape == ()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent
    moving = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert {n.split(".")[1] for n in moving} == set(encoder.branches)


@pytest.mark.parametrize("fmt", [FORMATS[0], FORMATS[2]])
def test_pictures_are_clamped_and_training_leads_them_back(fmt):
    encoder, _ = encoder_for(fmt, FrameType.I)
    bias = encoder.branches["residue"].modules_by_name["synthesis"].stabiliser.bias
    with torch.no_grad():
        bias.fill_(7.0)

    def slope(target):
        planes = encoder("none", "hardround").decoded_image
        planes = list(planes.values()) if isinstance(planes, dict) else [planes]
        assert all(bool((plane == 1.0).all()) for plane in planes)
        loss = torch.stack([(plane - target).square().mean() for plane in planes]).sum()
        return torch.autograd.grad(loss, bias)[0]

    assert bool((slope(1.0) == 0).all())
    assert bool((slope(0.9) > 0).all())
    encoder.eval()
    assert bool((slope(0.9) == 0).all())


def test_an_untrained_i_frame_shows_the_targets_minimum():
    encoder, _ = encoder_for(FORMATS[0], FrameType.I)
    low = [plane.min() for plane in dense_planes(smooth_frame(FORMATS[0]))]
    assert [int(plane.max()) for plane in encoder.picture().planes] == low
    assert encoder.output_range is not None and encoder.output_range[0][0] == low[0]


def test_an_untrained_p_frame_shows_half_its_reference():
    fmt = FORMATS[2]
    encoder, references = encoder_for(fmt, FrameType.P)
    shifted = translate(references[0].as_tensor(), encoder.global_translation[0])
    torch.testing.assert_close(encoder.eval()().decoded_image, shifted / 2, atol=1e-5, rtol=0)


def test_formula():
    raw = torch.tensor([0.1, 0.2, 0.3, 0.25, -2.0]).view(1, 5, 1, 1)
    a, b = torch.full((1, 3, 1, 1), 0.4), torch.full((1, 3, 1, 1), 0.8)
    torch.testing.assert_close(inter(raw, (a, b)), raw[:, :3] + 0.75 * b)
    torch.testing.assert_close(inter(raw[:, :4], (a,)), raw[:, :3] + 0.75 * a)
    assert trust(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]
    assert round_flow(torch.tensor([0.5 / 64, -0.5 / 64, 0.4 / 64, 1.0])).tolist() == [1 / 64, 0.0, 0.0, 1.0]


def test_groups_name_every_parameter_once():
    encoder, _ = encoder_for(FORMATS[0], FrameType.B)
    groups = encoder.named_groups()
    assert {id(p) for p in groups["all"]} == {id(p) for p in encoder.parameters()}
    assert len(groups["all"]) == len(list(encoder.parameters()))
    assert len(groups["all.arm"]) == len(groups["residue.arm"]) + len(groups["motion.arm"])
    assert groups["residue.latents"] == list(encoder.branches["residue"].latents)
    assert groups["residue.warper"] == []


def test_parameters_out_and_in_again():
    encoder, _ = encoder_for(FORMATS[0], FrameType.B)
    kept = encoder.get_param()
    quantized(encoder)
    encoder.set_param(kept)
    assert all(torch.equal(kept[name], value) for name, value in encoder.get_param().items())
    quantized(encoder)
    encoder.reinitialize_parameters(0)
    assert all(torch.equal(kept[name], value) for name, value in encoder.get_param().items())


def test_a_seeded_run_repeats_exactly():
    def run():
        encoder, _ = encoder_for(FORMATS[0], FrameType.P, seed=3)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            out = encoder("kumaraswamy", "softround", 0.3, 2.0)
            ((out.decoded_image["y"] - 0.3).square().mean() + 1e-6 * out.rate).backward()
            optimizer.step()
        return encoder.get_param()

    first, second = run(), run()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shift", [(0, 0), (3, -7), (-16, 9)])
def test_global_translation_is_found(shift):
    fmt = VideoFormat(72, 88, PixelFormat.YUV420, 8)
    target = smooth_frame(fmt)
    reference = smooth_frame(fmt, offset=(-shift[0], -shift[1]))
    assert global_translation(target, reference) == shift


def test_global_translation_stays_inside_for_unrelated_pictures():
    fmt = VideoFormat(16, 200, PixelFormat.YUV444, 8)
    rng = np.random.default_rng(5)
    planes = [tuple(rng.integers(0, 256, s).astype(np.uint16) for s in fmt.plane_shapes) for _ in range(2)]
    dy, dx = global_translation(Frame(planes[0], fmt), Frame(planes[1], fmt))
    assert abs(dy) <= 8 and abs(dx) <= 100


def test_translate_replicates_the_border():
    picture = torch.arange(12.0).view(1, 1, 3, 4)
    assert translate(picture, (1, -2))[0, 0].tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]


@pytest.mark.parametrize("complaint", ["references", "format", "img_size", "translations"])
def test_misfits_are_named(complaint):
    fmt, other = FORMATS[0], FORMATS[2]
    config = config_for(fmt, FrameType.P)
    arguments = {
        "references": (config, fmt, ()),
        "format": (config, fmt, (smooth_frame(other),)),
        "img_size": (config_for(other, FrameType.P), fmt, (smooth_frame(fmt),)),
        "translations": (config, fmt, (smooth_frame(fmt),), ((0, 0), (1, 1))),
    }
    with pytest.raises(ConfigError, match=complaint):
        FrameEncoder(*arguments[complaint])


def test_rates_and_complexity_add_up():
    encoder, _ = encoder_for(FORMATS[0], FrameType.B)
    assert encoder.get_network_rate()[1] == 0.0
    encoder.branches["motion"].set_network_quantization("synthesis", {"weight": 2**-20, "bias": 1.0})
    assert encoder.get_network_rate()[1] > 100
    encoder.get_flops()
    for branch in encoder.branches.values():
        branch.get_flops()
    assert encoder.total_flops == sum(branch.total_flops for branch in encoder.branches.values())
    assert "motion" in encoder.str_complexity() and encoder.get_total_mac_per_pixel() > 0


def test_smallest_frame():
    fmt = VideoFormat(16, 16, PixelFormat.YUV420, 8)
    assert isinstance(config_for(fmt, FrameType.I).residue, CoolChicEncoderParameter)
    for frame_type in FrameType:
        encoder, _ = encoder_for(fmt, frame_type)
        assert encoder.picture().format == fmt


def test_a_warper_that_knows_of_no_blocks_gives_the_same_picture(monkeypatch):
    """By default, vectors are repeated for the module; kernels of the built-in take them by blocks."""
    fmt = FORMATS[0]
    encoder = quantized(encoder_for(fmt, FrameType.B)[0])
    assert encoder.block == 4
    expected = encoder().decoded_image
    monkeypatch.setattr(type(encoder.warper_plugin), "warp_blocks", WarperPlugin.warp_blocks)
    monkeypatch.setattr(type(encoder.warper_plugin), "kernel", WarperPlugin.kernel)
    assert encoder.error_kernel(smooth_frame(fmt).as_tensor()) is None
    for name, plane in encoder().decoded_image.items():
        torch.testing.assert_close(plane, expected[name], atol=1e-5, rtol=0)
