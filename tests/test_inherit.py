"""Networks predicted from earlier ones on the encoder's side, and the same in the decoder."""

import copy
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from quantizing import quantized_model

import coolvid
from coolvid import EncodeConfig, FrameType, PixelFormat, StructureConfig, VideoFormat
from coolvid.bitstream.headers import StreamHeader
from coolvid.codec.coded_frame import MODULES
from coolvid.codec.gop import plan
from coolvid.codec.networks import PRIOR, STORED_FRAMES, FrameNetworks, same_parameters
from coolvid.encoding import candidates as room
from coolvid.encoding.candidates import Attempt
from coolvid.encoding.job import FrameJob, Heritage
from coolvid.encoding.manager import FrameEncoderManager
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.packing import Candidate
from coolvid.encoding.quantization import code_frame, warm_start
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.train import train
from coolvid.events import EncodeStarted, FrameDone, FrameStarted
from coolvid.picture.types import ColorInfo
from coolvid.settings.config import Phase, TrainingConfig, WarmupRound
from coolvid.settings.presets import frame_config
from pictures import waves

FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
FAST = EncodeConfig(
    preset="fast", residue="lop", motion="lop", iterations=30, structure=StructureConfig(gop=4), threads=1
)
B = replace(frame_config(FAST, FrameType.B, 2, (32, 48)), lmbda=1e-6)  # so low that latents are worth their bits
LMBDA = B.lmbda


def picture(t):
    return waves(FORMAT, t + 1)[t]


def fresh(seed=0):
    return FrameEncoder(B, picture(1), (picture(0), picture(2)), seed=seed)


@pytest.fixture(scope="module")
def networks():
    """Those of a B frame that was coded by itself."""
    encoder = train(fresh(7), picture(1), Counters(), LMBDA, max_iterations=60, frequency_validation=20, patience=60)
    return FrameNetworks.of(code_frame(quantized_model(encoder, picture(1)), 6, (0, 2)))


def test_a_warm_start_in_other_shapes_takes_what_both_have(networks):
    config = frame_config(replace(FAST, residue="mop"), FrameType.P, 1, (32, 48))
    encoder = FrameEncoder(config, picture(1), (picture(0),))
    before = encoder.get_param()
    warm_start(encoder, networks)
    after, known = encoder.get_param(), networks.modules["motion"]["synthesis"]
    name = "coolchics.motion.modules_by_name.synthesis.layers.1.weight"
    values = torch.from_numpy(known.parameters["layers.1.weight"][:2] * 2.0**-known.weight_shift).float()
    assert torch.equal(after[name], values) and not torch.equal(before[name], values)
    wide = "coolchics.residue.modules_by_name.upsampling.up.0"
    known = networks.modules["residue"]["upsampling"]
    assert torch.equal(after[wide], torch.from_numpy(known.parameters["up.0"] * 2.0**-known.weight_shift).float())
    assert encoder.branches["residue"].predictor["arm"].parameters["hidden.0.weight"].shape == (12, 12)


def test_a_warm_start_is_trained_on_and_gives_back_what_has_not_moved(networks):
    """A module that ends near where it began may be the predictor's after all, which costs next to nothing."""
    encoder = warm_start(fresh(), networks)
    assert encoder.get_network_rate()[1] == 0.0
    train(
        encoder,
        picture(1),
        Counters(),
        LMBDA,
        start_lr=2e-3,
        max_iterations=6,
        optimized_module=("all.latents", "residue.synthesis"),
        quantizer_noise_type="gaussian",
        noise_parameter=(0.22, 0.15),
    )
    alone = quantized_model(copy.deepcopy(encoder), picture(1))
    quantized_model(encoder, picture(1), networks)
    coded = code_frame(encoder, 1, (0, 2), 6)
    unchanged = [
        f"{branch}.{name}" for branch, each in coded.coolchics.items() for name, module in each.modules.items()
        if module.parameters and same_parameters(module, networks.modules[branch][name])
    ]  # fmt: skip
    assert len(unchanged) >= 2
    assert encoder.get_network_rate()[1] < alone.get_network_rate()[1] / 2


# -- whole encodes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def no_copies():
    """Frames as small as these are cheapest as copies of their references, which have no networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "copies_of", lambda job, objective: [])
        yield


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """(path, events, end of an encode) of five frames, with and without inheritance and never in a second attempt."""
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "SECOND_THOUGHT", math.inf)
        for inherits in (True, False):
            path, seen = tmp_path_factory.mktemp("inherit") / "out.cvd", []
            config = replace(FAST, inherit=inherits)
            done = coolvid.encode_frames([picture(t) for t in range(5)], path, config, listen=seen.append)
            out[inherits] = path, seen, done
    return out


def network_bytes(event):
    return sum(n for part, n in event.bits_by_part.items() if part.split(".")[-1] in MODULES) // 8


def test_networks_are_predicted_and_decode_to_the_encoders_pictures_elsewhere(encoded):
    path, seen, end = encoded[True]
    packets = coolvid.read_info(path).packets
    assert [info.display_index for info in packets] == [0, 4, 2, 1, 3]
    offered = {0: PRIOR, 4: None, 2: 4, 1: 2, 3: 2}  # named where that is cheaper than to name none
    assert all(info.predictor in (offered[info.display_index], None) for info in packets)
    assert any(info.predictor not in (PRIOR, None) for info in packets)
    done_events = [event for event in seen if isinstance(event, FrameDone)]
    alone = [event for event in encoded[False][1] if isinstance(event, FrameDone)]
    assert sum(map(network_bytes, done_events[2:])) < sum(map(network_bytes, alone[2:])) / 2
    assert all(event.bits_by_part["header"] <= 16 * 8 for event in done_events[1:])
    started = [event for event in seen if isinstance(event, FrameStarted)]
    planned = next(event for event in seen if isinstance(event, EncodeStarted)).plan
    assert [event.total_iterations for event in started] == [each.iterations for each in planned]
    assert all(done.iterations <= start.total_iterations for done, start in zip(done_events, started, strict=True))
    code = f"import coolvid; print(*(coolvid.digest({str(path)!r}, threads=n) for n in (1, 2)))"
    elsewhere = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.split() == [end.digest] * 2


def test_without_inheritance_every_frame_sends_its_own(encoded):
    path, seen, done = encoded[False]
    assert all(info.predictor is None for info in coolvid.read_info(path).packets)
    assert all(network_bytes(event) > 0 for event in seen if isinstance(event, FrameDone))
    assert done.digest != encoded[True][2].digest


def test_equal_seeds_give_equal_bytes_and_so_does_resuming(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SECOND_THOUGHT", math.inf)
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
def test_a_job_carries_what_the_plan_names(networks, preset):
    config = replace(FAST, preset=preset)
    encoder, steps = manager(config)
    encoder.decoded = dict.fromkeys(range(9), picture(0))
    encoder._distortions = {i: float(i) for i in range(9)}
    encoder._heritages = {
        i: Heritage(replace(networks, display_index=i), 0.5, steps[i].coding_index) for i in (8, 4, 2)
    }
    encoder._heritages[6] = encoder._heritages[4]  # a copy hands on what it inherited
    job = pickle.loads(pickle.dumps(encoder.job(steps[3], picture(3))))
    assert (steps[3].predictor, job.heritage.networks.display_index, job.heritage.loss) == (2, 2, 0.5)
    assert (steps[5].predictor, encoder.job(steps[5], picture(5)).heritage.networks.display_index) == (6, 4)
    assert job.reference_distortion == 3.0
    assert job.total_iterations == job.configs[0].training.total_iterations(is_fresh=False)
    first = encoder.job(steps[0], picture(0))
    assert first.heritage is None and first.uses_prior
    assert Attempt.of(first, first.configs[0]).predictor.display_index == PRIOR
    encoder._heritages[8] = None
    assert encoder.job(steps[4], picture(4)).heritage is None
    alone, _ = manager(replace(config, inherit=False))
    alone.decoded, alone._heritages, alone._distortions = encoder.decoded, encoder._heritages, encoder._distortions
    assert alone.job(steps[3], picture(3)).heritage is None and not alone.job(steps[0], picture(0)).uses_prior


def test_networks_that_a_decoder_has_dropped_are_not_inherited(networks):
    encoder, steps = manager(FAST)
    encoder.decoded = dict.fromkeys(range(9), picture(0))
    encoder._distortions = dict.fromkeys(range(9), 0.0)
    for coding_index, is_kept in ((steps[7].coding_index - STORED_FRAMES, True), (steps[7].coding_index - 9, False)):
        encoder._heritages[6] = Heritage(networks, 0.5, coding_index)
        assert (encoder.job(steps[7], picture(7)).heritage is not None) == is_kept


class FakeObjective:
    """Pictures stand for their own distortion."""

    @staticmethod
    def of_picture(picture):
        return picture


def candidate(loss, distortion, is_copy, residue_bits=8.0):
    info = SimpleNamespace(is_copy=is_copy, bits_by_part={"residue.latents": residue_bits})
    return Candidate(SimpleNamespace(info=info), distortion, None, loss, 0.0, {})


@pytest.mark.parametrize("losses, expected, copy_of, tried, kept", [
    # expected: the predictor's loss; copy_of: loss and distortion of a copy, whose references have a distortion of 1
    ([1.2], 1.0, None, 1, 1.2),
    ([1.3, 1.1], 1.0, None, 2, 1.1),
    ([1.3, 1.4], 1.0, None, 2, 1.3),
    ([9.0], math.inf, None, 1, 9.0),
    ([], 1.0, (9.0, 1.02), 0, 9.0),
    ([1.2], 1.0, (1.1, 1.2), 1, 1.1),
    ([1.2, 1.0], 1.0, (1.1, 1.3), 2, 1.0),
    ([1.2, 1.3], math.inf, (1.1, 1.3), 2, 1.1),
    ([1.0], 1.0, (1.1, 1.3), 1, 1.0),
])  # fmt: skip
def test_a_disappointing_frame_is_tried_afresh(networks, monkeypatch, losses, expected, copy_of, tried, kept):
    attempts = []

    def trained(work, attempt):
        attempts.append(attempt)
        return candidate(losses[len(attempts) - 1], 1.0, False)

    monkeypatch.setattr(room, "trained", trained)
    monkeypatch.setattr(room, "copies_of", lambda *_: [candidate(*copy_of, True)] if copy_of else [])
    heritage = Heritage(networks, expected, 0)
    job = FrameJob(None, None, (), (B,), None, 0, heritage, reference_distortion=1.0)
    assert room._choose(SimpleNamespace(job=job, objective=FakeObjective)).loss == kept
    assert [each.predictor is None for each in attempts] == [False, True][:tried]
    assert [each.is_trained for each in attempts] == [True, False][:tried]


@pytest.mark.parametrize("frame_type, depth, bits, is_copy, seeds", [
    (FrameType.P, 1, 0.0, False, [5, 7]),
    (FrameType.B, 2, 0.0, False, [5, 7]),
    (FrameType.P, 1, 8.0, False, [5]),
    (FrameType.P, 1, 0.0, True, [5]),
    (FrameType.B, 3, 0.0, False, [5]),
    (FrameType.I, 0, 0.0, False, [5]),
])  # fmt: skip
def test_a_fresh_frame_without_residue_is_tried_with_other_seeds(monkeypatch, frame_type, depth, bits, is_copy, seeds):
    tried = []

    def trained(work, attempt):
        tried.append(attempt.seed)
        return candidate(1.0 / len(tried), 1.0, is_copy, bits)

    monkeypatch.setattr(room, "trained", trained)
    step = SimpleNamespace(frame_type=frame_type, depth=depth)
    config = replace(B, training=TrainingConfig(warmup=(WarmupRound(2, Phase(1)),), phases=()))
    job = FrameJob(step, None, (), (config,), None, 5, reference_distortion=1.0)
    assert room._choose(SimpleNamespace(job=job, objective=FakeObjective)).loss == 1.0 / len(seeds)
    assert tried == seeds
