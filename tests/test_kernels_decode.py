"""Every decoding kernel against its plain definition, bit for bit, for every instruction set of this machine."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from coolvid import kernels
from coolvid.bitstream import compiled, latents, parameters
from coolvid.bitstream.crc import crc32c, plain_crc32c
from coolvid.bitstream.latents import _decode_plain, _split, decode_latents, encode_latents
from coolvid.bitstream.parameter_model import blocks_of
from coolvid.bitstream.parameters import encode_numbers, plain_decode_numbers, plain_number_bits
from coolvid.bitstream.range_coder import COST_UNIT, COSTS, RangeDecoder, RangeEncoder
from coolvid.codec.architecture import NEIGHBOURS, Grid, Ports
from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.codec.fixed_point import FixedPoint, fit_weights, folded, shift_round
from coolvid.decoding import ContextModel
from coolvid.decoding.contexts import nearest
from coolvid.decoding.frame import composed, copied, plain_copied, translated
from coolvid.errors import StreamError
from coolvid.picture.color import dense_planes
from coolvid.picture.types import Frame, PixelFormat, VideoFormat
from coolvid.plugin.interfaces import ArmPlugin
from coolvid.plugin.modules import module_tensors
from coolvid.plugin.registry import load, record
from coolvid.settings.config import CoolChicEncoderParameter

SETS = kernels.available()
pytestmark = pytest.mark.skipif(not SETS, reason="no compiled kernels here")


@pytest.fixture(params=SETS or ["none"])
def kernel(request, monkeypatch):
    """Makes one instruction set's kernels the ones in use."""
    monkeypatch.setattr(kernels, "decode", kernels.load(request.param).decode)
    return kernels.decode


def integer_form(kind, name, class_name):
    """A class beside the plugin of this name: its integer form."""
    package = load(kind, name).__module__.rpartition(".")[0]
    return getattr(sys.modules[f"{package}.integer"], class_name)


def fixed(rng, shape, size, shift):
    return FixedPoint(rng.integers(-size, size + 1, shape).astype(np.int32), shift)


# Latents: contexts, hidden layers, IFCE features, magnitude of parameters, their shift, magnitude of latents.
MODELS = [
    (6, 1, 0, 100, 8, 1),
    (6, 2, 2, 100, 8, 2),
    (11, 2, 3, 60, 8, 6),
    (14, 2, 6, 90, 9, 3),
    (1, 0, 0, 100, 8, 1),
    (40, 3, 7, 30, 8, 2),
    (20, 2, 6, 1 << 20, 4, 300),
    (10, 0, 4, (1 << 23) - 1, 0, 9000),
    (10, 2, 4, 20, 31, 2),
]
SIZES = [(18, 25), (97, 61), (16, 16), (33, 150)]


def context_model(rng, settings, size):
    n_context, n_hidden, n_ifce, magnitude, shift, _ = settings
    architecture = CoolChicEncoderParameter(
        size,
        spatial_context_arm=n_context,
        n_hidden_layers_arm=n_hidden,
        output_feature_ifce=n_ifce,
        linear_stabiliser_arm=bool(n_context % 3),
        latent_resolution=(0, 3),
        hyperlatent_resolution=(2, 3),
    ).architecture(3, record)
    modules = {
        name: CodedModule({s.name: fixed(rng, s.shape, magnitude, 0).values for s in specs}, shift, shift)
        for name, specs in module_tensors(architecture).items()
    }
    scales = tuple(int(s) for s in rng.integers(0, 12, n_hidden))
    modules["arm"] = replace(modules["arm"], scales=scales)
    return architecture.grids(*size), ContextModel(architecture, modules, *size)


def random_latents(rng, grids, scale):
    """Sparse and dense ones; one grid is empty."""
    out = [np.rint(rng.laplace(scale=scale, size=g.shape)).astype(np.int32) for g in grids]
    out[0] *= rng.random(grids[0].shape) < 0.05
    out[2][:] = 0
    return tuple(np.clip(values, -32767, 32767) for values in out)


def plainly(payload, grids, model):
    present, parts = _split(payload, len(grids))
    return _decode_plain(parts, grids, present, model)


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("size", SIZES[:2])
def test_latents(kernel, settings, size, monkeypatch):
    rng = np.random.default_rng(settings[0])
    monkeypatch.setattr(latents, "BYTES_PER_SUBSTREAM", int(rng.choice([20, 200, 4096])))
    grids, model = context_model(rng, settings, size)
    assert compiled.folded(model) is not None
    values = random_latents(rng, grids, settings[5])
    payload = encode_latents(values, grids, model)
    found = decode_latents(payload, grids, model)
    assert all(np.array_equal(a, b) and a.dtype == np.int32 for a, b in zip(values, found, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_damaged_latents_give_the_same_error_or_latents(kernel, size, monkeypatch):
    monkeypatch.setattr(latents, "BYTES_PER_SUBSTREAM", 15)
    rng = np.random.default_rng(size[0])
    grids, model = context_model(rng, MODELS[2], size)
    whole = encode_latents(random_latents(rng, grids, 4), grids, model)
    for trial in range(12):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 1 + trial % 4):
            damaged[position] ^= int(rng.integers(1, 256))
        damaged = bytes(damaged[: len(damaged) - (trial % 3) * int(rng.integers(0, len(whole) // 2))])
        assert outcome(decode_latents, damaged, grids, model) == outcome(plainly, damaged, grids, model)


def outcome(function, *arguments):
    try:
        return [values.tolist() for values in function(*arguments)]
    except StreamError as error:
        return str(error)


def test_garbage_latents_give_the_same_error(kernel):
    rng = np.random.default_rng(5)
    grids, model = context_model(rng, MODELS[1], SIZES[0])
    for n in (1, 2, 3, 6, 7, 8, 40, 300):
        garbage = bytes([0x3F, 0xFF][: len(grids) // 6 + 1]) + rng.bytes(n)
        assert outcome(decode_latents, garbage, grids, model) == outcome(plainly, garbage, grids, model)


class Unknown(ArmPlugin):
    """An ARM without folded layers."""

    name = "unknown"

    def module(self): ...
    def integer(self, parameters, scales=None): ...


def test_an_unknown_arm_takes_the_plain_path(kernel):
    grids, model = context_model(np.random.default_rng(0), MODELS[0], SIZES[0])
    model.plugin, model.arm = Unknown((), Ports(1, 2)), lambda contexts: np.zeros((len(contexts), 2), np.int32)
    assert compiled.folded(model) is None
    values = tuple(np.ones(grid.shape, np.int32) for grid in grids)
    found = decode_latents(encode_latents(values, grids, model), grids, model)
    assert all(np.array_equal(a, b) for a, b in zip(values, found, strict=True))


def test_kernel_refuses_what_does_not_fit(kernel):
    grids, model = context_model(np.random.default_rng(0), MODELS[2], SIZES[0])
    form = compiled.folded(model)
    other = np.zeros((5, 3), np.int32), np.zeros(5, np.int32), 4
    for wrong in (
        replace(form, hidden=[other]),
        replace(form, output=other),
        replace(form, stabiliser=other),
        replace(form, n_features=5),
        replace(form, maps=(other, *form.maps[1:])),
    ):
        with pytest.raises(ValueError):
            compiled.decode_latents([b"\1"], grids, [True] * len(grids), model.n_context, wrong)
    with pytest.raises(ValueError):
        small = [Grid(g.log2, 2, 2, g.is_hyper) if g.log2 else g for g in grids]
        compiled.decode_latents([b"\1"], small, [True] * len(grids), model.n_context, form)


# Synthesis: layers (n_out, kernel, residual, relu), stabiliser, inputs, of these noise, magnitude, shift, scales.
LAYERS = [
    (((16, 1, False, True), (3, 1, False, False), (3, 3, True, True), (3, 3, True, False)),
     True, 7, 0, 100, 8, (8, 8, 9, 10)),
    (((5, 1, False, True), (4, 3, False, False)), False, 4, 0, 100, 8, (6, 9)),
    (((48, 1, False, True), (5, 1, False, False), (5, 5, True, True), (5, 7, True, False)),
     True, 9, 2, 50, 7, (9, 10, 8, 11)),
    (((3, 1, False, True),), True, 3, 1, 100, 8, (12,)),
    (((33, 3, False, False), (1, 3, False, True)), True, 1, 0, (1 << 23) - 1, 0, (15, 15)),
    (((8, 1, True, True), (8, 3, True, False)), True, 8, 4, 3, 31, (0, 0)),
    (((4, 1, False, False), (2, 1, False, False)), True, 5, 0, 1 << 18, 17, (0, 15)),
]  # fmt: skip


@pytest.mark.parametrize("layers, stabiliser, n_in, n_noise, size, shift, scales", LAYERS)
@pytest.mark.parametrize("height, width", [(1, 1), (5, 3), (9, 47), (16, 64)])
def test_synthesis(kernel, layers, stabiliser, n_in, n_noise, size, shift, scales, height, width):
    rng = np.random.default_rng(width)
    parameters, channels = {}, n_in
    for i, (n_out, k, _, _) in enumerate(layers):
        parameters[f"layers.{i}.weight"] = fixed(rng, (n_out, channels, k, k), size, shift)
        parameters[f"layers.{i}.bias"] = fixed(rng, (n_out,), size, shift)
        channels = n_out
    parameters["stabiliser.weight"] = fixed(rng, (channels, n_in - n_noise, 1, 1), size, shift)
    parameters["stabiliser.bias"] = fixed(rng, (channels,), size, shift)
    flags = tuple((residual, relu) for _, _, residual, relu in layers)
    form = integer_form("synthesis", "conv", "IntegerSynthesis")(flags, stabiliser, n_noise, parameters, scales)
    for limit in (300, 32767):
        planes = rng.integers(-limit - 1, limit + 1, (n_in, height, width)).astype(np.int32)
        for bits in (4, 12):
            assert np.array_equal(form(planes, bits), form.plain(planes, bits))


@pytest.mark.parametrize("k, pre", [(8, 7), (4, 1), (16, 15), (6, 3), (10, 5)])
@pytest.mark.parametrize("height, width", [(16, 16), (33, 70), (1, 1), (2, 131)])
def test_upsampling(kernel, k, pre, height, width):
    rng = np.random.default_rng(k * width)
    sizes = [(-(-height >> s), -(-width >> s)) for s in range(5)]
    for size, shift, bits, limit in ((600, 10, 6, 4), (1 << 23, 0, 0, 32767), (20, 31, 12, 40), (90, 7, 12, 32767)):
        parameters = {f"up.{s}": fixed(rng, (k // 2,), size, shift) for s in range(4)}
        parameters |= {f"pre.{s}": fixed(rng, ((pre + 1) // 2,), size, shift) for s in range(4)}
        form = integer_form("upsampling", "separable", "IntegerUpsampling")(4, parameters, (bits,))
        grids = [rng.integers(-limit, limit + 1, size).astype(np.int32) for size in sizes]
        grids[3][:] = 0
        assert np.array_equal(form(grids), form.plain(grids))
    alone = integer_form("upsampling", "separable", "IntegerUpsampling")(0, {}, (5,))
    assert np.array_equal(alone(grids[:1]), alone.plain(grids[:1]))


def flows(rng, height, width):
    """Vectors of every kind: none, whole pixels, blocks, one for each pixel, far outside."""
    blocks = nearest(rng.integers(-900, 900, (2, -(-height // 4), -(-width // 4))), 2, height, width)
    yield np.zeros((2, height, width))
    yield np.full((2, height, width), -3 << 6)
    yield blocks
    yield blocks * np.array([1, 0])[:, None, None]
    yield rng.integers(-200, 200, (2, height, width))
    yield blocks * rng.choice([1, 40, 1 << 11], (2, height, width))
    yield np.full((2, height, width), 5 << 20) * np.array([1, -1])[:, None, None]


@pytest.mark.parametrize("taps", [2, 4, 6, 8, 16])
@pytest.mark.parametrize("height, width", [(3, 5), (18, 37), (16, 66)])
def test_warp(kernel, taps, height, width):
    rng = np.random.default_rng(taps)
    warper = integer_form("warper", "sinc", "IntegerWarper")(taps)
    for flow in flows(rng, height, width):
        for channels, limit in ((3, 1023), (1, 255), (5, 32767)):
            reference = rng.integers(-limit * (limit > 1023), limit + 1, (channels, height, width)).astype(np.int32)
            assert np.array_equal(
                warper(reference, flow.astype(np.int32)), warper.plain(reference, flow.astype(np.int32))
            )
    beyond = np.full((1, height, width), 40000, np.int32)
    flow = np.zeros((2, height, width), np.int32)
    assert np.array_equal(warper(beyond, flow), warper.plain(beyond, flow))


FORMATS = [
    VideoFormat(18, 25, PixelFormat.YUV420, 8),
    VideoFormat(17, 64, PixelFormat.YUV420, 10),
    VideoFormat(33, 16, PixelFormat.YUV444, 8),
    VideoFormat(19, 21, PixelFormat.RGB, 10),
]


def picture(rng, format):
    return Frame(tuple(rng.integers(0, format.peak + 1, s).astype(np.uint16) for s in format.plane_shapes), format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("translation", [(0, 0), (3, -2), (-5, 7), (100, -100), (-16384, 16384)])
def test_warp_of_a_frame(kernel, format, translation):
    rng = np.random.default_rng(format.width)
    warper, reference = integer_form("warper", "sinc", "IntegerWarper")(8), picture(rng, format)
    for flow in flows(rng, format.height, format.width):
        flow = flow.astype(np.int32)
        expected = warper.plain(translated(dense_planes(reference), *translation), flow)
        assert np.array_equal(warper.of_frame(reference, translation, flow), expected)


@pytest.mark.parametrize("log2", [1, 2, 3])
def test_warp_of_a_frame_in_blocks(kernel, log2):
    """A vector for each block is the same vector for each of its pixels."""
    rng, format = np.random.default_rng(log2), FORMATS[0]
    warper, reference = integer_form("warper", "sinc", "IntegerWarper")(8), picture(rng, format)
    size = tuple(-(-n >> log2) for n in (format.height, format.width))
    for flow in flows(rng, *size):
        flow = flow.astype(np.int32)
        expected = warper.of_frame(reference, (3, -2), nearest(flow, log2, format.height, format.width))
        assert np.array_equal(warper.of_frame(reference, (3, -2), flow, log2), expected)
    with pytest.raises(ValueError):
        warper.of_frame(reference, (0, 0), np.zeros((2, size[0] + 1, size[1]), np.int32), log2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n_predictions", [0, 1, 2])
def test_compose(kernel, format, n_predictions):
    rng = np.random.default_rng(format.width + n_predictions)
    shape = format.height, format.width
    predictions = [rng.integers(-32768, 32768, (3, *shape)).astype(np.int32) for _ in range(n_predictions)]
    for bits in (0, 6, 12, 15):
        for ranges in (((0, format.peak),) * 3, ((16, 200), (1023, 0), (7, 7))):
            raw = rng.integers(-32768, 32768, (3 + n_predictions, *shape)).astype(np.int32)
            raw[:, ::2] >>= 15 - bits
            planes = kernel.compose(raw, bits, ranges, predictions, format.peak, format.pixel_format.is_subsampled)
            assert Frame(planes, format) == composed(raw, bits, ranges, predictions, format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shifts", [[(0, 0)], [(-3, 5)], [(0, 0), (2, -1)], [(-40, 3), (7, 90)]])
def test_mean_of_references(kernel, format, shifts):
    rng = np.random.default_rng(len(shifts))
    references = [picture(rng, format) for _ in shifts]
    assert copied(references, shifts, format) == plain_copied(references, shifts, format)


@pytest.mark.parametrize("shift", [3, -6, 0, 31])
def test_rounded(kernel, shift):
    planes = np.random.default_rng(0).integers(-32768, 32768, (4, 5, 7)).astype(np.int16)
    assert np.array_equal(kernel.rounded(planes, shift), shift_round(planes, shift))
    with pytest.raises(ValueError):
        kernel.rounded(planes, -16)


@pytest.mark.parametrize("n_noise", [0, 1, 2])
@pytest.mark.parametrize("size", [(16, 16), (33, 70), (1, 5), (64, 3), (131, 19), (391, 5)])
def test_latents_to_outputs_in_one(kernel, size, n_noise):
    """Upsampling, then synthesis: what both are alone, in one band of rows or in several."""
    rng = np.random.default_rng(size[1])
    grids = [rng.integers(-9, 10, tuple(-(-n >> s) for n in size)).astype(np.int32) for s in range(4)]
    grids[0][:] *= n_noise > 0
    parameters = {f"up.{s}": fixed(rng, (4,), 600, 10) for s in range(3)}
    parameters |= {f"pre.{s}": fixed(rng, (4,), 300, 10) for s in range(3)}
    upsampling = integer_form("upsampling", "separable", "IntegerUpsampling")(3, parameters, (6,))
    parameters, channels = {}, 4 + n_noise
    for i, (n_out, k) in enumerate(((7, 1), (5, 3), (5, 3))):
        parameters[f"layers.{i}.weight"] = fixed(rng, (n_out, channels, k, k), 99, 8)
        parameters[f"layers.{i}.bias"] = fixed(rng, (n_out,), 99, 8)
        channels = n_out
    parameters["stabiliser.weight"] = fixed(rng, (5, 4, 1, 1), 99, 8)
    parameters["stabiliser.bias"] = fixed(rng, (5,), 99, 8)
    flags = ((False, True), (False, True), (True, False))
    synthesis = integer_form("synthesis", "conv", "IntegerSynthesis")(flags, True, n_noise, parameters, (8, 7, 9))
    noise = rng.integers(-900, 901, (n_noise, *size)).astype(np.int32) if n_noise else None
    planes = upsampling.plain(grids)
    expected = synthesis.plain(planes if noise is None else np.concatenate((planes, noise)), 6)
    given = grids, *upsampling.folded(), noise, *synthesis.folded(6)
    assert all(np.array_equal(kernel.dense(*given, threads), expected) for threads in (1, 2, 5))
    with pytest.raises(ValueError):
        kernel.dense(*given, 0)


def test_crc(kernel):
    rng = np.random.default_rng(0)
    assert crc32c(b"123456789") == 0xE3069283
    for n in (*range(40), 1000):
        data = rng.bytes(n)
        assert crc32c(data) == plain_crc32c(data)


@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize("scale", [0.3, 5.0, 1e5])
def test_parameters(kernel, scale, predicted):
    rng = np.random.default_rng(3)
    specs = (TensorSpec("a", (12, 9, 3, 3)), TensorSpec("b", (4, 12)), TensorSpec("c", (5,)), TensorSpec("d", (5,)))
    blocks = blocks_of(specs, "weight")
    values = np.rint(rng.laplace(scale=scale, size=sum(b.size for b in blocks))).astype(np.int32)
    predictor = np.rint(rng.laplace(scale=scale, size=values.size)).astype(np.int32) if predicted else None
    encoder = RangeEncoder()
    encode_numbers(encoder, blocks, values, predictor)
    number, n_bits = encoder.finish()
    data = (number << -n_bits % 8).to_bytes(-(-n_bits // 8), "big")
    plain = RangeDecoder(data)
    start = plain.at, plain.value, plain.range
    assert np.array_equal(plain_decode_numbers(plain, blocks, predictor), values)
    table, probabilities = parameters.table(blocks), parameters.start_probabilities()
    fault, *state, found = kernel.parameters(data, *start, table, predictor, probabilities)
    assert fault == 0 and tuple(state) == (plain.at, plain.value, plain.range) and np.array_equal(found, values)
    cost = kernel.parameter_cost(values, table, predictor, probabilities, COSTS)
    assert cost / COST_UNIT == plain_number_bits(blocks, values, predictor)
    assert kernel.parameters(data[:4], *start, table, predictor, probabilities)[0] != 0
    assert kernel.parameters(b"\xff" * 99, *start[:1], 2**32 - 1, 2**32 - 1, table, predictor, probabilities)[0] == 2


def test_folded_layers_are_their_definition():
    rng = np.random.default_rng(1)
    weight, bias = fit_weights(fixed(rng, (4, 4), 99, 8), extra=1, least=8), fixed(rng, (4,), 99, 8)
    x = rng.integers(-999, 999, 4)
    values, offset, shift = folded(weight, bias, 4, 9, residual=True)
    exact = weight.as_float() @ x + x + bias.as_float() * 2**4
    assert np.array_equal(shift_round(values @ x + offset, shift), np.floor(exact * 2.0**5 + 0.5))


def test_no_kernels_is_a_choice(monkeypatch):
    monkeypatch.setattr(kernels, "decode", None)
    assert compiled.folded(SimpleNamespace(folded=lambda: 1)) is None
    assert crc32c(b"123456789") == 0xE3069283
    assert len(NEIGHBOURS) == 40
