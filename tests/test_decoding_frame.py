"""The integer side of a frame: contexts, enlargement, noise, and the frame formula against slow versions of itself."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from coolvid.codec.architecture import NEIGHBOURS, FrameArchitecture, Ports
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule
from coolvid.codec.fixed_point import CONTEXT_BITS, INT16_MAX, INT16_MIN, FixedPoint, align_bias, fit_weights
from coolvid.decoding import ContextModel, choose_scales, common_noise, decode_coolchic, frame_parts, reconstruct_frame
from coolvid.decoding import coolchic as coolchic_file
from coolvid.decoding.frame import translated
from coolvid.decoding.resize import enlarge, taps
from coolvid.errors import StreamError
from coolvid.picture.color import dense_planes
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.modules import module_n_scales, module_tensors
from coolvid.plugin.registry import build, record
from coolvid.settings.config import CoolChicEncoderParameter

HEIGHT, WIDTH = 19, 27
LAYERS = "6-1-linear-relu,X-1-linear-none,X-3-residual-none"


def architecture(n_out=3, **changes):
    settings = {"layers_synthesis": LAYERS, "latent_resolution": (0, 3), "hyperlatent_resolution": (2, 4)}
    parameter = CoolChicEncoderParameter((HEIGHT, WIDTH), **{**settings, **changes})
    return parameter.architecture(n_out, record)


def coolchic(shape, seed=0, amplitude=2.0, magnitude=40.0, size=(HEIGHT, WIDTH)):
    """A Cool-chic of random integers, its scales chosen."""
    rng = np.random.default_rng(seed)
    modules = {}
    for name, specs in module_tensors(shape).items():
        values = {s.name: np.rint(rng.normal(size=s.shape) * magnitude).astype(np.int32) for s in specs}
        modules[name] = CodedModule(values, 8, 10)
    latents = tuple(np.rint(rng.laplace(size=g.shape) * amplitude).astype(np.int32) for g in shape.grids(*size))
    return choose_scales(CodedCoolChic(shape, modules, latents), *size)


def picture(format, seed):
    rng = np.random.default_rng(seed)
    return Frame(tuple(rng.integers(0, format.peak + 1, s).astype(np.uint16) for s in format.plane_shapes), format)


def coded_frame(frame_type, translation=(0, 0), seed=0, **changes):
    residue = architecture(frame_type.n_residue, **changes)
    n = frame_type.n_references
    coolchics, warper = {"residue": coolchic(residue, seed)}, None
    if n:
        motion = architecture(
            frame_type.n_motion,
            latent_resolution=(2, 4),
            hyperlatent_resolution=None,
            output_feature_ifce=0,
            final_upsampling_type="nearest",
        )
        coolchics["motion"] = coolchic(motion, seed + 1)
        warper = record("warper", "sinc", Ports(1, 1), {})
    shape = FrameArchitecture(frame_type, residue, coolchics["motion"].architecture if n else None, warper)
    ranges = None if n else ((16, 235), (20, 200), (0, 255))
    return CodedFrame(5, shape, tuple(range(n)), (translation,) * n, ranges, coolchics)


# Contexts --------------------------------------------------------------------------------------------------------


def test_contexts_are_the_causal_neighbours_then_the_features():
    coded = coolchic(architecture())
    model = ContextModel(coded.architecture, coded.modules, HEIGHT, WIDTH)
    for index, grid in enumerate(model.grids):
        contexts = model.contexts(index, coded.latents).reshape(*grid.shape, -1)
        features = model.features(index, coded.latents)
        assert np.array_equal(contexts[:, :, model.n_context :], features.transpose(1, 2, 0))
        for i, j in ((0, 0), (grid.height - 1, grid.width - 1), (grid.height // 2, grid.width // 2)):
            for k, (dy, dx) in enumerate(NEIGHBOURS[: model.n_context]):
                inside = 0 <= i + dy < grid.height and 0 <= j + dx < grid.width
                expected = int(coded.latents[index][i + dy, j + dx]) << CONTEXT_BITS if inside else 0
                assert contexts[i, j, k] == expected


def test_features_are_a_linear_map_of_the_coarser_grids():
    coded = coolchic(architecture(ifce_resolution=(0, 2), output_feature_ifce=3))
    model = ContextModel(coded.architecture, coded.modules, HEIGHT, WIDTH)
    ifce = coded.modules["ifce"]
    number = 0
    for index, grid in enumerate(model.grids):
        features = model.features(index, coded.latents)
        assert features.shape == (3, *grid.shape)
        if grid.log2 > 2:
            assert not features.any()
            continue
        weight, bias = ifce.parameters[f"maps.{number}.weight"], ifce.parameters[f"maps.{number}.bias"]
        number += 1
        coarser = [(g, y) for g, y in zip(model.grids, coded.latents, strict=True) if g.log2 > grid.log2]
        for i, j in np.ndindex(*grid.shape):
            row, column = (i >> 1) << (grid.log2 + 1), (j >> 1) << (grid.log2 + 1)
            values = np.array([y[row >> g.log2, column >> g.log2] for g, y in coarser])
            real = (weight * 2.0**-8) @ values + bias * 2.0**-10
            assert np.abs(features[:, i, j] * 2.0**-CONTEXT_BITS - real).max() <= 2.0 ** -(CONTEXT_BITS + 1) + 2.0**-9


def test_the_very_first_grid_sees_a_zero_plane():
    shape = architecture(latent_resolution=(0, 1), hyperlatent_resolution=None, ifce_resolution=(0, 1))
    coded = coolchic(shape)
    model = ContextModel(shape, coded.modules, HEIGHT, WIDTH)
    bias = FixedPoint(coded.modules["ifce"].parameters["maps.1.bias"], 10)
    features = model.features(1, [np.empty(0, np.int32)] * 2)
    beside_weights = FixedPoint(align_bias(bias, 8).astype(np.int32), 8)
    assert (features == align_bias(beside_weights, CONTEXT_BITS)[:, None, None]).all()


def test_features_need_the_coarser_grids_alone():
    coded = coolchic(architecture())
    model = ContextModel(coded.architecture, coded.modules, HEIGHT, WIDTH)
    for index, grid in enumerate(model.grids):
        hidden = [y if g.log2 > grid.log2 else None for g, y in zip(model.grids, coded.latents, strict=True)]
        assert np.array_equal(model.features(index, hidden), model.features(index, coded.latents))


def test_huge_latents_saturate_in_the_contexts():
    coded = coolchic(architecture())
    latents = tuple(np.full_like(y, (-1) ** i * 32767) for i, y in enumerate(coded.latents))
    model = ContextModel(coded.architecture, coded.modules, HEIGHT, WIDTH)
    contexts = model.contexts(0, latents)
    assert contexts.max() <= INT16_MAX and contexts.min() >= INT16_MIN
    assert contexts[-WIDTH // 2, 0] == INT16_MAX
    assert np.abs(model.laplace(contexts.astype(np.int32))).max() <= 1 << 30


# Enlargement and noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("log2, size, target", [(1, (3, 4), (6, 7)), (2, (2, 5), (7, 18)), (3, (1, 2), (5, 16))])
def test_enlarge_is_interpolation_between_pixel_centres(method, log2, size, target):
    torch = pytest.importorskip("torch")
    planes = np.random.default_rng(0).integers(-8000, 8000, (2, *size)).astype(np.int32)
    out = enlarge(planes, log2, method, *target)
    real = torch.nn.functional.interpolate(
        torch.from_numpy(planes)[None].double(), scale_factor=2**log2, mode=method, align_corners=False
    )[0, :, : target[0], : target[1]].numpy()
    assert out.dtype == np.int32
    assert np.abs(out - real).max() <= 4


def test_enlarge_nearest_and_by_nothing():
    planes = np.arange(6, dtype=np.int32).reshape(1, 2, 3)
    assert enlarge(planes, 1, "nearest", 3, 5)[0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert np.array_equal(enlarge(planes, 0, "bicubic", 2, 3), planes)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("log2", range(1, 11))
def test_enlarge_keeps_flat_planes(method, log2):
    assert all(sum(tap for _, tap in phase) == 1 << 14 for phase in taps(method, log2))
    flat = np.full((1, 2, 1), INT16_MIN, np.int32)
    assert (enlarge(flat, log2, method, 2 << log2, 1 << log2) == INT16_MIN).all()


def test_common_noise_is_nearly_gaussian_and_never_changes():
    shape = architecture(latent_resolution=(0, 2), flag_common_randomness=True)
    noise, bits = common_noise(shape, 64, 96)
    assert noise.shape == (3, 64, 96) and noise.dtype == np.int32
    assert abs(noise[0].std() * 2.0**-bits - 1) < 0.03
    assert abs(noise[0].mean() * 2.0**-bits) < 0.05
    assert np.abs(noise).max() < INT16_MAX
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    assert np.array_equal(common_noise(shape, 64, 96)[0], noise)
    assert hashlib.sha256(noise.astype("<i4").tobytes()).hexdigest()[:16] == "071ab7d556a7b3b3"


# One Cool-chic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latent_resolution": (2, 4), "ifce_resolution": (2, 2)},
        {"latent_resolution": (3, 3), "hyperlatent_resolution": None, "output_feature_ifce": 0},
        {"flag_common_randomness": True},
    ],
)
def test_decode_coolchic_fills_the_frame(final, changes):
    coded = coolchic(architecture(final_upsampling_type=final, **changes))
    out, bits = decode_coolchic(coded, HEIGHT, WIDTH)
    assert out.shape == (3, HEIGHT, WIDTH) and out.dtype == np.int32
    assert bits == coded.modules["synthesis"].scales[-1]
    peak = int(np.abs(out).max())
    assert peak <= INT16_MAX and (bits == 15 or peak > INT16_MAX // 4)
    assert {name: len(m.scales) for name, m in coded.modules.items()} == module_n_scales(coded.architecture)


def test_more_fractional_bits_change_nothing_but_rounding():
    """The chosen scales against coarser ones: the same picture, up to the coarser rounding."""
    coded = coolchic(architecture())
    fine, bits = decode_coolchic(coded, HEIGHT, WIDTH)
    last = replace(coded.modules["synthesis"], scales=(*coded.modules["synthesis"].scales[:-1], bits - 4))
    coarse, coarse_bits = decode_coolchic(replace(coded, modules={**coded.modules, "synthesis": last}), HEIGHT, WIDTH)
    assert np.abs(fine * 2.0**-bits - coarse * 2.0**-coarse_bits).max() <= 2.0**-coarse_bits


def test_arm_scales_come_from_a_sample_of_the_contexts(monkeypatch):
    coded = coolchic(architecture())
    monkeypatch.setattr(coolchic_file, "_CONTEXT_SAMPLE", 64)
    few = choose_scales(coded, HEIGHT, WIDTH).modules["arm"].scales
    assert all(abs(a - b) <= 1 for a, b in zip(few, coded.modules["arm"].scales, strict=True))


@pytest.mark.parametrize("value", [-(1 << 23) + 1, (1 << 23) - 1])
def test_extreme_parameters_and_latents_stay_in_range(value):
    coded = coolchic(architecture(flag_common_randomness=True))
    modules = {
        name: CodedModule({k: np.full_like(v, value) for k, v in m.parameters.items()}, 0, 31, m.scales)
        for name, m in coded.modules.items()
    }
    latents = tuple(np.full_like(y, 32767) for y in coded.latents)
    extreme = CodedCoolChic(coded.architecture, modules, latents)
    for each in (extreme, choose_scales(extreme, HEIGHT, WIDTH)):
        out, _ = decode_coolchic(each, HEIGHT, WIDTH)
        assert out.min() >= INT16_MIN and out.max() <= INT16_MAX


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("synthesis", {"scales": (3,)}, r"module 'synthesis' has scales \(3,\); expected 3"),
        ("upsampling", {"scales": (16,)}, "expected 1 values 0..15"),
        ("upsampling", {"parameters": {}}, r"parameter 'up.0' is absent; expected \(4,\)"),
    ],
)
def test_parameters_that_do_not_fit_are_stream_errors(name, change, message):
    coded = coolchic(architecture())
    modules = {**coded.modules, name: replace(coded.modules[name], **change)}
    with pytest.raises(StreamError, match=message):
        decode_coolchic(replace(coded, modules=modules), HEIGHT, WIDTH)


# The frame formula -----------------------------------------------------------------------------------------------


def slow_frame(coded, references, format):
    """The formula in floating point, on integers that the parts have rounded; chroma still 4:4:4. Code values."""
    raw, bits = decode_coolchic(coded.coolchics["residue"], format.height, format.width)
    raw = raw * 2.0**-bits
    if coded.output_range is not None:
        low, high = (np.array(side)[:, None, None] for side in zip(*coded.output_range, strict=True))
        return raw[:3] * (high - low) + low
    flow, flow_bits = decode_coolchic(coded.coolchics["motion"], format.height, format.width)
    flow = np.floor(flow * 2.0 ** (6 - flow_bits) + 0.5).astype(np.int32)
    warper = build("warper", coded.architecture.warper, Ports(1, 1)).integer({})
    alpha, *beta = np.clip(raw[3:] + 0.5, 0, 1)
    warped = []
    for i, (reference, (dy, dx)) in enumerate(zip(references, coded.global_translation, strict=True)):
        padded = np.pad(dense_planes(reference), ((0, 0), (40, 40), (40, 40)), mode="edge")
        moved = padded[:, 40 + dy : 40 + dy + format.height, 40 + dx : 40 + dx + format.width]
        warped.append(warper(moved, flow[2 * i : 2 * i + 2]) / 16)
    prediction = warped[0] if not beta else beta[0] * warped[0] + (1 - beta[0]) * warped[1]
    return alpha * prediction + raw[:3] * format.peak


@pytest.mark.parametrize("frame_type", FrameType)
@pytest.mark.parametrize("pixel_format, depth", [("yuv444", 8), ("yuv444", 10), ("rgb", 8)])
@pytest.mark.parametrize("translation", [(0, 0), (3, -5), (-30, 31)])
def test_frame_formula(frame_type, pixel_format, depth, translation):
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat(pixel_format), depth)
    references = [picture(format, i) for i in range(frame_type.n_references)]
    coded = coded_frame(frame_type, translation)
    frame = reconstruct_frame(coded, references, format)
    expected = np.clip(slow_frame(coded, references, format), 0, format.peak)
    distance = np.abs(np.stack(frame.planes) - expected)
    assert distance.max() <= 0.5 + 0.02 * 2 ** (depth - 8) + 0.1


@pytest.mark.parametrize("frame_type", FrameType)
def test_chroma_of_420_is_the_mean_before_rounding(frame_type):
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
    references = [picture(format, i) for i in range(frame_type.n_references)]
    coded = coded_frame(frame_type)
    frame = reconstruct_frame(coded, references, format)
    dense = np.pad(slow_frame(coded, references, format), ((0, 0), (0, 1), (0, 1)), mode="edge")
    blocks = dense.reshape(3, (HEIGHT + 1) // 2, 2, (WIDTH + 1) // 2, 2).mean(axis=(2, 4))
    for plane, block in zip(frame.planes[1:], blocks[1:], strict=True):
        assert np.abs(plane - np.clip(block, 0, 255)).max() <= 0.6


@pytest.mark.parametrize("frame_type", [FrameType.P, FrameType.B])
def test_parts_of_a_frame_make_the_frame(frame_type):
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV444, 8)
    references = [picture(format, i) for i in range(frame_type.n_references)]
    coded = coded_frame(frame_type, (3, -5))
    parts = frame_parts(coded, references, format)
    raw, bits = decode_coolchic(coded.coolchics["residue"], HEIGHT, WIDTH)
    made = parts.weights[0] / 4096 * np.stack(parts.prediction.planes) + raw[:3] * 2.0**-bits * format.peak
    frame = reconstruct_frame(coded, references, format)
    distance = np.abs(np.stack(frame.planes) - np.clip(made, 0, format.peak))
    is_clamped = np.isin(np.stack(parts.prediction.planes), (0, format.peak))
    assert distance[~is_clamped].max() <= 1.1 and not is_clamped.all()
    assert len(parts.weights) == len(parts.flow) == frame_type.n_references
    flow, flow_bits = decode_coolchic(coded.coolchics["motion"], HEIGHT, WIDTH)
    pixels = flow.reshape(-1, 2, HEIGHT, WIDTH) * 2.0**-flow_bits + np.array([-5, 3])[:, None, None]
    assert np.abs(parts.flow / 64 - pixels).max() <= 1 / 128


def test_an_intra_frame_has_no_parts():
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
    parts = frame_parts(coded_frame(FrameType.I), [], format)
    assert parts.prediction is None and parts.weights == () and parts.flow.shape == (0, 2, HEIGHT, WIDTH)


def test_translated_clamps_to_the_border():
    planes = np.arange(12, dtype=np.int32).reshape(1, 3, 4)
    assert translated(planes, 1, -1)[0].tolist() == [[4, 4, 5, 6], [8, 8, 9, 10], [8, 8, 9, 10]]
    assert (translated(planes, -99, 99) == 3).all()


def test_wrong_references_are_stream_errors():
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
    coded = coded_frame(FrameType.P)
    with pytest.raises(StreamError, match=r"frame 5 has 0 references .* a P frame has 1"):
        reconstruct_frame(coded, [], format)
    with pytest.raises(StreamError, match="another format"):
        reconstruct_frame(coded, [picture(replace(format, bit_depth=10), 0)], format)


def test_the_same_on_every_machine():
    """Golden pictures: when this changes, the stream format has changed."""
    format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
    digest = hashlib.sha256()
    for frame_type in FrameType:
        references = [picture(format, i) for i in range(frame_type.n_references)]
        frame = reconstruct_frame(coded_frame(frame_type, (1, 2)), references, format)
        for plane in frame.planes:
            digest.update(plane.astype("<u2").tobytes())
    assert digest.hexdigest()[:16] == "aa2c05774b503877"


def test_fit_weights_is_what_ifce_uses():
    """IFCE weights beyond the row limit lose precision, not range."""
    coded = coolchic(architecture(output_feature_ifce=1), magnitude=3e6)
    model = ContextModel(coded.architecture, coded.modules, HEIGHT, WIDTH)
    weight = fit_weights(FixedPoint(coded.modules["ifce"].parameters["maps.0.weight"], 8))
    assert weight.shift < 0
    features = model.features(0, coded.latents)
    assert features.min() >= INT16_MIN and features.max() <= INT16_MAX
