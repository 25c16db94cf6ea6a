"""Quantization: steps, their search, the caches behind it, RDO, and the integers that reach the stream."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from coolvid import kernels
from coolvid.bitstream.weights import module_bits
from coolvid.codec.coded_frame import MAX_PARAMETER, MODULES, TensorSpec
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.encoding.quantization import code_frame, quantize_model, rdo_parameters
from coolvid.encoding.quantization.evaluate import FrameLoss, _merged
from coolvid.encoding.quantization.quantize import ModuleSearch
from coolvid.encoding.quantization.search import search_pair
from coolvid.encoding.quantization.state import QuantizedModule
from coolvid.encoding.quantization.steps import dequantize, quantize, step_range
from coolvid.encoding.training.loss import loss_function
from coolvid.errors import ConfigError, TrainingError
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config
from pictures import edge

HEIGHT, WIDTH = 24, 32
FORMAT = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
SPECS = (TensorSpec("a.weight", (2, 3)), TensorSpec("a.bias", (2,), "bias"))
REFERENCES = {FrameType.I: (), FrameType.P: (0,), FrameType.B: (0, 4)}


def picture(shift: int) -> Frame:
    return edge(FORMAT, shift)


def with_objective(model: FrameEncoder) -> tuple[FrameEncoder, Objective]:
    return model, Objective.of(model.config, picture(0))


def encoder(kind: FrameType, search: str = "descent", rounds: int = 0, iterations: int = 20) -> FrameEncoder:
    """A frame encoder after a few steps of Adam, the same at every call."""
    options = EncodeConfig(lmbda=1e-3, intra="lop", residue="mop", motion="mop")
    config = frame_config(options, kind, 0, (HEIGHT, WIDTH))
    training = replace(config.training, step_search=search, curvature_samples=0.0, rdo_rounds=rounds)
    config = replace(config, training=training)
    references = [picture(shift - 2) for shift in REFERENCES[kind]]
    model = FrameEncoder(config, picture(0), references, seed=1).train()
    target = picture(0).as_tensor()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(iterations):
        out = model("gaussian", "softround", 0.3, 0.2)
        adam.zero_grad()
        loss_function(out.decoded_image, out.rate, target, config.lmbda).loss.backward()
        adam.step()
    return model


@pytest.fixture(scope="module")
def trained() -> dict[FrameType, FrameEncoder]:
    return {kind: encoder(kind) for kind in FrameType}


def fresh(trained, kind: FrameType, search: str = "descent", rounds: int = 0) -> FrameEncoder:
    model = copy.deepcopy(trained[kind])
    training = replace(model.config.training, step_search=search, rdo_rounds=rounds)
    model.config = replace(model.config, training=training)
    return model


def plain_loss(model: FrameEncoder, nn_bits: float = 0.0) -> float:
    """Loss by the model's own forward."""
    with torch.no_grad():
        out = model.eval()()
        result = loss_function(out.decoded_image, out.rate, picture(0).as_tensor(), model.config.lmbda, nn_bits)
        return float(result.loss)


def uniform_loss(model: FrameEncoder) -> float:
    """Loss with all parameters at the step 2**-8, their bits counted."""
    loss, bits = FrameLoss(*with_objective(model)), 0.0
    for name in loss.modules:
        module = QuantizedModule(name, loss.specs(name), quantize(loss.floats(name), loss.specs(name), 8, 8))
        module.write(loss.coolchic(name))
        bits += module.bits
    return plain_loss(model, bits)


# -- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module, weight, bias", [("arm", 8, 16), ("ifce", 8, 16), ("synthesis", 12, 24), ("upsampling", 12, 24)]
)
def test_steps_span_the_documented_ranges(module, weight, bias):
    weights, biases = step_range(module).shifts(SPECS)
    assert (weights, biases) == (range(weight + 1), range(bias + 1))


def test_a_kind_that_is_absent_has_one_step():
    assert step_range("upsampling").shifts(SPECS[:1]) == (range(13), range(1))
    assert step_range("ifce").shifts(()) == (range(1), range(1))


def test_quantize_rounds_to_the_nearest_multiple():
    values = {"a.weight": np.array([[0.3, -0.3, 1.0], [0.13, 0.12, -2.0]]), "a.bias": np.array([0.26, -0.01])}
    coded = quantize(values, SPECS, 2, 3)
    assert coded.parameters["a.weight"].tolist() == [[1, -1, 4], [1, 0, -8]]
    assert coded.parameters["a.bias"].tolist() == [2, 0]
    assert dequantize(coded, SPECS)["a.weight"].tolist() == [[0.25, -0.25, 1.0], [0.25, 0.0, -2.0]]


@pytest.mark.parametrize(
    "weight, bias, fits",
    [(32767.0, 0.0, True), (32768.0, 0.0, False), (0.0, float(MAX_PARAMETER), True), (0.0, MAX_PARAMETER + 1.0, False)],
)
def test_quantize_refuses_what_cannot_be_represented(weight, bias, fits):
    values = {"a.weight": np.full((2, 3), weight), "a.bias": np.full(2, bias)}
    assert (quantize(values, SPECS, 0, 0) is not None) == fits


def test_bits_are_those_of_the_stream():
    values = {"a.weight": np.array([[5.0, -3, 0], [9, 1, -1]]), "a.bias": np.array([300.0, -2])}
    coded = quantize(values, SPECS, 0, 0)
    bits = module_bits("synthesis", coded, SPECS)
    assert QuantizedModule("residue.synthesis", SPECS, coded).bits == bits["weight"] + bits["bias"] > 40
    same = QuantizedModule("residue.synthesis", SPECS, coded, coded)
    assert same.bits == 0
    near = {"a.weight": values["a.weight"] + 1, "a.bias": values["a.bias"]}
    assert QuantizedModule("residue.synthesis", SPECS, quantize(near, SPECS, 0, 0), coded).bits < same.bits + 30


@pytest.mark.parametrize("predicted", [False, True])
def test_extra_bits_tell_dear_moves_from_cheap_ones(predicted):
    values = {"a.weight": np.array([[0.0, 0, 0], [9, 1, -1]]), "a.bias": np.array([300.0, -2])}
    coded = quantize(values, SPECS, 0, 0)
    known = quantize({name: value + 2 for name, value in values.items()}, SPECS, 0, 0) if predicted else None
    module = QuantizedModule("residue.synthesis", SPECS, coded, known)
    up, down = module.extra_bits(1), module.extra_bits(-1)
    if predicted:
        assert (up < 0).all() and (down > 0).all()
    else:
        assert (np.sign(up) == [1, 1, 1, 1, 1, -1, 1, -1]).all() and (
            np.sign(down) == [1, 1, 1, -1, -1, 1, -1, 1]
        ).all()


# -- search ---------------------------------------------------------------------------------------------------------


def bowl(weight: int, bias: int) -> float:
    return (weight - 6) ** 2 + 0.5 * (bias - 11) ** 2 + 0.3 * (weight - 6) * (bias - 11)


@pytest.mark.parametrize("method", ["full", "descent"])
@pytest.mark.parametrize("start", [(0, 0), (7, 9), (12, 24)])
def test_search_finds_the_bottom_of_a_bowl(method, start):
    assert search_pair((range(13), range(25)), bowl, method, start) == ((6, 11), 0.0)


@pytest.mark.parametrize("method", ["full", "descent"])
def test_search_prefers_the_coarser_of_equals_and_stays_inside(method):
    def flat(weight: int, bias: int) -> float:
        assert weight in range(13) and bias in range(25)
        return 1.0

    assert search_pair((range(13), range(25)), flat, method, (7, 9)) == ((0, 0), 1.0)


@pytest.mark.parametrize("method", ["full", "descent"])
def test_search_steps_around_pairs_that_cannot_be_represented(method):
    def loss(weight: int, bias: int) -> float:
        return math.inf if weight > 3 or bias > 5 else bowl(weight, bias)

    assert search_pair((range(13), range(25)), loss, method, (7, 9))[0] == (3, 5)
    assert math.isinf(search_pair((range(2), range(2)), lambda w, b: math.inf, method, (7, 9))[1])


def test_descent_evaluates_few_pairs_and_none_twice():
    seen = []

    def loss(weight: int, bias: int) -> float:
        seen.append((weight, bias))
        return bowl(weight, bias)

    search_pair((range(13), range(25)), loss, "descent", (7, 9))
    assert len(seen) == len(set(seen)) < 13 * 25 / 3


# -- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FrameType)
def test_cached_loss_equals_the_forward_whatever_changed(trained, kind):
    model = fresh(trained, kind)
    loss = FrameLoss(*with_objective(model))
    random = np.random.default_rng(0)
    assert loss.value() == pytest.approx(plain_loss(model), rel=1e-5)
    for name in (*loss.modules, *reversed(loss.modules)):
        values = {k: v + 0.02 * random.standard_normal(v.shape) for k, v in loss.floats(name).items()}
        loss.settle(name)
        loss.load(QuantizedModule(name, loss.specs(name), quantize(values, loss.specs(name), 8, 16)))
        assert loss.value() == pytest.approx(plain_loss(model), rel=1e-5), name
        assert loss.value() >= loss.least(name) - 1e-9


def test_the_slope_is_the_derivative_of_the_loss(trained):
    """Checked along the slope itself, by a central difference of the cached loss."""
    model = fresh(trained, FrameType.I)
    loss = FrameLoss(*with_objective(model))
    for name in ("residue.arm", "residue.synthesis", "residue.upsampling"):
        module = QuantizedModule(name, loss.specs(name), quantize(loss.floats(name), loss.specs(name), 12, 12))
        loss.load(module)
        slope = loss.slope(module)
        step = np.rint(slope / np.abs(slope).max() * 8).astype(np.int64)
        ends = []
        for sign in (1, -1):
            loss.load(module.with_flat(module.flat() + sign * step))
            ends.append(loss.value())
        loss.load(module)
        assert ends[0] - ends[1] == pytest.approx(2 * slope @ step, rel=0.1)


def test_the_slope_of_motion_is_not_that_of_rounded_flow(trained):
    model = fresh(trained, FrameType.P)
    loss = FrameLoss(*with_objective(model))
    before = loss.value()
    name = "motion.synthesis"
    module = QuantizedModule(name, loss.specs(name), quantize(loss.floats(name), loss.specs(name), 12, 24))
    assert np.abs(loss.slope(module)).max() > 0
    assert loss.value() == before


@pytest.mark.skipif(kernels.compiled is None, reason="no compiled kernels here")
@pytest.mark.parametrize("kind", FrameType)
def test_the_kernels_find_the_same_loss(trained, kind, monkeypatch):
    """Within 1e-6, and with the same bits for any number of threads."""
    model, found = fresh(trained, kind), []
    for threads in (1, 2):
        with kernels.using(threads):
            found.append(FrameLoss(*with_objective(model)).value())
    monkeypatch.setattr(CoolChicEncoder, "fused_rate", lambda self, flat: None)
    plain = FrameLoss(*with_objective(model))
    plain.settle("residue.arm")
    assert found[0] == found[1] == pytest.approx(plain.value(), rel=1e-6)


def test_merged_rows_cost_what_all_rows_cost():
    random = np.random.default_rng(0)
    contexts = torch.from_numpy(random.integers(-1, 2, (3, 500)).astype(np.float32))
    latents = torch.from_numpy(random.integers(-1, 2, 500).astype(np.float32))
    merged, kept, counts = _merged(contexts, latents)
    weights = torch.tensor([1.0, 10.0, 100.0])
    assert counts.sum() == 500 and len(kept) <= 3**4
    expected = ((weights @ contexts + 1000 * latents) ** 2).double().sum()
    assert ((weights @ merged + 1000 * kept) ** 2).double() @ counts == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", FrameType)
@pytest.mark.parametrize("is_predicted", [False, True])
def test_the_cheapest_parameters_compute_the_same(trained, kind, is_predicted):
    model = fresh(trained, kind)
    loss = FrameLoss(*with_objective(model))
    before = plain_loss(model, 0.0)
    for name in loss.modules:
        values = loss.canonical(name, is_predicted)
        if "stabiliser.bias" in values:
            assert not values["stabiliser.bias"].any() and loss.floats(name)["stabiliser.bias"].any()
        if name == "residue.synthesis":
            assert (np.diff(values["layers.0.bias"]) >= 0).all() != is_predicted
        loss.write(name, values)
    assert plain_loss(model, 0.0) == pytest.approx(before, rel=1e-5)


# -- quantize_model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FrameType)
def test_quantized_parameters_are_integers_times_steps(trained, kind):
    model = fresh(trained, kind)
    before = uniform_loss(copy.deepcopy(model))
    assert quantize_model(model, picture(0), None) is model
    bits = 0.0
    for branch in model.branches.values():
        steps = branch.get_network_quantization_step()
        for name in MODULES:
            module = QuantizedModule.of(branch, name)
            bits += module.bits
            values = dequantize(module.coded, module.specs)
            for spec in module.specs:
                own = dict(branch.modules_by_name[name].named_parameters())[spec.name]
                assert np.array_equal(values[spec.name], own.detach().double().numpy())
                assert math.log2(steps[name][spec.kind]).is_integer()
    assert bits == model.get_network_rate_bits() > 0
    assert plain_loss(model, bits) < before


def test_full_search_finds_the_best_of_all_pairs(trained):
    model = fresh(trained, FrameType.I)
    loss = FrameLoss(*with_objective(model))
    name = "residue.ifce"
    specs, floats = loss.specs(name), loss.floats(name)
    chosen = ModuleSearch(loss, name).run("full")
    loss.load(chosen)
    found = loss.total(chosen)
    totals = []
    for weight in range(9):
        for bias in range(0, 17, 2):
            module = QuantizedModule(name, specs, quantize(floats, specs, weight, bias))
            module.write(loss.coolchic(name))
            totals.append(plain_loss(model, module.bits))
    assert found <= min(totals) * (1 + 1e-6)


@pytest.mark.parametrize("name", ["residue.arm", "residue.synthesis", "residue.upsampling"])
def test_descent_comes_close_to_the_full_search(trained, name):
    losses = []
    for method in ("full", "descent"):
        loss = FrameLoss(*with_objective(fresh(trained, FrameType.I)))
        chosen = ModuleSearch(loss, name).run(method)
        loss.load(chosen)
        losses.append(loss.total(chosen))
    assert losses[0] <= losses[1] <= 1.05 * losses[0]


@pytest.mark.parametrize("value, message", [(math.nan, "not finite"), (1e9, "no step can represent")])
def test_parameters_beyond_integers_are_a_training_error(trained, value, message):
    model = fresh(trained, FrameType.I)
    with torch.no_grad():
        next(model.branches["residue"].modules_by_name["synthesis"].parameters()).view(-1)[0] = value
    with pytest.raises(TrainingError, match=message):
        quantize_model(model, picture(0), None)


# -- RDO ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_trials(monkeypatch):
    monkeypatch.setattr("coolvid.encoding.quantization.rdo.WORK_LIMIT", 0.0)
    monkeypatch.setattr("coolvid.encoding.quantization.rdo.MIN_TRIALS", 12)


@pytest.mark.parametrize("kind", [FrameType.I, FrameType.P])
def test_rdo_lowers_the_loss_and_repeats_itself(trained, kind, few_trials):
    model = quantize_model(fresh(trained, kind), picture(0), None)
    before = plain_loss(model, model.get_network_rate_bits())
    twin = rdo_parameters(*with_objective(copy.deepcopy(model)), rounds=1)
    rdo_parameters(*with_objective(model), rounds=1)
    assert plain_loss(model, model.get_network_rate_bits()) < before
    for name, value in model.get_param().items():
        assert torch.equal(value, twin.get_param()[name])


def test_quantize_model_runs_the_rounds_it_is_configured_for(trained, few_trials):
    plain = quantize_model(fresh(trained, FrameType.I), picture(0), None)
    refined = quantize_model(fresh(trained, FrameType.I, rounds=1), picture(0), None)
    losses = [plain_loss(model, model.get_network_rate_bits()) for model in (refined, plain)]
    assert losses[0] < losses[1]


def test_rdo_asks_for_a_quantized_model(trained):
    with pytest.raises(ConfigError, match="run quantize_model first"):
        rdo_parameters(*with_objective(fresh(trained, FrameType.I)), rounds=1)


# -- code_frame -----------------------------------------------------------------------------------------------------


def test_code_frame_asks_for_a_quantized_model(trained):
    model = fresh(trained, FrameType.I)
    with pytest.raises(ConfigError, match="run quantize_model first"):
        code_frame(model, 0, ())
    quantize_model(model, picture(0), None)
    with torch.no_grad():
        next(model.branches["residue"].modules_by_name["synthesis"].parameters()).fill_(1e9)
    with pytest.raises(ConfigError, match="run quantize_model again"):
        code_frame(model, 0, ())


@pytest.mark.parametrize("kind", FrameType)
def test_code_frame_goes_through_the_stream_and_back(trained, kind):
    from fractions import Fraction

    from coolvid.bitstream.headers import StreamHeader
    from coolvid.bitstream.packet import write_packet
    from coolvid.decoding import ContextModel, reconstruct_frame
    from coolvid.decoding.packet import read_frame, tensors_of
    from coolvid.picture.quality import psnr
    from coolvid.picture.types import ColorInfo

    model = quantize_model(fresh(trained, kind), picture(0), None)
    coded = code_frame(model, 2, REFERENCES[kind])
    contexts = {
        name: ContextModel(branch.architecture, branch.modules, HEIGHT, WIDTH)
        for name, branch in coded.coolchics.items()
    }
    packet = write_packet(coded, 0, contexts, tensors_of)
    header = StreamHeader(FORMAT, Fraction(25), ColorInfo(), 5, 4, 0, False, (model.architecture,))
    assert_same(read_frame(packet.data, header), coded)
    decoded = reconstruct_frame(coded, [picture(shift - 2) for shift in REFERENCES[kind]], FORMAT)
    assert psnr(decoded, picture(0)) == pytest.approx(psnr(model.picture(), picture(0)), abs=0.05)


def assert_same(a, b):
    """Two CodedFrames say the same; a shift of a module without such parameters but zeros is not sent."""
    for field in ("display_index", "architecture", "references", "output_range"):
        assert getattr(a, field) == getattr(b, field)
    assert tuple(a.global_translation) == tuple(b.global_translation)
    for name, branch in b.coolchics.items():
        other = a.coolchics[name]
        assert all(np.array_equal(x, y) for x, y in zip(other.latents, branch.latents, strict=True))
        for key, module in branch.modules.items():
            assert other.modules[key].scales == module.scales
            busy = {"bias" in parameter for parameter, values in module.parameters.items() if values.any()}
            assert other.modules[key].weight_shift == module.weight_shift or False not in busy
            assert other.modules[key].bias_shift == module.bias_shift or True not in busy
            for parameter, values in module.parameters.items():
                assert np.array_equal(other.modules[key].parameters[parameter], values)
