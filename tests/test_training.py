"""train(), the warm-up and the schedule, on frames of a few hundred pixels."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from coolvid.encoding.model.coolchic import CoolChicEncoderOutput
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.encoding.training import loop
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.motion_start import FLATNESS, SATURATION, FlowTask, flows, luma, slopes, start_motion
from coolvid.encoding.training.schedule import train_frame
from coolvid.encoding.training.train import evaluate, select_groups, train
from coolvid.encoding.training.warmup import Candidate, compete
from coolvid.errors import ConfigError, PluginError, TrainingError
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin import registry
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.config import CoolChicEncoderParameter, FrameConfig, Phase, TrainingConfig, WarmupRound

SIZE = (32, 48)
LMBDA = 1e-3
CLIP = Path(__file__).parents[1] / "../shared/clips/BQSquare_224x128_60p_yuv420_8b.yuv"
SHORT = Phase(6, frequency_validation=3)


@dataclasses.dataclass
class Recorder(Counters):
    """Remembers what it was told."""

    told: list = dataclasses.field(default_factory=list)

    def progress(self, phase, iteration, loss, psnr_db, rate_bpp):
        self.told.append((phase, iteration, loss, psnr_db, rate_bpp))


def picture(shift=0, seed=0, pixel_format=PixelFormat.YUV444):
    """Smooth blobs, moved to the left by `shift` pixels."""
    h, w = SIZE
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] + np.array([0, shift])[:, None, None]
    planes = []
    for plane_h, plane_w in pixel_format.plane_shapes(h, w):
        fy, fx, phase = rng.uniform(0.2, 0.6, 6), rng.uniform(0.2, 0.6, 6), rng.uniform(0, 6, 6)
        waves = sum(np.cos(a * y + b * x + c) for a, b, c in zip(fy, fx, phase, strict=True))
        planes.append(np.round(127 + 20 * waves[:: h // plane_h, :: w // plane_w]).clip(0, 255).astype(np.uint16))
    return Frame(tuple(planes), VideoFormat(h, w, pixel_format, 8))


def parameter(**changes):
    given = {
        "img_size": SIZE,
        "layers_synthesis": "4-1-linear-relu,X-1-linear-none",
        "latent_resolution": (0, 3),
        "hyperlatent_resolution": None,
        "output_feature_ifce": 0,
        "spatial_context_arm": 4,
        "n_hidden_layers_arm": 1,
    }
    return CoolChicEncoderParameter(**{**given, **changes})


def frame_config(frame_type=FrameType.I, **training):
    is_intra = frame_type is FrameType.I
    motion = None if is_intra else parameter(latent_resolution=(2, 3), final_upsampling_type="nearest")
    plan = {"warmup": (WarmupRound(2, SHORT), WarmupRound(1, SHORT)), "phases": (SHORT, SHORT), **training}
    return FrameConfig(
        frame_type, LMBDA, parameter(), motion, PluginChoice("sinc", (("taps", 2),)), TrainingConfig(**plan)
    )


def objective():
    return Objective.of(frame_config(), picture(), lmbda=LMBDA)


def intra(seed=0, frame=None):
    return FrameEncoder(frame_config(), frame or picture(), seed=seed)


def predicted(seed=0, shift=4, translation=((0, 0),)):
    config = frame_config(FrameType.P, motion_start=40)
    return FrameEncoder(config, picture(shift), (picture(),), global_translation=translation, seed=seed)


def changed(before, encoder):
    return {name for name, value in encoder.get_param().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("pixel_format", [PixelFormat.YUV420, PixelFormat.YUV444])
def test_training_lowers_the_loss_and_returns_the_best(pixel_format):
    frame, manager = picture(pixel_format=pixel_format), Recorder()
    encoder = train(intra(frame=frame), frame, manager, LMBDA, max_iterations=60, frequency_validation=20)
    losses = [loss for _, _, loss, _, _ in manager.told]
    assert [i for _, i, *_ in manager.told] == [0, 20, 40, 60]
    assert losses[-1] < 0.3 * losses[0]
    assert manager.best_loss == min(losses) == evaluate(encoder, Objective.of(encoder.config, frame, lmbda=LMBDA)).loss
    assert manager.iterations_counter == 60 and manager.total_training_time_sec > 0
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_equal_seeds_train_equally_and_others_differ():
    ends = []
    for seed in (0, 0, 1):
        encoder = train(intra(seed), picture(), Counters(), LMBDA, max_iterations=12, frequency_validation=6)
        ends.append(torch.cat([p.flatten() for p in encoder.get_param().values()]))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    "name, moved",
    [
        ("residue.arm", {"arm"}),
        ("residue.latents", {"latents"}),
        (("all.synthesis", "residue.upsampling"), {"synthesis", "upsampling"}),
        ("residue.all", {"arm", "latents", "synthesis", "upsampling"}),
        ("all", {"arm", "latents", "synthesis", "upsampling"}),
        ("residue.warper", set()),
    ],
)
def test_only_the_named_modules_move(name, moved):
    encoder = train(intra(), picture(), Counters(), LMBDA, max_iterations=8, frequency_validation=8)
    before = encoder.get_param()
    train(encoder, picture(), Counters(), LMBDA, 1e-2, max_iterations=40, frequency_validation=1, optimized_module=name)
    parts = {next(m for m in ("arm", "latents", "synthesis", "upsampling") if m in n) for n in changed(before, encoder)}
    assert parts <= moved and bool(parts) == bool(moved)


def test_unknown_modules_are_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"'motion.arm'; choose one of: all, all.all, all.arm, .*residue.arm"):
        train(intra(), picture(), Counters(), LMBDA, optimized_module="motion.arm")
    groups = {"residue.arm": [torch.zeros(1)], "motion.arm": [torch.ones(1)], "all": []}
    assert list(select_groups(groups, ("all.arm", "residue.all"))) == ["residue.arm", "motion.arm"]


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"quantizer_noise_type": "pink"}, "kumaraswamy, gaussian, none"),
        ({"quantizer_type": "sofround"}, "no quantizer named 'sofround'"),
        ({"softround_temperature": 0.0}, r"softround_temperature\[0\] is 0.0"),
        ({"max_iterations": -1}, "max_iterations is -1"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ConfigError, match=says):
        train(intra(), picture(), Counters(), LMBDA, **settings)


@pytest.mark.parametrize("quantizer", ["softround_alone", "ste", "none", "softround:noise=kumaraswamy"])
def test_every_quantizer_trains(quantizer):
    manager = Recorder()
    noise = 1.0 if "kumaraswamy" in quantizer else 0.2
    train(intra(), picture(), manager, LMBDA, max_iterations=20, frequency_validation=20,
          quantizer_type=quantizer, quantizer_noise_type="gaussian", noise_parameter=noise)  # fmt: skip
    assert manager.best_loss < manager.told[0][2]


def test_hardround_trains_networks_but_not_latents():
    encoder = train(intra(), picture(), Counters(), LMBDA, max_iterations=10, frequency_validation=10)
    before = encoder.get_param()
    train(encoder, picture(), Counters(), LMBDA, 1e-4, False, 4, 1,
          quantizer_type="hardround", quantizer_noise_type="none")  # fmt: skip
    moved = changed(before, encoder)
    assert moved and not any("latents" in name for name in moved)
    train(encoder, picture(), Counters(), LMBDA, max_iterations=2, optimized_module="residue.latents",
          quantizer_type="hardround")  # fmt: skip


class Scripted:
    """A task whose validations give a prescribed series of losses."""

    fused, distortion_name = None, ""

    def __init__(self, losses):
        self.module = torch.nn.Linear(1, 1)
        self.groups = {"x.arm": list(self.module.parameters())}
        self.is_fresh = True
        self.losses, self.seen, self.restored = list(losses), [], []

    def get_param(self):
        return len(self.seen)

    def set_param(self, param):
        self.restored.append(param)

    def loss(self, settings, temperature, noise_parameter, state):
        self.seen.append((temperature, noise_parameter))
        return self.module(torch.ones(1, 1)).sum()

    def validate(self):
        return loop.Validation(self.losses.pop(0), 0.0, 0.0)


def settings(cosine, patience=2):
    return Phase(6, 1e-2, cosine, 1, patience, softround_temperature=(0.5, 0.1), noise_parameter=(1.0, 0.0))


def test_patience_stops_a_constant_rate():
    task = Scripted([5.0, 3.0, 4.0, 3.0, 1.0, 1.0, 1.0])
    best = loop.optimize(task, settings(cosine=False), Counters(), "x")
    assert best.loss == 3.0 and len(task.seen) == 3 and task.restored == [1]


def test_patience_goes_on_from_the_best_with_a_cosine():
    task = Scripted([5.0, 3.0, 4.0, 3.0, 1.0, 2.0, 2.0])
    manager = Counters()
    best = loop.optimize(task, settings(cosine=True), manager, "x")
    assert best.loss == 1.0 and len(task.seen) == 6 and task.restored == [1, 4, 4]
    assert manager.best_loss == 1.0 and manager.iterations_counter == 6


def test_temperature_and_noise_move_linearly():
    task = Scripted([1.0] * 7)
    loop.optimize(task, settings(cosine=True, patience=100), Counters(), "x")
    assert [t for t, _ in task.seen] == pytest.approx([0.5, 0.42, 0.34, 0.26, 0.18, 0.1])
    assert [n for _, n in task.seen] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_a_trained_model_starts_gently():
    task = Scripted([1.0] * 7)
    run = loop.PhaseRun(task, settings(cosine=False), Counters(), "x", False)
    assert [run.lr(i) for i in (0, 5)] == [1e-2, 1e-2]
    task.is_fresh = False
    assert [run.lr(i) for i in (0, 4, 9, 20)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])


@pytest.mark.parametrize(
    "losses, least_gain, iterations",
    [
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5], 0.01, 8),
        ([8.0, 8.0, 6.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.5], 0.01, 5),  # 3 done, 5 left: 2 more
        ([8.0, 8.0, 6.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.5], 0.0, 8),
        ([8.0, 9.0, 7.0, 6.99, 6.98, 6.97], 0.01, 4),  # the first quarter may lose
    ],
)
def test_a_flat_loss_shortens_a_cosine(losses, least_gain, iterations):
    counters = Counters()
    given = dataclasses.replace(settings(cosine=True, patience=100), max_iterations=8, least_gain=least_gain)
    loop.optimize(Scripted(losses), given, counters, "x")
    assert counters.iterations_counter == iterations
    constant = dataclasses.replace(given, cosine_scheduling_lr=False)
    loop.optimize(Scripted([8.0] * 9), constant, counters, "x")
    assert counters.iterations_counter == iterations + 8


def test_numbers_that_are_not_finite_are_an_error_and_the_best_is_put_back():
    task = Scripted([5.0, 4.0, float("nan")])
    with pytest.raises(TrainingError, match=r"loss is nan after 2 iterations of phase 'x'; try a start_lr below 0\.01"):
        loop.optimize(task, settings(cosine=True), Counters(), "x")
    assert task.restored == [1]
    encoder = intra()
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss is nan after 0 iterations"):
        train(encoder, picture(), Counters(), LMBDA, max_iterations=1)


def with_distortion(name):
    config = dataclasses.replace(frame_config(), distortion=PluginChoice(name))
    return FrameEncoder(config, picture())


def test_a_distortion_that_fails_later_is_blamed_but_not_for_a_divergence(other_distortions, monkeypatch):
    cls = registry.load("distortion", "absolute")
    measure, calls = cls.distortion, []

    def broken(self, decoded, target, state):
        calls.append(state)
        return measure(self, decoded, target, state) * (float("nan") if len(calls) > 8 else 1.0)

    monkeypatch.setattr(cls, "distortion", broken)
    with pytest.raises(PluginError, match="distortion 'absolute' is nan for a picture of finite values"):
        train(with_distortion("absolute"), picture(), Counters(), LMBDA, max_iterations=20, frequency_validation=1)
    monkeypatch.setattr(cls, "distortion", measure)
    encoder = with_distortion("absolute")
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss is nan .* or check the distortion 'absolute' \(coolvid"):
        train(encoder, picture(), Counters(), LMBDA, max_iterations=1)


def test_warmup_keeps_the_best_candidates():
    made = []

    def make(seed):
        made.append(seed)
        return intra(seed)

    manager = Recorder()
    rounds = (WarmupRound(3, SHORT), WarmupRound(2, SHORT), WarmupRound(1, SHORT))
    winner = compete(make, objective(), manager, rounds)
    assert made == [0, 1, 2] and manager.iterations_counter == 6 * 6
    finals = {phase: loss for phase, _, loss, _, _ in manager.told}
    first = {phase[-1]: finals[phase] for phase in finals if phase.startswith("warm-up 1")}
    second = {phase[-1] for phase in finals if phase.startswith("warm-up 2")}
    assert second == set(sorted(first, key=first.__getitem__)[:2])
    assert manager.best_loss == evaluate(winner, objective()).loss


def test_a_coarse_start_leaves_the_finest_grid_out():
    manager, made = Recorder(), {}

    def make(seed):
        made[seed] = intra(seed)
        return made[seed]

    compete(make, objective(), manager, (WarmupRound(3, dataclasses.replace(SHORT, max_iterations=0)),), coarse_start=5)
    moved = {seed: [bool(each.detach().any()) for each in made[seed].branches["residue"].latents] for seed in made}
    assert moved[0] == moved[2] == [False] * len(moved[0])
    assert moved[1] == [False] + [True] * (len(moved[1]) - 1)
    assert manager.iterations_counter == 5
    assert [phase for phase, i, *_ in manager.told if i == 5] == ["coarse start 2"]


RANKS = [  # losses of a candidate without and of one with a coarse start; whether the second is chosen
    (1.0, 0.90, True),
    (1.0, 0.94, False),
    (1.0, 1.0, False),
]


@pytest.mark.parametrize("usual, coarse, chosen", RANKS)
def test_a_coarse_start_has_to_be_well_ahead(usual, coarse, chosen):
    field = [Candidate(0, None, False, usual), Candidate(1, None, True, coarse)]
    assert (min(field, key=lambda each: each.rank).seed == 1) == chosen
    assert Candidate(3, None, False, 1.0).rank > Candidate(1, None, False, 1.0).rank


def test_a_frame_is_trained_by_its_configuration_and_always_alike():
    results = []
    for _ in range(2):
        manager = Recorder()
        encoder = train_frame(intra, Objective.of(frame_config(), picture()), manager, frame_config())
        results.append((encoder.get_param(), [phase for phase, i, *_ in manager.told if i == 0], manager))
    (first, phases, manager), (second, _, _) = results
    assert phases == ["warm-up 1.1", "warm-up 1.2", phases[2], "phase 1", "phase 2"]
    assert manager.iterations_counter == frame_config().training.total_iterations(is_fresh=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("is_trained, rates", [(True, [4e-3, 4e-5]), (False, [1e-2, 1e-4])])
def test_a_trained_frame_learns_slower(is_trained, rates, monkeypatch):
    seen = []

    def phase(encoder, objective, manager, settings, name):
        seen.append(settings.start_lr)
        return encoder

    monkeypatch.setattr("coolvid.encoding.training.schedule.train_phase", phase)
    phases = (Phase(5), Phase(5, start_lr=1e-4))
    config = frame_config(FrameType.P, warmup=(), phases=phases, inherit_lr_scale=0.4)
    train_frame(predicted, Objective.of(config, picture()), Recorder(), config, is_trained=is_trained)
    assert seen == pytest.approx(rates)


def test_motion_start_reproduces_the_flow():
    encoder, manager = predicted(), Recorder()
    config = dataclasses.replace(encoder.config, lmbda=1e-5)
    flow = flows(encoder, picture(4), config)
    assert flow.shape == (2, *SIZE) and np.median(flow[0]) == pytest.approx(4, abs=0.2)
    encoder.branches["motion"].set_param(start_motion(encoder, Objective.of(config, picture(4)), manager, config))
    encoder.eval()
    with torch.no_grad():
        raw = encoder.branches["motion"]().raw_out
    assert raw[0, 0].median().item() == pytest.approx(4, abs=0.7)
    assert raw[0, 1].median().item() == pytest.approx(0, abs=0.7)
    assert manager.told[-1][2] < 0.2 * manager.told[0][2]
    assert {phase for phase, *_ in manager.told} == {"motion start"}


def test_a_wrong_vector_costs_what_the_picture_would_lose():
    """A ramp that rises by 1/64 a pixel to the right: vectors may be wrong up and down, not to the side."""
    ramp = np.tile(np.arange(SIZE[1]) * 4, (SIZE[0], 1)).astype(np.uint16)
    frame = Frame((ramp, ramp // 2, ramp // 2), picture().format)
    encoder = FrameEncoder(frame_config(FrameType.P), frame, (frame,), global_translation=((0, 0),))
    still = torch.zeros(1, 2, *SIZE)
    task = FlowTask(encoder, still, slopes(encoder, still), LMBDA)

    def error(x, y):
        coarse = torch.zeros(1, 2, SIZE[0] // 4, SIZE[1] // 4) + torch.tensor([x, y]).view(1, 2, 1, 1)
        return task._error(CoolChicEncoderOutput(torch.zeros(1), coarse, lambda x: x)).item()

    lost = 4 * (4 / 255) ** 2 * (SIZE[1] - 2) / SIZE[1]
    assert error(0.0, 2.0) == pytest.approx(4 * FLATNESS, rel=1e-3)
    assert error(2.0, 0.0) == pytest.approx(lost / (1 + lost / SATURATION) + 4 * FLATNESS, rel=0.05)
    assert error(30.0, 0.0) < SATURATION + 900 * FLATNESS


def test_all_candidates_get_the_motion_start():
    manager, starts = Recorder(), {}

    def make(seed):
        encoder = starts[seed] = predicted(seed)
        return encoder

    config = frame_config(FrameType.P, motion_start=4, warmup=(WarmupRound(2, Phase(0)),), phases=())
    train_frame(make, Objective.of(config, picture(4)), manager, config)
    parameters = [starts[seed].branches["motion"].get_param() for seed in (0, 1)]
    assert any(p.abs().sum() > 0 for name, p in parameters[1].items() if name.startswith("latents"))
    assert all(torch.equal(parameters[0][name], parameters[1][name]) for name in parameters[0])
    assert manager.iterations_counter == 4


def test_a_motion_plugin_that_breaks_its_contract_is_named(monkeypatch):
    monkeypatch.setattr(
        "coolvid.encoding.training.motion_start.make", lambda *a: type("M", (), {"flow": lambda s, a, b: a})()
    )
    with pytest.raises(PluginError, match=r"motion 'block_matching' gave"):
        flows(predicted(), picture(), frame_config(FrameType.P))


def test_luma_of_rgb_is_a_weighted_sum():
    planes = np.stack([np.full((2, 2), v, dtype=np.float32) for v in (1.0, 0.5, 0.25)])
    assert luma(planes, PixelFormat.RGB)[0, 0] == pytest.approx(0.299 + 0.2935 + 0.0285)
    assert np.array_equal(luma(planes, PixelFormat.YUV420), planes[0])


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.exists(), reason="needs the shared clips")
def test_a_real_frame_comes_below_two_thousandths_in_200_iterations():
    width, height = map(int, re.search(r"_(\d+)x(\d+)_", CLIP.name).groups())
    data = np.fromfile(CLIP, np.uint8, count=width * height * 3 // 2).astype(np.uint16)
    y, u, v = np.split(data, (width * height, width * height * 5 // 4))
    planes = (y.reshape(height, width), u.reshape(height // 2, -1), v.reshape(height // 2, -1))
    frame = Frame(planes, VideoFormat(height, width, PixelFormat.YUV420, 8))
    config = dataclasses.replace(
        frame_config(),
        residue=CoolChicEncoderParameter(
            (height, width), "8-1-linear-relu,X-1-linear-none,X-3-residual-none",
            output_feature_ifce=2, spatial_context_arm=6,
        ),
    )  # fmt: skip
    manager = Recorder()
    train(FrameEncoder(config, frame), frame, manager, LMBDA, max_iterations=200)
    assert manager.best_loss < 2.0e-3
