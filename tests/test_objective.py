"""One objective everywhere: each stage prefers the candidate of least distortion + lambda * bits, for any plugin."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distortions import Absolute, install, pairs
from quantizing import quantized_model

import coolvid
from coolvid import EncodeConfig, Frame, FrameType, PixelFormat, PluginChoice, StructureConfig, VideoFormat
from coolvid.encoding.candidates import copies_of, encode_frame
from coolvid.encoding.job import FrameJob
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective, distortion_plugin
from coolvid.encoding.packing import best
from coolvid.encoding.quantization import rdo_latents
from coolvid.encoding.quantization.evaluate import FrameLoss
from coolvid.encoding.training.loop import Counters, evaluation
from coolvid.encoding.training.train import evaluate, train
from coolvid.errors import PluginError
from coolvid.events import FrameDone
from coolvid.plugin import registry
from coolvid.plugin.interfaces import DistortionPlugin
from coolvid.settings.presets import frame_config
from pictures import waves

FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
FRAMES = waves(FORMAT, 3)
LMBDA = 1e-3
CONFIG = EncodeConfig(
    lmbda=LMBDA, preset="fast", intra="lop", residue="lop", iterations=60, structure=StructureConfig(gop=2), threads=1
)
# name of the plugin, lambda in its units, its value of two pictures
DISTORTIONS = [
    ("mse", LMBDA, lambda a, b: float(np.square(a - b).mean())),
    ("thousandfold", 1000 * LMBDA, lambda a, b: 1000 * float(np.square(a - b).mean())),
    ("absolute", 0.05, lambda a, b: float(np.abs(a - b).mean())),
]
IDS = [name for name, *_ in DISTORTIONS]


@pytest.fixture(autouse=True)
def installed(other_distortions):
    """All tests here may name them."""


def samples(frame):
    return np.concatenate([plane.ravel() / 255.0 for plane in frame.planes])


def value(measure, lmbda, picture, frame, n_bytes):
    return measure(samples(picture), samples(frame)) + lmbda * 8 * n_bytes / (32 * 48)


def with_distortion(name, lmbda):
    return replace(CONFIG, distortion=PluginChoice(name), lmbda=lmbda)


def encoded(config, path, frames=FRAMES):
    seen = []
    coolvid.encode_frames(frames, path, config, listen=seen.append)
    return [event for event in seen if isinstance(event, FrameDone)]


@pytest.mark.parametrize("name, lmbda, measure", DISTORTIONS, ids=IDS)
def test_a_packet_costs_what_its_decoded_picture_and_bytes_cost(name, lmbda, measure, tmp_path):
    """FrameDone.loss is measured here again, from the file."""
    done = encoded(with_distortion(name, lmbda), tmp_path / "a.cvd")
    coolvid.decode(tmp_path / "a.cvd", tmp_path / "a.yuv")
    raw = np.frombuffer((tmp_path / "a.yuv").read_bytes(), np.uint8).reshape(3, -1) / 255.0
    for event in done:
        lmbda_of_frame = with_distortion(name, lmbda).lmbda_at(event.frame_type, event.frame_type.value)
        own = measure(raw[event.display_index], samples(FRAMES[event.display_index]))
        assert event.loss == pytest.approx(own + lmbda_of_frame * 8 * event.n_bytes / (32 * 48), rel=1e-5)


def test_a_multiple_of_the_squared_error_gives_the_same_bytes(tmp_path):
    for name, lmbda, _ in DISTORTIONS[:2]:
        encoded(with_distortion(name, lmbda), tmp_path / f"{name}.cvd")
    assert (tmp_path / "mse.cvd").read_bytes() == (tmp_path / "thousandfold.cvd").read_bytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Trained and quantized I frames for each distortion."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        install(tmp_path_factory.mktemp("models"), patch)
        for name, lmbda, _ in DISTORTIONS:
            config = frame_config(with_distortion(name, lmbda), FrameType.I, 0, (32, 48))
            encoder = FrameEncoder(config, FRAMES[0])
            train(encoder, FRAMES[0], Counters(), lmbda, max_iterations=60, frequency_validation=20)
            made[name] = quantized_model(encoder, FRAMES[0])
    registry.refresh()
    return made


@pytest.mark.parametrize("name, lmbda, measure", DISTORTIONS, ids=IDS)
def test_validation_and_quantization_see_the_same_value(models, name, lmbda, measure):
    model = copy.deepcopy(models[name])
    objective = Objective.of(model.config, FRAMES[0])
    decoded = evaluate(model, objective)
    with evaluation(model):
        out = model()
        planes = np.concatenate([p.numpy().ravel() for p in out.decoded_image.values()])
        target = np.concatenate([p.numpy().ravel() for p in FRAMES[0].as_tensor().values()])
        bits = float(out.rate) + model.get_network_rate()[1]
    wanted = measure(planes, target) + lmbda * bits / (32 * 48)
    assert decoded.loss == pytest.approx(wanted, rel=1e-4)
    loss = FrameLoss(model, objective)
    networks = lmbda * model.get_network_rate()[1] / (32 * 48)
    assert loss.value() * objective.scale + networks == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name, lmbda, measure", DISTORTIONS, ids=IDS)
def test_the_search_of_latents_lowers_the_value(models, name, lmbda, measure):
    model = copy.deepcopy(models[name])
    objective = Objective.of(model.config, FRAMES[0])
    before = evaluate(model, objective).loss
    assert rdo_latents(model, objective, 4) > 0
    assert evaluate(model, objective).loss < before


@pytest.mark.parametrize("name, lmbda, measure", DISTORTIONS, ids=IDS)
@pytest.mark.parametrize("order", ["0a", "a0"])
def test_copies_and_candidates_are_ranked_by_the_value(name, lmbda, measure, order, tmp_path):
    """The frame in the middle of two references, one of which it resembles."""
    pictures = {"0": FRAMES[0], "a": FRAMES[2]}
    first, last = (pictures[key] for key in order)
    configs = tuple(frame_config(with_distortion(name, lmbda), kind, 2, (32, 48)) for kind in (FrameType.B,))
    header = coolvid.read_info(made_stream(tmp_path, with_distortion(name, lmbda))).header
    step = SimpleNamespace(display_index=1, references=(0, 2), frame_type=FrameType.B, depth=2, coding_index=2)
    job = FrameJob(step, FRAMES[0], (first, last), configs, header, seed=0)
    objective = Objective.of(configs[0], FRAMES[0])
    copies = copies_of(job, objective)
    assert len(copies) == 3
    lmbda_of_frame = configs[0].lmbda
    values = [value(measure, lmbda_of_frame, c.picture, FRAMES[0], len(c.packet.data)) for c in copies]
    assert [c.loss * objective.scale for c in copies] == pytest.approx(values, rel=1e-5)
    least = copies[int(np.argmin(values))]
    assert best(*copies) is least and least.packet.info.references == ((0, 0) if order == "0a" else (2, 2))
    assert encode_frame(job).loss <= min(values) * (1 + 1e-6)


def made_stream(folder, config):
    encoded(replace(config, iterations=4), folder / "header.cvd")
    return folder / "header.cvd"


def test_a_trained_frame_wins_over_a_copy_that_only_squared_errors_would_prefer(tmp_path):
    """With lambda in thousandths, a copy of nine bytes once won against a picture that was 10 dB better."""
    frames = [FRAMES[0], FRAMES[2]]
    done = encoded(with_distortion("thousandfold", 1000 * 1e-4), tmp_path / "a.cvd", frames)
    plain = encoded(with_distortion("mse", 1e-4), tmp_path / "b.cvd", frames)
    assert [e.psnr_db for e in done] == [e.psnr_db for e in plain] and done[1].n_bytes > 20


class Broken(DistortionPlugin):
    name = "broken"

    def __init__(self, returns):
        super().__init__(None)
        self.returns = returns

    def distortion(self, decoded, target, state):
        mean = Absolute(None).distortion(decoded, target, state)
        return self.returns(mean)


BROKEN = [
    (lambda mean: mean[None], "a tensor [1]"),
    (lambda mean: float(mean.detach()), "a float"),
    (lambda mean: mean.detach(), "a detached tensor"),
    (lambda mean: mean * math.nan, "not finite"),
    (lambda mean: mean / {}["scale"], "KeyError"),
]


@pytest.mark.parametrize("returns, says", BROKEN)
def test_a_broken_distortion_is_one_line_at_its_first_call(returns, says, monkeypatch):
    monkeypatch.setattr("coolvid.encoding.objective.distortion_plugin", lambda choice: Broken(returns))
    with pytest.raises(PluginError) as caught:
        Objective.of(frame_config(CONFIG, FrameType.I, 0, (32, 48)), FRAMES[0])
    assert "distortion 'mse'" in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_claim_of_squared_errors_is_refused(monkeypatch):
    monkeypatch.setattr(Absolute, "is_squared_error", True)
    with pytest.raises(PluginError, match="distortion 'absolute' declares is_squared_error, but is not scale"):
        Objective.of(frame_config(with_distortion("absolute", 1.0), FrameType.I, 0, (32, 48)), FRAMES[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "1", None])
def test_a_scale_must_be_a_number_above_zero(scale, monkeypatch):
    plugin = Absolute(None)
    monkeypatch.setattr(Absolute, "scale", scale)
    monkeypatch.setattr("coolvid.settings.presets.make", lambda *_: plugin)
    with pytest.raises(PluginError, match=r"distortion 'absolute' has scale .*; expected a number greater than 0"):
        frame_config(with_distortion("absolute", 1.0), FrameType.I, 0, (32, 48))


class Recorder(Absolute):
    """Prepares once and keeps the states that it sees."""

    def __init__(self):
        super().__init__(None)
        self.prepared, self.states = 0, []

    def prepare(self, target, color):
        self.prepared += 1
        return target

    def distortion(self, decoded, target, state):
        self.states.append(state)
        return super().distortion(decoded, target, state)


def test_a_distortion_prepares_once_per_frame_and_learns_progress(monkeypatch):
    plugin = Recorder()
    monkeypatch.setattr("coolvid.encoding.objective.distortion_plugin", lambda choice: plugin)
    config = frame_config(CONFIG, FrameType.I, 0, (32, 48))
    train(FrameEncoder(config, FRAMES[0]), FRAMES[0], Counters(), 0.05, max_iterations=5, frequency_validation=5)
    assert plugin.prepared == 1
    training = [state for state in plugin.states if state.total == 5]
    assert [state.iteration for state in training] == [0, 1, 2, 3, 4]
    assert {state.progress for state in plugin.states if state.total != 5} == {1.0, 0.0}


def test_scale_and_units():
    plugin = distortion_plugin(PluginChoice("thousandfold"))
    decoded, target = (frame.as_tensor() for frame in FRAMES[:2])
    squares = torch.cat([(d - t).square().flatten() for d, t in pairs(decoded, target)])
    objective = Objective.of(frame_config(with_distortion("thousandfold", 1.0), FrameType.I, 0, (32, 48)), FRAMES[1])
    assert float(plugin.distortion(decoded, target, None)) == pytest.approx(1000 * float(squares.mean()))
    assert float(objective.distortion(decoded)) == pytest.approx(float(squares.mean()))
    assert objective.lmbda == LMBDA and isinstance(FRAMES[0], Frame)
