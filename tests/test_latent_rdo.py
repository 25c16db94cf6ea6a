"""RDO of latents: never worse, judged where changes are felt, the same for any number of threads; in packets."""

import copy
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from distortions import Absolute, Opaque
from quantizing import quantized_model

from coolvid import kernels
from coolvid.bitstream.headers import StreamHeader
from coolvid.codec.coded_frame import MAX_LATENT
from coolvid.codec.gop import plan
from coolvid.encoding import candidates
from coolvid.encoding.candidates import encode_frame
from coolvid.encoding.job import FrameResult
from coolvid.encoding.loss import loss_function
from coolvid.encoding.manager import FrameEncoderManager
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.encoding.quantization import rdo_latents
from coolvid.encoding.quantization.latent_loss import CELL, STEPS, LatentLoss, frozen
from coolvid.encoding.quantization.latent_rdo import _Search
from coolvid.picture.types import ColorInfo, Frame, FrameType, PixelFormat, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import TABLE, frame_config
from pictures import edge

ROUNDS = 3
HEIGHT, WIDTH = 24, 32
FORMAT = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)


def picture(shift: int) -> Frame:
    return edge(FORMAT, shift)


FRAME = picture(0)


def with_objective(model: FrameEncoder) -> tuple[FrameEncoder, Objective]:
    return model, Objective.of(model.config, FRAME)


def encoder(kind: FrameType) -> FrameEncoder:
    """A frame encoder after a few steps of Adam."""
    config = frame_config(EncodeConfig(lmbda=1e-4, intra="lop", residue="mop", motion="mop"), kind, 0, (HEIGHT, WIDTH))
    model = FrameEncoder(config, FRAME, [picture(shift) for shift in (-2, 2)[: kind.n_references]], seed=1).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        out = model("gaussian", "softround", 0.3, 0.2)
        adam.zero_grad()
        loss_function(out.decoded_image, out.rate, FRAME.as_tensor(), config.lmbda).loss.backward()
        adam.step()
    return model


def plain_loss(model: FrameEncoder) -> float:
    """Loss by the model's own forward, networks not counted."""
    with torch.no_grad():
        out = model.eval()()
        return float(loss_function(out.decoded_image, out.rate, FRAME.as_tensor(), model.config.lmbda).loss)


@pytest.fixture(scope="module")
def quantized() -> dict[FrameType, FrameEncoder]:
    return {kind: quantized_model(encoder(kind), FRAME).eval() for kind in FrameType}


def latents_of(model: FrameEncoder) -> list[list[float]]:
    return [branch.rounded_latents().tolist() for branch in model.branches.values()]


def loss_of(model: FrameEncoder, branch: str = "residue") -> LatentLoss:
    planes = {name: each.raw_planes() for name, each in model.branches.items()}
    return LatentLoss(model, Objective.of(model.config, FRAME), branch, planes)


# -- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FrameType)
def test_the_loss_falls_and_the_networks_stay(quantized, kind):
    model = copy.deepcopy(quantized[kind])
    before, networks = plain_loss(model), {k: v for k, v in model.get_param().items() if "latents" not in k}
    latents = latents_of(model)
    assert rdo_latents(*with_objective(model), ROUNDS) > 0
    assert latents_of(model) != latents
    assert plain_loss(model) < before * (1 - 1e-4)
    after = model.get_param()
    assert all(torch.equal(after[name], value) for name, value in networks.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_both_branches_change(quantized):
    model = copy.deepcopy(quantized[FrameType.B])
    before = latents_of(model)
    rdo_latents(*with_objective(model), ROUNDS)
    assert all(old != new for old, new in zip(before, latents_of(model), strict=True))


def test_more_rounds_are_no_worse_and_none_change_nothing(quantized):
    losses = []
    for rounds in (0, 1, 6):
        model = copy.deepcopy(quantized[FrameType.I])
        kept = rdo_latents(*with_objective(model), rounds)
        losses.append(plain_loss(model))
        assert (kept == 0) == (rounds == 0)
    assert losses[0] > losses[1] >= losses[2]
    assert losses[0] == plain_loss(quantized[FrameType.I])


def test_it_ends_when_nothing_helps_any_more(quantized):
    model = copy.deepcopy(quantized[FrameType.P])
    with frozen(model):
        search = _Search(loss_of(model))
        counts = [search.round() for _ in range(60)]
    assert counts[0] > 0
    assert counts[-1] == 0
    settled = copy.deepcopy(quantized[FrameType.P])
    rdo_latents(*with_objective(settled), 1000)  # would take minutes if it did not end


def test_what_is_kept_adds_up_to_what_the_frame_gains(quantized, monkeypatch):
    """Windows see all of a change: else the parts would not add up."""
    model = copy.deepcopy(quantized[FrameType.I])
    gains = []
    plain = _Search._try

    def noted(self, batch, state):
        count, gain = plain(self, batch, state)
        gains.append(gain)
        return count, gain

    monkeypatch.setattr(_Search, "_try", noted)
    before = plain_loss(model)
    rdo_latents(*with_objective(model), 1)
    assert sum(gains) == pytest.approx(before - plain_loss(model), rel=0.1)


def test_a_round_that_raises_the_loss_is_taken_back(quantized, monkeypatch):
    """As with modules whose reach is wider than any window."""
    monkeypatch.setattr(_Search, "_by_owner", lambda self, owners, before, after: -np.ones(owners.max()))
    monkeypatch.setattr(LatentLoss, "estimate", lambda self: -np.ones((len(STEPS), len(self.flat))))
    model = copy.deepcopy(quantized[FrameType.I])
    latents = latents_of(model)
    assert rdo_latents(*with_objective(model), ROUNDS) == 0
    assert latents_of(model) == latents


def test_batches_share_no_cell_and_no_step_comes_twice(quantized):
    with frozen(quantized[FrameType.I]):
        search = _Search(loss_of(quantized[FrameType.I]))
        batches = search._batches(search.loss.estimate())
    steps = [(step, latent) for batch in batches for step, latent in zip(batch.steps, batch.latents, strict=True)]
    assert len(steps) == len(set(steps)) > 50
    assert any(len(batch.latents) > 1 for batch in batches)
    promises = [batch.promise for batch in batches]
    assert promises == sorted(promises, reverse=True)
    for batch in batches:
        owners = batch.owners(search.loss.cells)
        assert (owners[search.loss.cell[batch.latents]] == 1 + np.arange(len(batch.latents))).all()
        sizes = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in batch.windows]
        assert (np.bincount(owners)[1:] <= sizes).all()


def test_threads_do_not_matter(quantized):
    found = []
    for threads in (1, 3):
        model = copy.deepcopy(quantized[FrameType.B])
        with kernels.using(threads):
            rdo_latents(*with_objective(model), ROUNDS)
        found.append(latents_of(model))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [FrameType.I, FrameType.P])
def test_without_compiled_kernels_it_gains_as_much(quantized, monkeypatch, kind):
    gains = []
    for chosen in (kernels.compiled, None):
        for module in list(sys.modules.values()):
            if module.__name__.startswith(("coolvid.", "coolvid_plugins.")) and hasattr(module, "compiled"):
                monkeypatch.setattr(module, "compiled", chosen)
        model = copy.deepcopy(quantized[kind])
        before = plain_loss(model)
        assert rdo_latents(*with_objective(model), ROUNDS)
        gains.append(before - plain_loss(model))
    assert gains[1] == pytest.approx(gains[0], rel=0.3)
    assert min(gains) > 0


@pytest.mark.parametrize("plugin, is_searched", [(Absolute, True), (Opaque, False)])
def test_other_distortions_are_searched_where_they_are_sums(quantized, plugin, is_searched):
    model = copy.deepcopy(quantized[FrameType.I])
    objective = replace(Objective.of(model.config, FRAME), plugin=plugin(None), lmbda=20 * model.config.lmbda)

    def loss():
        bits = sum(branch.bits(branch.rounded_latents()).sum() for branch in model.branches.values())
        return float((objective.distortion(model().decoded_image) + objective.loss_per_bit * bits).detach())

    before = loss()
    assert (rdo_latents(model.eval(), objective, ROUNDS) > 0) == is_searched
    assert (loss() < before) == is_searched


# -- the loss and its estimate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FrameType)
def test_the_loss_is_that_of_the_model(quantized, kind):
    model = quantized[kind]
    with torch.no_grad():
        bits = {name: float(each.bits(each.rounded_latents()).sum()) for name, each in model.branches.items()}
    for branch in model.branches:
        loss = loss_of(model, branch)
        others = sum(value for name, value in bits.items() if name != branch)
        total = loss.total(loss.measure(loss.flat)) + loss.loss_per_bit * others
        assert total == pytest.approx(plain_loss(model), rel=1e-5)


def test_cells_hold_the_errors_of_their_pixels(quantized):
    loss = loss_of(quantized[FrameType.I])
    with torch.no_grad():
        decoded = quantized[FrameType.I].eval()().decoded_image
    errors = [np.square((decoded[plane] - FRAME.as_tensor()[plane])[0, 0].numpy()) for plane in "yuv"]
    found = loss.measure(loss.flat).cells.reshape(loss.cells)
    assert loss.cells == (HEIGHT // CELL, WIDTH // CELL)
    n = sum(plane.size for plane in errors)
    expected = errors[0][4:8, 8:12].sum() + sum(plane[2:4, 4:6].sum() for plane in errors[1:])
    assert found[1, 2] == pytest.approx(expected / n, rel=1e-5)


@pytest.mark.parametrize("branch, kind", [("residue", FrameType.I), ("motion", FrameType.B)])
def test_what_the_estimate_prefers_is_better_than_what_it_rejects(quantized, branch, kind):
    with frozen(quantized[kind]):
        loss = loss_of(quantized[kind], branch)
        estimate = loss.estimate()
        start = loss.total(loss.measure(loss.flat))

        def change(place: int) -> float:
            step, latent = divmod(place, len(loss.flat))
            trial = loss.flat.clone()
            trial[latent] += STEPS[step]
            return loss.total(loss.measure(trial)) - start

        order = np.argsort(estimate, axis=None)
        preferred = [change(int(place)) for place in order[:20]]
        rejected = [change(int(place)) for place in order[len(order) // 2 :: len(order) // 40][:20]]
    assert np.median(preferred) < np.median(rejected)
    assert min(preferred) < 0 < np.median(rejected)


def test_no_step_leaves_the_range_of_latents(quantized):
    model = copy.deepcopy(quantized[FrameType.I])
    flat = model.branches["residue"].rounded_latents().detach()
    flat[3], flat[5] = MAX_LATENT, -MAX_LATENT
    model.branches["residue"].write_latents(flat)
    with frozen(model):
        loss = loss_of(model)
        assert torch.equal(loss.flat, flat)
        estimate = loss.estimate()
    assert np.isinf(estimate[1, 3])
    assert np.isinf(estimate[0, 5])
    assert np.isfinite(np.delete(estimate, (3, 5), axis=1)).all()


# -- in an encode ---------------------------------------------------------------------------------------------------


def coded(rounds: int) -> FrameResult:
    config = EncodeConfig(preset="fast", iterations=30, intra="lop", threads=1, training={"latent_rdo_rounds": rounds})
    architecture = FrameEncoder(frame_config(config, FrameType.I, 0, (HEIGHT, WIDTH)), FORMAT).architecture
    header = StreamHeader(FORMAT, Fraction(25), ColorInfo(), 1, 1, 0, False, (architecture,))
    made = FrameEncoderManager(config, header)
    return encode_frame(made.job(plan(1, config.structure)[0], FRAME))


def test_packets_get_cheaper():
    assert coded(4).loss < coded(0).loss


def test_a_packet_that_would_be_worse_is_not_sent(monkeypatch):
    """The search sees the float model; what counts is the packet."""

    def ruin(frame_encoder, objective, rounds):
        for branch in frame_encoder.branches.values():
            branch.write_latents(branch.rounded_latents() + 3)
        return 1

    expected = coded(0)
    monkeypatch.setattr(candidates, "rdo_latents", ruin)
    made = coded(4)
    assert made.packet.data == expected.packet.data
    assert made.loss == expected.loss


def test_presets_say_how_many_rounds():
    rounds = [
        frame_config(EncodeConfig(preset=name), FrameType.I, 0, (64, 64)).training.latent_rdo_rounds for name in TABLE
    ]
    assert rounds == sorted(rounds)
    assert rounds[0] > 0
    given = EncodeConfig(training={"latent_rdo_rounds": 7})
    assert frame_config(given, FrameType.B, 2, (64, 64)).training.latent_rdo_rounds == 7
