"""Inherited networks on the encoder's side: frozen, free, chosen by loss, and the same in the decoder."""

import math
import pickle
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import coolvid
from coolvid import EncodeConfig, Frame, FrameType, PixelFormat, StructureConfig, VideoFormat
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.weights import module_bits
from coolvid.coded import MODULES
from coolvid.config import HEIRS, Phase, WarmupRound
from coolvid.errors import ConfigError
from coolvid.events import FrameDone, FrameStarted
from coolvid.gop import plan
from coolvid.manager import FrameEncoderManager
from coolvid.model.frame_encoder import FrameEncoder
from coolvid.modules import module_tensors
from coolvid.networks import FrameNetworks, parameter_names, same_parameters
from coolvid.presets import frame_config
from coolvid.quantization import code_frame, inherit, network_bits, quantize_model, rdo_parameters, warm_start
from coolvid.training.loop import Counters
from coolvid.training.schedule import train_frame
from coolvid.training.train import train
from coolvid.training.warmup import Heir, compete
from coolvid.types import ColorInfo

FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
FAST = EncodeConfig(
    preset="fast", residue="lop", motion="lop", iterations=30, structure=StructureConfig(gop=4), threads=1
)
B = replace(frame_config(FAST, FrameType.B, 2, (32, 48)), lmbda=1e-6)  # so low that latents are worth their bits
LMBDA = B.lmbda


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(t):
    planes = []
    for i, (h, w) in enumerate(FORMAT.plane_shapes):
        y, x = np.mgrid[:h, :w] * (FORMAT.height / h)
        wave = 0.5 + 0.3 * np.sin((x + 1.5 * t) / 4 + i) * np.cos((y - 0.5 * t) / 5)
        planes.append(np.round(wave * FORMAT.peak).astype(np.uint16))
    return Frame(tuple(planes), FORMAT)


def fresh(seed=0):
    return FrameEncoder(B, picture(1), (picture(0), picture(2)), seed=seed)


@pytest.fixture(scope="module")
def networks():
    """Those of a B frame that was coded by itself."""
    torch.set_num_threads(1)
    encoder = train(fresh(7), picture(1), Counters(), LMBDA, max_iterations=60, frequency_validation=20)
    return FrameNetworks.of(code_frame(quantize_model(encoder, picture(1), Counters()), 6, (0, 2)))


RESIDUE = ("residue.arm", "residue.synthesis", "residue.upsampling")
ALL = (*RESIDUE, "motion.arm", "motion.synthesis", "motion.upsampling")


def test_inherited_modules_are_neither_trained_nor_searched_nor_paid(networks):
    heir = inherit(fresh(), networks, RESIDUE)
    assert heir.inherited == frozenset(RESIDUE)
    train(heir, picture(1), Counters(), LMBDA, max_iterations=20, frequency_validation=5, network_rate_weight=1.0)
    quantize_model(heir, picture(1), Counters())
    rdo_parameters(heir, picture(1), Counters(), 1)
    coded = code_frame(heir, 1, (0, 2), 6)
    assert (coded.predictor, coded.inherited) == (6, frozenset(RESIDUE))
    for branch, coolchic in coded.coolchics.items():
        for name in MODULES:
            same = same_parameters(coolchic.modules[name], networks.modules[branch][name])
            assert same == (f"{branch}.{name}" in RESIDUE or not coolchic.modules[name].parameters), (branch, name)
    rate = heir.get_network_rate()
    assert all(bits == 0.0 for kinds in rate["residue"].values() for bits in kinds.values())
    assert heir.get_network_rate_bits() == sum(sum(kinds.values()) for kinds in rate["motion"].values()) > 0
    assert any(latent.any() for latent in coded.coolchics["residue"].latents)


def test_who_inherits_everything_trains_latents_alone(networks):
    heir = inherit(fresh(), networks, parameter_names(networks.modules))
    assert heir.inherited == frozenset(ALL) and float(heir.estimated_network_bits()) == 0.0
    before = heir.get_param()
    train(heir, picture(1), Counters(), LMBDA, max_iterations=20, frequency_validation=5, network_rate_weight=1.0)
    moved = {name for name, value in heir.get_param().items() if not torch.equal(value, before[name])}
    assert moved and all(".latents." in name for name in moved)
    heir.reinitialize_parameters()
    assert heir.inherited == frozenset()


def test_networks_of_another_architecture_are_refused(networks):
    other = frame_config(replace(FAST, residue="mop"), FrameType.B, 2, (32, 48))
    with pytest.raises(ConfigError, match="frame 6 has another architecture"):
        inherit(FrameEncoder(other, picture(1), (picture(0), picture(2))), networks, ALL)


def test_a_warm_start_is_trained_on_and_gives_back_what_has_not_moved(networks):
    """A module that ends near where it began may be the predictor's after all, which costs nothing."""
    encoder = warm_start(fresh(), networks)
    assert encoder.inherited == frozenset() and encoder.get_network_rate_bits() == 0.0
    train(
        encoder, picture(1), Counters(), LMBDA, max_iterations=6, optimized_module=("all.latents", "residue.synthesis")
    )
    quantize_model(encoder, picture(1), Counters(), networks)
    assert encoder.inherited
    coded = code_frame(encoder, 1, (0, 2), 6)
    for branch, name in (each.split(".") for each in encoder.inherited):
        assert same_parameters(coded.coolchics[branch].modules[name], networks.modules[branch][name])


def test_expected_bits_are_those_of_sending(networks):
    bits = network_bits(networks)
    assert set(bits) == set(ALL)
    tensors = module_tensors(networks.architecture.motion)["arm"]
    assert bits["motion.arm"] == module_bits(networks.modules["motion"]["arm"], tensors)


@pytest.mark.parametrize("price, wins", [(0.0, False), (1e9, True)])
def test_fresh_candidates_are_charged_for_their_networks(networks, price, wins):
    """A heir that has had no training loses unless networks are dear."""
    idle, busy = Phase(0), Phase(8, frequency_validation=4)
    spoilt = replace(networks, modules={b: dict(m) for b, m in networks.modules.items()})
    synthesis = networks.modules["residue"]["synthesis"]
    values = {name: v * 0 + 90 for name, v in synthesis.parameters.items()}
    spoilt.modules["residue"]["synthesis"] = replace(synthesis, parameters=values)
    heirs = [Heir(lambda: inherit(fresh(), spoilt, ALL), 0.0)]
    rounds = (WarmupRound(2, busy), WarmupRound(2, idle))
    won = compete(fresh, picture(1), Counters(), LMBDA, rounds, heirs, price)
    assert (won.inherited == frozenset(ALL)) is wins


def test_a_heir_gets_its_own_motion_start(networks):
    config = replace(B, training=replace(B.training, motion_start=20, warmup=(WarmupRound(1, Phase(2)),), phases=()))
    counters, born = Counters(), []

    def heir():
        born.append(inherit(fresh(), networks, ALL))
        return born[-1]

    train_frame(fresh, picture(1), counters, config, [Heir(heir, 0.0)], 0.0)
    assert counters.iterations_counter == 2 * (20 + 2)
    assert any(latent.any() for latent in born[0].branches["motion"].latents)


# -- whole encodes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """(path, events, end of an encode) of five frames, with and without inheritance."""
    out = {}
    for inherits in (True, False):
        path, seen = tmp_path_factory.mktemp("inherit") / "out.cvd", []
        config = replace(FAST, inherit=inherits)
        done = coolvid.encode_frames([picture(t) for t in range(5)], path, config, listen=seen.append)
        out[inherits] = path, seen, done
    return out


def network_bytes(event):
    return sum(n for part, n in event.bits_by_part.items() if part.split(".")[-1] in MODULES) // 8


def test_later_b_frames_inherit_and_decode_to_the_encoders_pictures_elsewhere(encoded):
    path, seen, done = encoded[True]
    packets = coolvid.read_info(path).packets
    assert [info.display_index for info in packets] == [0, 4, 2, 1, 3]
    assert [info.predictor is not None for info in packets] == [False, False, False, True, True]
    assert packets[3].predictor == 2 and packets[4].predictor == 1
    first, *heirs = [event for event in seen if isinstance(event, FrameDone)][2:]
    assert all(network_bytes(event) < network_bytes(first) for event in heirs)
    assert min(event.bits_by_part["header"] for event in heirs) <= 16 * 8
    started = [event for event in seen if isinstance(event, FrameStarted)]
    assert all(event.iterations <= start.total_iterations for event, start in zip(heirs, started[3:], strict=True))
    code = f"import coolvid; print(*(coolvid.digest({str(path)!r}, threads=n) for n in (1, 2)))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.split() == [done.digest] * 2


def test_without_inheritance_every_frame_sends_its_own(encoded):
    path, seen, done = encoded[False]
    assert all(info.predictor is None for info in coolvid.read_info(path).packets)
    assert all(network_bytes(event) > 0 for event in seen if isinstance(event, FrameDone))
    assert done.digest != encoded[True][2].digest


def test_equal_seeds_give_equal_bytes_and_so_does_resuming(encoded, tmp_path):
    path, frames = tmp_path / "out.cvd", [picture(t) for t in range(5)]

    def interrupt(event):
        if isinstance(event, FrameDone) and event.coding_index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coolvid.encode_frames(frames, path, FAST, listen=interrupt)
    coolvid.encode_frames(frames, path, FAST, resume=True)
    assert path.read_bytes() == encoded[True][0].read_bytes()


def manager(config):
    steps = plan(9, StructureConfig(gop=8))
    types = (FrameType.I, FrameType.P, FrameType.B)
    architectures = tuple(FrameEncoder(frame_config(config, t, 0, (32, 48)), FORMAT, (picture(0),) * t.value)
                          .architecture for t in types)  # fmt: skip
    header = StreamHeader(FORMAT, Fraction(25), ColorInfo(), 9, 8, 0, False, architectures)
    return FrameEncoderManager(config, header), {step.display_index: step for step in steps}


@pytest.mark.parametrize("preset", ["fast", "slow"])
def test_a_job_carries_the_nearest_networks_of_its_own_depth(networks, preset):
    config = replace(FAST, preset=preset)
    encoder, steps = manager(config)
    encoder.decoded = dict.fromkeys(range(9), picture(0))
    for index in (2, 1, 3):
        encoder.networks.add(replace(networks, display_index=index))
        encoder._depths[index] = steps[index].depth
    job = pickle.loads(pickle.dumps(encoder.job(steps[6], picture(6))))
    assert job.predictor.display_index == 2 and job.heirs == {"warm": ()}
    assert encoder.job(steps[5], picture(5)).predictor.display_index == 3
    assert encoder.job(steps[4], picture(4)).predictor.display_index == 3
    assert encoder.job(steps[8], picture(8)).predictor is None
    training = replace(job.config.training, heirs=HEIRS)
    several = replace(job, config=replace(job.config, training=training)).heirs
    assert set(several["all"]) == set(ALL) and several["residue"] == RESIDUE and several["warm"] == ()
    assert job.total_iterations > job.config.training.total_iterations
    alone, _ = manager(replace(config, inherit=False))
    alone.decoded, alone.networks, alone._depths = encoder.decoded, encoder.networks, encoder._depths
    assert alone.job(steps[6], picture(6)).predictor is None


@pytest.mark.parametrize("losses, expected, tried, kept", [
    ([1.2], 1.0, 1, 1.2),
    ([1.3, 1.1], 1.0, 2, 1.1),
    ([1.3, 1.4], 1.0, 2, 1.3),
    ([9.0], math.inf, 1, 9.0),
])  # fmt: skip
def test_a_disappointing_heir_is_tried_afresh(monkeypatch, losses, expected, tried, kept):
    from coolvid import manager as room

    jobs = []

    def attempt(job, manager):
        jobs.append(job)
        return room.CodedPicture(None, None, None, 0.0, losses[len(jobs) - 1])

    monkeypatch.setattr(room, "attempt", attempt)
    job = room.FrameJob(None, None, (), None, 0, None, 0, predictor=object(), expected_loss=expected)
    assert room.encode_frame(job, None).loss == kept
    assert [each.predictor is None for each in jobs] == [False, True][:tried]
