"""Every training kernel, for every instruction set of this machine, against the plain modules in double precision.

Values and gradients agree within 1e-5 of their norm, and do not depend on the number of threads in any bit.
"""

import importlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from coolvid import kernels
from coolvid.bitstream.rans import RansEncoder
from coolvid.codec.architecture import Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.laplace import tables
from coolvid.encoding.model.compose import clamped, compose, inter, intra
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.fused import composed_error
from coolvid.encoding.model.fused_branch import flattened
from coolvid.encoding.model.network_rate import NetworkEstimate, estimated_bits
from coolvid.encoding.model.noise import NoiseSource
from coolvid.encoding.objective import Objective
from coolvid.encoding.training.optimizers import SOAP, FlatAdam, Optimizers
from coolvid.encoding.training.train import FrameTask
from coolvid.errors import ConfigError
from coolvid.picture.color import from_dense
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.interfaces import TRAINED
from coolvid.plugin.registry import load, make
from coolvid.settings.config import CoolChicEncoderParameter, EncodeConfig, Phase
from coolvid.settings.presets import INTRA, MOTION, RESIDUE, frame_config

pytestmark = pytest.mark.skipif(kernels.compiled is None, reason="no compiled kernels here")

TOLERANCE = 1e-5
FRAME_TOLERANCE = 1.6e-5  # scales down to e^-5 multiply the rounding of a latent by up to 148


@pytest.fixture(params=kernels.available())
def instruction_set(request, monkeypatch):
    """The kernels of one instruction set, in the place of those chosen at import."""
    chosen = kernels.load(request.param)
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("coolvid.", "coolvid_plugins.")) and hasattr(module, "compiled"):
            monkeypatch.setattr(module, "compiled", chosen)
    with kernels.using(0):
        yield chosen


def random(*shape, seed=0, scale=1.0):
    """Doubles that single precision holds exactly."""
    numbers = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(scale)
    return torch.from_numpy(np.asarray(numbers)).double()


def randomised(module, scale=0.2, seed=0):
    """The module, all parameters drawn anew."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed + i, scale=scale))
    return module


def slopes(function, module, inputs, dtype):
    """[outputs, gradients by inputs, gradients by parameters] of a fixed random combination of the outputs."""
    leaves = [x.to(dtype).clone().requires_grad_() for x in inputs]
    if module is not None:
        module.to(dtype).zero_grad(set_to_none=True)
    out = function(*leaves)
    outputs = [out] if isinstance(out, torch.Tensor) else list(out)
    weights = [random(*o.shape, seed=99 + i).to(dtype) for i, o in enumerate(outputs)]
    sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)).backward()
    own = [] if module is None else [p.grad for p in module.parameters() if p.grad is not None]
    return [t.detach() for t in (*outputs, *(x.grad for x in leaves if x.grad is not None), *own)]


def error(found, expected):
    difference = torch.linalg.vector_norm(found.double() - expected)
    return float(difference / torch.linalg.vector_norm(expected).clamp_min(1e-12))


def check(function, inputs, module=None, fused=None, expected=None, tolerance=TOLERANCE):
    """Single precision with kernels, on 1 and on 2 threads, against double precision without."""
    expected = slopes(function, module, inputs, torch.float64) if expected is None else expected
    runs = []
    for threads in (1, 2):
        with kernels.using(threads):
            runs.append(slopes(function, module, inputs, torch.float32))
    if fused is not None:
        out = function(*[x.float().requires_grad_() for x in inputs])
        assert fused in str((out if isinstance(out, torch.Tensor) else out[0]).grad_fn), "the kernels were not asked"
    assert len(runs[0]) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True)), "results depend on the number of threads"
    errors = [error(a, b) for a, b in zip(runs[0], expected, strict=True)]
    assert max(errors) <= tolerance, errors


# -- the shapes of the presets, and one that no preset has ----------------------------------------------------

ARBITRARY = {
    "spatial_context_arm": 9,
    "n_hidden_layers_arm": 3,
    "output_feature_ifce": 3,
    "ifce_resolution": (1, 3),
    "layers_synthesis": "11-1-linear-relu,7-1-linear-none,X-5-linear-none,X-1-residual-none,X-3-residual-relu",
}
SHAPES = {
    **{f"intra {name}": (given, 3) for name, given in INTRA.items()},
    **{f"residue {name}": (given, 5) for name, given in RESIDUE.items()},
    **{f"motion {name}": (given, 4) for name, given in MOTION.items()},
    "arbitrary": (ARBITRARY, 3),
}
SIZE = (39, 219)


@cache
def model(name, size=SIZE):
    """A model with random parameters, and random latents [N] for it."""
    given, n_out = SHAPES[name]
    parameter = CoolChicEncoderParameter(img_size=size, flag_common_randomness="lop" in name, **given)
    coolchic = randomised(CoolChicEncoder(parameter, n_out))
    with torch.no_grad():
        arm = coolchic.modules_by_name["arm"]
        for parameter in (p for n, p in arm.named_parameters() if n.endswith("output.bias")):
            parameter[1] = 4.0  # a scale of about 1
        for parameter in arm.hidden.parameters():
            parameter.mul_(0.3)
    n = sum(g.height * g.width for g in coolchic.grids)
    return coolchic, random(n, seed=7, scale=1.5)


@cache
def expected_of(part, name):
    return slopes(*part_of(part, name), torch.float64)


def part_of(part, name):
    """(function, module, inputs) of one part of a model."""
    coolchic, latents = model(name)
    module = coolchic.modules_by_name[part]
    if part == "arm":
        both = torch.nn.ModuleList([module, coolchic.modules_by_name["ifce"]])
        return lambda flat: coolchic._rate(flat, coolchic._split(flat)), both, [latents]
    if part == "upsampling":
        planes = zip(coolchic._split(latents), coolchic.grids, strict=True)
        return lambda *grids: module(grids), module, [p[None, None].clone() for p, g in planes if not g.is_hyper]
    ports = coolchic.architecture.synthesis_ports
    return module, module, [random(1, ports.n_in, *SIZE, seed=3)]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("part, fused", [("arm", "Rate"), ("upsampling", "Upsample"), ("synthesis", "Synthesise")])
def test_networks_of_the_presets(instruction_set, part, fused, name):
    function, module, inputs = part_of(part, name)
    check(function, inputs, module, fused, expected_of(part, name))


@pytest.mark.parametrize("size", [(16, 16), (17, 301), (70, 31)])
def test_entropy_model_of_any_size(instruction_set, size):
    coolchic, latents = model("intra hop", size)
    both = torch.nn.ModuleList([coolchic.modules_by_name[m] for m in ("arm", "ifce")])
    check(lambda flat: coolchic._rate(flat, coolchic._split(flat)), [latents], both, "Rate")


def test_total_rate_takes_one_pass(instruction_set):
    """Latents that count alike: the gradients that the forward pass made, scaled."""
    coolchic, latents = model("intra hop")
    both = torch.nn.ModuleList([coolchic.modules_by_name[m] for m in ("arm", "ifce")])
    check(lambda flat: coolchic._rate(flat, coolchic._split(flat)).sum() * 0.37, [latents], both)


def test_rates_alone_are_the_same_and_make_no_derivatives(instruction_set, monkeypatch):
    """Parameters ask for derivatives even where nobody will."""
    coolchic, latents = model("intra hop")
    coolchic, latents = coolchic.float(), latents.float()
    expected = coolchic._rate(latents, coolchic._split(latents))
    assert expected.requires_grad
    monkeypatch.setattr("coolvid_plugins.arm.fused._Rate", None)
    with torch.no_grad():
        assert torch.equal(coolchic._rate(latents, coolchic._split(latents)), expected)


UPSAMPLINGS = [
    ((19, 17), 4, 8, 7), ((64, 193), 7, 8, 7), ((33, 47), 5, 4, 1), ((70, 90), 7, 10, 5), ((30, 31), 3, 6, 3),
    ((35, 67), 2, 14, 9), ((1, 1), 3, 8, 7), ((2, 259), 5, 8, 7),
]  # fmt: skip


@pytest.mark.parametrize("size, n, k, pre_k", UPSAMPLINGS)
def test_upsampling(instruction_set, size, n, k, pre_k):
    cls = load("upsampling", "separable")
    module = randomised(cls(cls.Options(k, pre_k), Ports(n, n)).module(), 0.3)
    grids = [random(1, 1, -(-size[0] >> i), -(-size[1] >> i), seed=i) for i in range(n)]
    check(lambda *grids: module(grids), grids, module, "Upsample")


# layers (channels, kernel, residual, relu), stabiliser
SYNTHESES = {
    "5x5 last": (((4, 3, False, True), (4, 1, True, True), (3, 5, False, False)), True),
    "pointwise residual": (((9, 1, False, True), (9, 1, True, True), (6, 3, False, True)), True),
    "convolutions only": (((6, 3, True, True), (3, 3, False, False)), False),
    "one pointwise layer": (((3, 1, False, False),), False),
    "one convolution": (((2, 3, False, True),), True),
    "7x7": (((5, 1, False, True), (3, 7, False, False)), True),
    "wide": (((70, 1, False, True), (3, 1, False, False)), True),
}


@pytest.mark.parametrize("size", [(19, 17), (33, 213), (1, 1), (2, 5)])
@pytest.mark.parametrize("n_noise", [0, 2])
@pytest.mark.parametrize("case", SYNTHESES)
def test_synthesis(instruction_set, case, n_noise, size):
    layers, stabiliser = SYNTHESES[case]
    n_in = 6
    cls = load("synthesis", "conv")
    module = randomised(cls(cls.Options(layers, stabiliser), Ports(n_in, layers[-1][0], n_noise)).module(), 0.3)
    check(module, [random(1, n_in, *size)], module, "Synthesise")


# -- motion ---------------------------------------------------------------------------------------------------


def flows(rows, columns, far):
    """Some of many pixels, some whole numbers, and, if `far`, some beyond the picture or by thousands."""
    flow = random(1, 2, rows, columns, seed=5, scale=4.0)
    flow[:, :, rows // 2] = flow[:, :, rows // 2].round()
    if far:
        flow[0, 0, 0], flow[0, 1, :, 0], flow[0, :, -1, -1] = 300.25, -1000.5, 5000.125
    return flow


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("taps", [2, 4, 6, 8, 12, 16])
def test_warp(instruction_set, taps, block, far):
    size = (37, 53)
    cls = load("warper", "sinc")
    module = cls(cls.Options(taps=taps), Ports(1, 1)).module()
    reference = random(1, 3, *size, seed=2)
    flow = flows(-(-size[0] // block), -(-size[1] // block), far)

    def warped(flow):
        picture = reference.to(flow.dtype)
        return module(picture, flow) if block == 1 else module.warp_blocks(picture, flow, block)

    check(warped, [flow], fused="Warp")


def test_warp_survives_flows_that_are_no_numbers(instruction_set):
    cls = load("warper", "sinc")
    module = cls(cls.Options(taps=8), Ports(1, 1)).module()
    flow = torch.zeros(1, 2, 9, 11)
    flow[0, 0, 2, 3], flow[0, 1, 4, 5], flow[0, 0, 6, 7] = math.nan, math.inf, -math.inf
    flow.requires_grad_()
    reference = random(1, 3, 9, 11).float()
    out = module(reference, flow)
    out.sum().backward()
    untouched = torch.isfinite(flow.detach()).all(dim=1)[0]
    assert torch.equal(out.detach()[0, :, untouched], reference[0, :, untouched])
    assert torch.isfinite(out).all() and torch.isfinite(flow.grad).all()


# -- latents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.35, 2.0])
@pytest.mark.parametrize("n", [17, 40_001])
def test_soft_round(instruction_set, n, temperature):
    quantizer = make("quantizer", "softround", {})
    noise = random(n, seed=4, scale=0.2)

    def quantized(x):
        return quantizer.quantize(x, noise.to(x.dtype), temperature, TRAINED)

    check(quantized, [random(n, scale=2.0)], fused="Softround")


@pytest.mark.parametrize("kind", ["gaussian", "kumaraswamy"])
def test_noise_and_rounding_in_arrays_of_the_caller(instruction_set, kind):
    x = random(1003, scale=2.0).float()
    out, q, slope = np.zeros((3, x.numel()), np.float32)
    assert NoiseSource(5).fill(kind, 1.2, out)
    noise = NoiseSource(5).draw(kind, 1.2, x)
    assert np.array_equal(out, noise.numpy())
    assert make("quantizer", "softround", {}).sloped(x.numpy(), 1.5, out, 0.3, TRAINED, q, slope)
    leaf = x.clone().requires_grad_()
    wanted = make("quantizer", "softround", {}).quantize(1.5 * leaf, noise, 0.3, TRAINED)
    wanted.sum().backward()
    np.testing.assert_allclose(q, wanted.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, leaf.grad, rtol=1e-4, atol=1e-5)


def test_no_noise_is_not_drawn(instruction_set):
    source, out = NoiseSource(5), np.ones(9, np.float32)
    assert not source.fill("none", 1.0, out) and not source.fill("gaussian", 0.0, out)
    assert source.draws == 0 and out.all()


def test_noise_is_normal(instruction_set):
    z = instruction_set.noise(1_000_001, "gaussian", 0.5, 3, 2).astype(np.float64) / 0.5
    assert abs(z.mean()) < 5e-3 and abs(z.std() - 1) < 5e-3
    assert abs((z**3).mean()) < 2e-2 and abs((z**4).mean() - 3) < 5e-2
    assert abs((z[1:] * z[:-1]).mean()) < 5e-3


@pytest.mark.parametrize("a", [1.0, 1.5, 2.0])
def test_noise_is_kumaraswamy(instruction_set, a):
    noise = np.sort(instruction_set.noise(200_001, "kumaraswamy", a, 9, 1).astype(np.float64)) + 0.5
    b = (2**a * (a - 1) + 1) / a
    levels = (np.arange(noise.size) + 0.5) / noise.size
    assert noise[0] >= 0 and noise[-1] <= 1
    assert np.abs(1 - (1 - noise**a) ** b - levels).max() < 5e-3


@pytest.mark.parametrize("kind, parameter", [("gaussian", 0.3), ("kumaraswamy", 1.7)])
def test_noise_depends_on_key_and_place_alone(instruction_set, kind, parameter):
    long = instruction_set.noise(70_003, kind, parameter, 5, 2)
    assert np.array_equal(long[:999], instruction_set.noise(999, kind, parameter, 5, 1))
    other = instruction_set.noise(70_003, kind, parameter, 6, 1)
    assert abs(np.corrcoef(long, other)[0, 1]) < 0.02
    portable = kernels.load("portable").noise(70_003, kind, parameter, 5, 1)
    np.testing.assert_allclose(long, portable, rtol=1e-4, atol=1e-5)


# -- picture and loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (19, 17), (33, 40), (32, 47), (64, 64)])
@pytest.mark.parametrize("n_predictions", [0, 1, 2])
@pytest.mark.parametrize("pixel_format", [PixelFormat.YUV420, PixelFormat.YUV444])
def test_composition(instruction_set, pixel_format, n_predictions, size):
    raw = random(1, 3 + n_predictions, *size, scale=0.5)
    predictions = [random(1, 3, *size, seed=1 + i) for i in range(n_predictions)]
    gain, offset = random(1, 3, 1, 1, seed=8), random(1, 3, 1, 1, seed=9)

    def planes(picture):
        return list(picture.values()) if isinstance(picture, dict) else [picture]

    def composed(raw, *predictions):
        formula = gain.to(raw.dtype), offset.to(raw.dtype)
        return planes(compose(raw, predictions, *formula, pixel_format))

    def plain(raw, *predictions):
        dense = inter(raw, predictions) if predictions else intra(raw, gain, offset)
        return planes(from_dense(dense, pixel_format))

    expected = slopes(plain, None, [raw, *predictions], torch.float64)
    check(composed, [raw, *predictions], fused="Compose", expected=expected)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (33, 40), (32, 47), (64, 64)])
@pytest.mark.parametrize("n_predictions", [0, 1, 2])
@pytest.mark.parametrize("pixel_format", [PixelFormat.YUV420, PixelFormat.YUV444])
def test_error_of_a_composition(instruction_set, pixel_format, n_predictions, size):
    """Picture, distance and derivatives in one step."""
    raw = random(1, 3 + n_predictions, *size, scale=0.5)
    predictions = [random(1, 3, *size, seed=1 + i) for i in range(n_predictions)]
    gain, offset = random(1, 3, 1, 1, seed=8), random(1, 3, 1, 1, seed=9)
    shapes = (
        [(3, *size)] if pixel_format is PixelFormat.YUV444 else [(1, h, w) for h, w in pixel_format.plane_shapes(*size)]
    )
    target = [random(1, *shape, seed=20 + i) for i, shape in enumerate(shapes)]

    def measured(raw, *predictions):
        return composed_error(raw, predictions, gain.float(), offset.float(), [t.float() for t in target])

    def plain(raw, *predictions):
        picture = from_dense(inter(raw, predictions) if predictions else intra(raw, gain, offset), pixel_format)
        picture = clamped(picture, is_straight=True)
        planes = list(picture.values()) if isinstance(picture, dict) else [picture]
        errors = [(p - t) ** 2 for p, t in zip(planes, target, strict=True)]
        return sum(e.sum() for e in errors) / sum(e.numel() for e in errors)

    expected = slopes(plain, None, [raw, *predictions], torch.float64)
    check(measured, [raw, *predictions], fused="ComposedError", expected=expected)


@pytest.mark.parametrize("column", [0, 5, 16])
def test_the_error_of_a_picture_that_is_not_a_number(instruction_set, column):
    """Limiting samples must not hide that training left the finite numbers."""
    raw, target = (random(1, 3, 4, 17, seed=seed).float() for seed in (0, 1))
    raw[0, 1, 2, column] = math.nan
    error = composed_error(raw, (), torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), [target])
    assert error is not None and bool(error.isnan())


def test_squared_error(instruction_set):
    distortion = make("distortion", "mse", {}).distortion
    targets = {p: random(1, 1, 40 + 3 * i, 455, seed=i) for i, p in enumerate("yuv")}

    def measured(*planes):
        decoded = dict(zip("yuv", planes, strict=True))
        return distortion(decoded, {p: t.to(planes[0].dtype) for p, t in targets.items()})

    check(measured, [random(*t.shape, seed=20 + i) for i, t in enumerate(targets.values())])


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 16), (17, 30)])
@pytest.mark.parametrize("is_subsampled", [False, True])
def test_errors_by_cell(instruction_set, is_subsampled, size):
    half = tuple((n + 1) // 2 for n in size)
    shapes = [size, half, half] if is_subsampled else [size] * 3
    planes, target = ([random(*shape, seed=s + i).float().numpy() for i, shape in enumerate(shapes)] for s in (0, 9))
    cells = -(-size[0] // 4), -(-size[1] // 4)
    wanted = np.zeros(cells)
    for plane, other in zip(planes, target, strict=True):
        side = 4 if plane.shape == size else 2
        rows, columns = np.indices(plane.shape) // side
        np.add.at(wanted, (rows, columns), (plane.astype(np.float64) - other) ** 2)
    np.testing.assert_allclose(instruction_set.cell_errors(planes, target, 4).reshape(cells), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="target"):
        instruction_set.cell_errors(planes, target[:1], 4)


# -- entropy coding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 30, 5000])
def test_sub_stream_of_symbols(instruction_set, n):
    rng = np.random.default_rng(n)
    encoder = RansEncoder()
    values = np.round(rng.laplace(0, 20, n)).astype(np.int32)
    encoder.put_latents(values, np.zeros(n, np.int32), rng.integers(0, len(tables().shifts), n).astype(np.int32))
    encoder.put_bits(5, 3)
    assert encoder.finish() == encoder._finish()
    with pytest.raises(ValueError, match="frequenc"):
        instruction_set.rans(np.zeros(1, np.uint32), np.zeros(1, np.uint32))


class FixedNoise:
    """The same noise whatever the precision."""

    def draw(self, kind, parameter, like):
        return random(like.numel(), seed=17, scale=0.2).to(like)

    def fill(self, kind, parameter, out):
        out[:] = random(out.size, seed=17, scale=0.2).numpy()
        return True


def frame(seed, size=(45, 67), pixel_format=PixelFormat.YUV420):
    format = VideoFormat(*size, pixel_format, 8)
    rng = np.random.default_rng(seed)
    shapes = format.pixel_format.plane_shapes(*size)
    return Frame(tuple(rng.integers(60, 190, shape).astype(np.uint16) for shape in shapes), format)


PHASE = Phase(1, network_rate_weight=1.5)


def frame_task(frame_type, pixel_format=PixelFormat.YUV420):
    """A model of small pictures with random parameters, and its training task."""
    config = frame_config(EncodeConfig(intra="hop"), frame_type, 1, (45, 67))
    references = tuple(frame(1 + i, pixel_format=pixel_format) for i in range(frame_type.n_references))
    target = frame(0, pixel_format=pixel_format)
    encoder = randomised(FrameEncoder(config, target, references), 0.1).train()
    for branch in encoder.branches.values():
        branch.noise = FixedNoise()
    return FrameTask(encoder, Objective.of(encoder.config, target, lmbda=1e-3), ("all",), PHASE.network_rate_weight)


def gradients(task):
    """By name, after a step through the kernels alone or, where they do not apply, through autograd; and the loss."""
    if task.fused is not None:
        loss = task.fused.differentiate(PHASE, 0.3, 0.2, TRAINED)
    else:
        out = task.loss(PHASE, 0.3, 0.2, TRAINED)
        out.backward()
        loss = float(out.detach())
    return loss, {name: p.grad.clone() for name, p in task.module.named_parameters()}


@cache
def expected_gradients(frame_type, pixel_format):
    """In double precision, by autograd."""
    task = frame_task(frame_type, pixel_format)
    task.module.double()
    target = task.objective.target
    double = {plane: value.double() for plane, value in as_planes(target).items()}
    task.objective = replace(task.objective, target=double if isinstance(target, dict) else double["all"])
    assert task.fused is None
    return gradients(task)


def as_planes(picture):
    return picture if isinstance(picture, dict) else {"all": picture}


@pytest.mark.parametrize("pixel_format", [PixelFormat.YUV420, PixelFormat.YUV444])
@pytest.mark.parametrize("frame_type", list(FrameType))
def test_gradient_of_a_whole_frame(instruction_set, frame_type, pixel_format):
    """All steps in a row, without autograd and with it."""
    loss, expected = expected_gradients(frame_type, pixel_format)
    for fused in (True, False):
        runs = []
        for threads in (1, 2):
            with kernels.using(threads):
                task = frame_task(frame_type, pixel_format)
                if not fused:
                    task.__class__ = WithAutograd
                assert (task.fused is not None) == fused
                runs.append(gradients(task))
        assert runs[0][0] == runs[1][0] == pytest.approx(loss, rel=1e-6)
        assert all(torch.equal(g, runs[1][1][name]) for name, g in runs[0][1].items())
        errors = {name: error(g, expected[name]) for name, g in runs[0][1].items()}
        assert max(errors.values()) <= FRAME_TOLERANCE, errors


class WithAutograd(FrameTask):
    """The same, never through the kernels alone."""

    fused = None


# -- optimiser ------------------------------------------------------------------------------------------------


def moved_by_soap(shapes, dtype, is_plain=False):
    """By how much nine steps move parameters of these shapes, through two changes of the basis."""
    start = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    parameters = [p.to(dtype).clone() for p in start]
    with pytest.MonkeyPatch.context() as patch:
        if is_plain:
            patch.setattr("coolvid.encoding.training.optimizers.compiled", None)
        optimizer = SOAP(parameters, lr=1e-3, precondition_every=4)
    for step in range(9):
        for i, p in enumerate(parameters):
            p.grad = random(*p.shape, seed=100 * step + i).to(dtype)
        optimizer.step()
    return torch.cat([(p.double() - s).flatten() for p, s in zip(parameters, start, strict=True)])


def test_soap(instruction_set):
    """The kernel's steps against those of the plain optimiser in double precision.

    Closely where the first gradient settles all directions of the basis; directions that it leaves open depend on
    rounding, in plain single precision just as much.
    """
    settled = [(20, 20), (20, 20), (5, 5), (48,), (300, 2)]
    exact, kernel = moved_by_soap(settled, torch.float64), moved_by_soap(settled, torch.float32)
    assert error(kernel, exact) < 0.01
    shapes = [(48, 7, 1, 1), (48,), (3, 48, 1, 1), (3, 3, 3, 3), (3,), (20, 20), (20, 20), (2, 20), (300, 2), (4,)]
    exact, kernel = moved_by_soap(shapes, torch.float64), moved_by_soap(shapes, torch.float32)
    assert error(kernel, exact) < 1.5 * error(moved_by_soap(shapes, torch.float32, is_plain=True), exact)


@pytest.mark.parametrize("threads", [1, 2])
def test_adam(instruction_set, threads):
    """The kernel's steps against torch.optim.Adam in double precision."""
    n, betas, eps = 20_003, (0.8, 0.99), 1e-8
    values = random(n)
    plain = values.clone().requires_grad_()
    adam = torch.optim.Adam([plain], 1e-2, betas, eps)
    own, first, second = values.float().numpy(), np.zeros(n, np.float32), np.zeros(n, np.float32)
    for step in range(1, 6):
        plain.grad = random(n, seed=step)
        adam.step()
        corrections = tuple(1 - beta**step for beta in betas)
        instruction_set.adam(plain.grad.float().numpy(), own, first, second, 1e-2, betas, eps, corrections, threads)
    assert error(torch.from_numpy(own) - values.float(), plain.detach() - values) <= TOLERANCE


def test_vectors_in_one_piece_of_memory_take_the_same_steps():
    """Optimisers of parameters that lie side by side, as FusedLoss leaves them, and of others."""
    shapes = [(20, 20), (20,), (7, 3, 1, 1), (20, 20), (1, 1, 40, 30), (1, 1, 20, 15)]
    moved = []
    for side_by_side in (True, False):
        parameters = [torch.nn.Parameter(random(*shape, seed=i).float()) for i, shape in enumerate(shapes)]
        if side_by_side:
            flattened([torch.nn.ParameterList(parameters)])
        both = Optimizers(parameters[:4], parameters[4:], 1e-2)
        assert isinstance(both.adam, FlatAdam) == side_by_side
        for step in range(12):
            for i, p in enumerate(parameters):
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                p.grad.copy_(random(*p.shape, seed=100 * step + i))
            both.step(1e-2)
        moved.append([p.detach() for p in parameters])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(*moved, strict=True))


def covariance(count, n, seed):
    """Symmetric matrices [count, n, n] with eigenvalues well apart, and a basis that is nearly theirs."""
    turned = torch.linalg.qr(random(count, n, n, seed=seed)).Q
    powers = torch.linspace(1.0, 3.0, n, dtype=torch.float64).roll(n // 2)
    basis = torch.linalg.qr(turned + 0.05 * random(count, n, n, seed=seed + 1)).Q
    return [x.contiguous().float().double() for x in (turned * powers @ turned.mT, basis)]


def test_one_step_of_soap(instruction_set):
    """With a change of the basis, against the definition in double precision."""
    blocks, n = [(0, 2, 5, 7), (70, 1, 3, 40), (190, 3, 2, 2)], 220
    values, gradient, first, second = random(n), random(n, seed=1), random(n, seed=2), random(n, seed=3) ** 2
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    sides = [[covariance(c, m, 10 * m) for m in (rows, columns)] for _, c, rows, columns in blocks]
    sides[1][1] = [None, None]  # a side that is not rotated
    shown = [
        (*b, *(None if x is None else x.float().numpy() for pair in two for x in pair))
        for b, two in zip(blocks, sides, strict=True)
    ]
    (b1, b2), eps, decay, limit, lr, steps, opened = (0.95, 0.9), 1e-8, 0.01, 0.1, 1e-2, 3, 1e-5
    kept = [x.float().numpy() for x in (values, first, second)]
    kernel = instruction_set.Soap(shown, order.tolist(), kept[1], kept[2], (b1, b2), eps, decay, limit, opened)
    kernel.step(gradient.float().numpy(), kept[0], lr, steps, True)

    def turned(flat, forward):
        out = flat.clone()
        for (start, count, rows, columns), ((_, left), (_, right)) in zip(blocks, sides, strict=True):
            x = out[start : start + count * rows * columns].view(count, rows, columns)
            x = x if left is None else (left.mT if forward else left) @ x
            x = x if right is None else x @ (right if forward else right.mT)
            out[start : start + x.numel()] = x.flatten()
        return out

    own = gradient[order]
    own = own * min(1.0, limit / float(own.norm()))
    first = b1 * first + (1 - b1) * own
    second = b2 * second + (1 - b2) * turned(own, True) ** 2
    update = turned(turned(first, True) / ((second / (1 - b2**steps)).sqrt() + eps), False)
    expected = values.clone()
    expected[order] = (1 - lr * decay) * values[order] - lr / (1 - b1**steps) * update
    for (start, count, rows, columns), two, found in zip(blocks, sides, shown, strict=True):
        g = own[start : start + count * rows * columns].view(count, rows, columns)
        moved = second[start : start + g.numel()].view_as(g)
        for axis, (moment, basis), outer in zip((1, 2), two, (g @ g.mT, g.mT @ g), strict=True):
            if moment is None:
                continue
            moment = b2 * moment + (1 - b2) * outer
            assert error(torch.from_numpy(found[2 + 2 * axis]), moment) <= TOLERANCE
            taken = (basis.mT @ moment @ basis).diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
            shift = opened * (moment @ basis).abs().amax(dim=(1, 2), keepdim=True) * torch.eye(len(moment[0]))
            columns_taken = ((moment + shift) @ basis).gather(2, taken[:, None].expand_as(basis))
            q, r = torch.linalg.qr(columns_taken)
            q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
            assert error(torch.from_numpy(found[3 + 2 * axis]), q) <= TOLERANCE
            moved = moved.gather(axis, taken.unsqueeze(3 - axis).expand_as(moved))
        second[start : start + g.numel()] = moved.flatten()
    assert all(error(torch.from_numpy(a), b) <= TOLERANCE for a, b in zip(kept, (expected, first, second), strict=True))


@pytest.mark.parametrize("is_predicted", [False, True])
def test_network_rate(instruction_set, is_predicted):
    """The sum of estimated_bits over two modules, one of them cheaper as differences to its predictor."""
    modules = [randomised(torch.nn.Linear(7, 3), seed=5), randomised(torch.nn.Linear(4, 6), seed=9)]
    tensors = [tuple(TensorSpec(n, tuple(p.shape), n) for n, p in m.named_parameters()) for m in modules]
    known = {name: (p + 0.01).detach() for name, p in modules[1].named_parameters()}
    known = [{n: torch.full_like(p, 9.0) for n, p in modules[0].named_parameters()}, known]
    predictors = known if is_predicted else [None, None]
    sent = list(zip(modules, tensors, (2.0**-4, 2.0**-6), predictors, strict=True))
    values = torch.cat([p.detach().reshape(-1) for m in modules for p in m.parameters()]).numpy()
    made = np.ones_like(values)
    bits = NetworkEstimate(sent).add(values, made, 0.25)

    for module in modules:
        module.double()
    expected = sum(estimated_bits(*each) for each in sent)
    expected.backward()
    slopes = torch.cat([p.grad.reshape(-1) for m in modules for p in m.parameters()])
    assert bits == pytest.approx(float(expected.detach()), rel=1e-6)
    assert error(torch.from_numpy(made) - 1, 0.25 * slopes) <= TOLERANCE


# -- with and without -----------------------------------------------------------------------------------------

TRAIN = """
import numpy as np
from coolvid import kernels
from coolvid.settings.config import EncodeConfig
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.fused import composed_error
from coolvid.encoding.model.fused_branch import flattened
from coolvid.settings.presets import frame_config
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.train import train
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat

format = VideoFormat(24, 32, PixelFormat.YUV444, 8)
y, x = np.mgrid[:24, :32]
frame = Frame(tuple(((8 * x + 5 * y + 30 * i) % 200 + 20).astype(np.uint16) for i in range(3)), format)
encoder = FrameEncoder(frame_config(EncodeConfig(), FrameType.I, 0, (24, 32)), frame)
counters = Counters()
train(encoder, frame, counters, 1e-3, max_iterations=2, frequency_validation=1)
print(kernels.compiled, kernels.description(), counters.iterations_counter, counters.best_loss < 1)
"""


def test_training_without_kernels():
    environment = {**os.environ, "COOLVID_KERNELS": "none"}
    command = [sys.executable, "-P", "-c", TRAIN]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout == "None PyTorch and numpy 2 True\n", result.stderr


def test_training_imports_no_compiler_of_pytorch(tmp_path):
    """torch.optim and some functions of torch.autograd do at their first use: a second for every encode."""
    script = TRAIN + "import sys\nprint({'torch._dynamo', 'sympy'} & set(sys.modules))"
    command = [sys.executable, "-P", "-c", script]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.stdout.endswith("True\nset()\n"), result.stdout + result.stderr


def test_nothing_built_is_no_error(monkeypatch):
    """A compiler that fails (the extensions are optional) leaves a package without these modules."""

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert kernels.available() == ()
    assert kernels.load("") is None and kernels.load("none") is None
    with pytest.raises(ConfigError, match="'v3' here; set COOLVID_KERNELS to one of: none"):
        kernels.load("v3")


def test_unknown_instruction_set():
    with pytest.raises(ConfigError, match=r"to one of: .*portable, none"):
        kernels.load("v5")
