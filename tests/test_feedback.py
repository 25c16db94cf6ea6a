"""Rounding in which parameters make up for each other's errors, and the curvature behind it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from distortions import Absolute
from quantizing import quantized_model

from coolvid.encoding.loss import loss_function
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.rate import latent_bits
from coolvid.encoding.objective import Objective
from coolvid.encoding.quantization import curvature as curvature_of
from coolvid.encoding.quantization.curvature import curvature
from coolvid.encoding.quantization.evaluate import FrameLoss
from coolvid.encoding.quantization.feedback import FeedbackRounding, _least_first
from coolvid.encoding.quantization.quantize import ModuleSearch
from coolvid.encoding.quantization.state import QuantizedModule, named_parameters
from coolvid.errors import ConfigError
from coolvid.picture.types import FrameType, PixelFormat, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config
from pictures import edge

FORMAT = VideoFormat(24, 32, PixelFormat.YUV420, 8)
PICTURE = edge(FORMAT, 0)
REFERENCES = [edge(FORMAT, shift - 2) for shift in (0, 4)]
N = 12
SINGLE = np.ones(12, np.int64)
TENSORS = np.repeat([0, 1], N // 2)
PREDICTED = [("residue.synthesis", 0.5), ("residue.upsampling", 0.5), ("motion.synthesis", 0.5)]


def encoder(kind: FrameType, iterations: int = 30) -> FrameEncoder:
    config = frame_config(EncodeConfig(lmbda=1e-3, intra="lop", residue="lop", motion="lop"), kind, 0, (24, 32))
    model = FrameEncoder(config, PICTURE, REFERENCES[: kind.n_references], seed=1).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(iterations):
        out = model("gaussian", "softround", 0.3, 0.2)
        adam.zero_grad()
        loss_function(out.decoded_image, out.rate, PICTURE.as_tensor(), config.lmbda).loss.backward()
        adam.step()
    return model


@pytest.fixture(scope="module")
def trained() -> dict[FrameType, FrameEncoder]:
    return {kind: encoder(kind) for kind in (FrameType.I, FrameType.B)}


def with_objective(model: FrameEncoder) -> tuple[FrameEncoder, Objective]:
    return model, Objective.of(model.config, PICTURE)


def total(model: FrameEncoder) -> float:
    loss = FrameLoss(*with_objective(model))
    bits = sum(QuantizedModule.of(loss.coolchic(name), name).bits for name in loss.modules)
    return loss.value() + loss.loss_per_bit * bits


def pictures(model: FrameEncoder) -> list[torch.Tensor]:
    """Decoded planes, flow not rounded."""
    branch = "motion" if "motion" in model.branches else "residue"
    return [
        p.detach() for p in FrameLoss(*with_objective(model)).planes_of(branch, model.branches[branch].raw_planes())
    ]


def moved(model: FrameEncoder, name: str, by: np.ndarray) -> FrameEncoder:
    """A copy of the model with parameters of a module that lie `by` [n] elsewhere."""
    out = copy.deepcopy(model)
    branch, module = name.split(".")
    with torch.no_grad():
        own = named_parameters(out.branches[branch], module)
        for spec in out.branches[branch].tensors[module]:
            parameter = own[spec.name]
            part, by = by[: parameter.numel()], by[parameter.numel() :]
            parameter += torch.from_numpy(part.reshape(parameter.shape)).to(parameter)
    return out


# -- curvature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, tolerance", PREDICTED)
def test_curvature_tells_how_much_a_picture_changes(trained, name, tolerance):
    model = trained[FrameType.B if name.startswith("motion") else FrameType.I].eval()
    matrix = curvature(FrameLoss(*with_objective(model)), name, 20.0)
    random = np.random.default_rng(0)
    for _ in range(3):
        by = random.normal(size=len(matrix)) * 1e-4
        pairs = list(zip(pictures(moved(model, name, by)), pictures(model), strict=True))
        change = sum(float((a - b).double().square().sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
        assert by @ matrix @ by / 2 == pytest.approx(change, rel=tolerance)


def chances(model: FrameEncoder) -> torch.Tensor:
    """The probability of each value from -40 to 40, of each latent [81, N]."""
    coolchic = model.branches["residue"]
    mean, raw = coolchic.laplace(coolchic.rounded_latents()).detach()
    return torch.stack([torch.exp2(-latent_bits(torch.full_like(mean, y), mean, raw)) for y in range(-40, 41)]).double()


def test_curvature_tells_how_many_bits_a_wrong_entropy_model_costs(trained):
    model = trained[FrameType.I].eval()
    loss = FrameLoss(*with_objective(model))
    matrix = curvature(loss, "residue.arm", 20.0)
    random = np.random.default_rng(0)
    for _ in range(3):
        by = random.normal(size=len(matrix)) * 0.01
        right, wrong = chances(model), chances(moved(model, "residue.arm", by))
        bits = float((right * (right / wrong).log2()).sum())
        assert by @ matrix @ by / 2 == pytest.approx(bits * loss.loss_per_bit, rel=0.3)


def test_curvature_is_the_same_every_time_and_symmetric(trained):
    first, second = (curvature(FrameLoss(*with_objective(trained[FrameType.B])), "motion.arm", 2.0) for _ in range(2))
    assert (first == second).all() and (first == first.T).all() and first.any()


def test_there_is_no_curvature_of_some_modules(trained, monkeypatch):
    loss = FrameLoss(*with_objective(trained[FrameType.I]))
    assert curvature(loss, "residue.ifce", 2.0) is None
    assert curvature(loss, "residue.arm", 0.0) is None
    squared = loss.objective
    loss.objective = replace(squared, plugin=Absolute(None))
    assert curvature(loss, "residue.arm", 2.0) is None
    loss.objective = squared
    monkeypatch.setattr(curvature_of, "MAX_PARAMETERS", 10)
    assert curvature(loss, "residue.arm", 2.0) is None


# -- rounding -------------------------------------------------------------------------------------------------------


def bowl(seed: int) -> np.ndarray:
    """A curvature [N, N] of parameters that have but four effects, and each a small one of its own."""
    rows = np.random.default_rng(seed).normal(size=(4, N))
    return rows.T @ rows + 0.1 * np.eye(N)


def rounding(seed: int, curvature: np.ndarray, loss_per_bit: float) -> FeedbackRounding:
    return FeedbackRounding(np.random.default_rng(seed).normal(size=N) * 2, curvature, TENSORS, loss_per_bit)


def test_parameters_that_do_not_share_effects_are_rounded_to_the_nearest():
    made = rounding(0, np.diag(np.arange(1.0, N + 1)), 0.0)
    steps = np.where(TENSORS == 0, 0.5, 0.25)
    assert (made.integers(steps, np.zeros(N, np.int64), SINGLE) == np.rint(made.exact / steps)).all()


@pytest.mark.parametrize("seed", range(6))
def test_others_make_up_for_errors(seed):
    made = rounding(seed, bowl(seed), 0.0)
    target = np.full(N, 100)
    errors = [made.exact - each for each in (made.integers(np.ones(N), target, SINGLE), np.rint(made.exact))]
    feedback, nearest = (error @ made.curvature @ error for error in errors)
    assert feedback < 0.8 * nearest


@pytest.mark.parametrize("target", [0, 5])
def test_the_dearer_bits_are_the_more_become_the_target(target):
    targets = np.full(N, target, np.int64)
    made = [rounding(1, bowl(1), price).integers(np.ones(N), targets, SINGLE) for price in (0.0, 10.0, 1e6)]
    away = [int((each != target).sum()) for each in made]
    assert away == sorted(away, reverse=True) and away[-1] < away[0] / 2


def test_what_rounds_to_the_target_becomes_it():
    made = rounding(2, bowl(2), 0.0)
    stays = np.rint(made.exact) == 0
    assert stays.any() and not made.integers(np.ones(N), np.zeros(N, np.int64), SINGLE)[stays].any()


@pytest.mark.parametrize("curvature", [np.zeros((N, N)), np.diag([1.0] + [0.0] * (N - 1)), np.ones((N, N))])
def test_parameters_without_effect_do_no_harm(curvature):
    made = rounding(3, curvature, 1e-3)
    zeros = np.zeros(N, np.int64)
    for each in (made.integers(np.ones(N), zeros, SINGLE), *made.thorough(np.ones(N), zeros, SINGLE, (1.0,))):
        assert np.abs(each).max() < 100


@pytest.mark.parametrize("target", [0, 5])
def test_integers_lie_whole_lengths_from_the_target(target):
    lengths, targets = np.where(TENSORS == 0, 1, 4), np.full(N, target, np.int64)
    made = rounding(4, bowl(4), 1e-3)
    found = [made.integers(np.full(N, 0.1), targets, lengths)]
    found += made.thorough(np.full(N, 0.1), targets, lengths, (0.5, 2.0))
    for each in found:
        assert not ((each - targets) % lengths).any() and (each != targets).any()


@pytest.mark.parametrize("seed", range(6))
def test_the_thorough_way_costs_less(seed):
    made, zeros = rounding(seed, bowl(seed), 0.0), np.zeros(N, np.int64)
    found = made.integers(np.ones(N), zeros, SINGLE), *made.thorough(np.ones(N), zeros, SINGLE, (1.0,))
    usual, thorough = (error @ made.curvature @ error for error in (made.exact - each for each in found))
    assert thorough <= usual * 1.001


def test_cheap_parameters_are_decided_last():
    assert _least_first(np.diag([3.0, 1.0, 2.0])).tolist() == [1, 2, 0]

    def costs(matrix: np.ndarray) -> float:
        """Of errors alike in all, each made up for by those after it."""
        return float((np.linalg.cholesky(matrix).diagonal() ** 2).sum())

    matrices = [bowl(seed) for seed in range(8)]
    orders = [_least_first(matrix) for matrix in matrices]
    assert all(sorted(order) == list(range(N)) for order in orders)
    ordered = sum(costs(matrix[np.ix_(order, order)]) for matrix, order in zip(matrices, orders, strict=True))
    assert ordered < 0.9 * sum(map(costs, matrices))


def test_tensors_have_steps_of_their_own_where_that_pays(trained, monkeypatch):
    def searched() -> tuple[float, QuantizedModule]:
        loss = FrameLoss(*with_objective(copy.deepcopy(trained[FrameType.I])))
        module = ModuleSearch(loss, "residue.synthesis", 4.0).run("descent")
        loss.load(module)
        return loss.total(module), module

    least, module = searched()
    assert len(set(module.lengths().tolist())) > 1
    monkeypatch.setattr(ModuleSearch, "_each_tensor", lambda self, shifts, least: (shifts, least))
    assert least < searched()[0]


@pytest.mark.parametrize("kind", [FrameType.I, FrameType.B])
def test_frames_are_coded_better_with_feedback(trained, kind):
    losses = []
    for samples in (0.0, 2.0):
        model = copy.deepcopy(trained[kind])
        training = replace(model.config.training, curvature_samples=samples, step_search="descent")
        model.config = replace(model.config, training=training)
        losses.append(total(quantized_model(model, PICTURE)))
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "preset, kind, depth, given, samples",
    [
        ("fast", FrameType.I, 0, {}, 0.0),
        ("medium", FrameType.I, 0, {}, 2.0),
        ("medium", FrameType.B, 2, {}, 2.0),
        ("medium", FrameType.B, 3, {}, 0.0),
        ("slow", FrameType.P, 1, {}, 16.0),
        ("fast", FrameType.P, 1, {"curvature_samples": 1.5}, 1.5),
    ],
)
def test_presets_estimate_the_curvature_of_frames_that_send_networks(preset, kind, depth, given, samples):
    config = EncodeConfig(preset=preset, training=given)
    assert frame_config(config, kind, depth, (64, 64)).training.curvature_samples == samples


def test_samples_are_not_negative():
    with pytest.raises(ConfigError, match="curvature_samples"):
        frame_config(EncodeConfig(training={"curvature_samples": -1}), FrameType.I, 0, (64, 64))
