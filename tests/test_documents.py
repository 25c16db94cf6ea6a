"""The API that the Cool-chic documents describe: names, signatures, defaults, results."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

import coolvid
from coolvid import (
    CoolChicEncoder,
    CoolChicEncoderParameter,
    FrameEncoder,
    FrameType,
    LossFunctionOutput,
    RateDistortionLoss,
    convert_lmbda,
    loss_function,
    quantize_model,
    train,
)
from coolvid.decoding.packet import decode_frame
from coolvid.encoding.model.descriptors import golomb_order
from coolvid.encoding.quantization import quantize
from coolvid.encoding.training.loop import Counters
from coolvid.errors import ConfigError
from coolvid.picture.types import PixelFormat, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config
from pictures import edge

FORMAT = VideoFormat(24, 32, PixelFormat.YUV420, 8)
FRAME = edge(FORMAT, 0)
SMALL = CoolChicEncoderParameter((17, 19), "8-1-linear-relu,X-1-linear-none", latent_resolution=(0, 2))


def frame_encoder(frame_type=FrameType.I):
    config = frame_config(EncodeConfig(preset="fast"), frame_type, max(1, frame_type.value), (24, 32))
    return FrameEncoder(config, FRAME, [FRAME] * frame_type.n_references)


def defaults(function):
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}


def test_names_come_from_coolvid_and_load_torch_only_when_used():
    names = {*coolvid.TRAINING, "CoolChicEncoderParameter"}
    assert names <= set(coolvid.__all__) and names <= set(dir(coolvid))
    script = "import sys, coolvid; assert 'torch' not in sys.modules; coolvid.train; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = coolvid.trian


def test_train_has_the_documents_signature():
    given = inspect.signature(train)
    assert list(given.parameters)[:3] == ["frame_encoder", "frame", "frame_encoder_manager"]
    expected = {
        "lmbda": 1e-3,
        "start_lr": 1e-2,
        "cosine_scheduling_lr": True,
        "max_iterations": 10_000,
        "frequency_validation": 100,
        "patience": 10,
        "optimized_module": ("all",),
        "quantizer_type": "softround",
        "quantizer_noise_type": "kumaraswamy",
        "softround_temperature": (0.3, 0.2),
        "noise_parameter": (2.0, 1.0),
    }
    assert list(given.parameters)[3:14] == list(expected)
    assert {name: defaults(train)[name] for name in expected} == expected


MODULES = ("all", "arm", "upsampling", "synthesis", "latent", "warper")
NAMES = ["all", *(f"{branch}.{module}" for branch in ("residue", "motion", "all") for module in MODULES)]


@pytest.mark.parametrize("name", [*NAMES, "residue.latents"])
def test_every_name_of_optimized_module_trains(name):
    manager = Counters()
    train(frame_encoder(FrameType.P), FRAME, manager, max_iterations=1, optimized_module=[name])
    trains_nothing = name.endswith("warper")  # the built-in warper has no parameters
    assert manager.iterations_counter == (0 if trains_nothing else 1)


def test_validations_are_reported_at_their_frequency():
    told = []

    class Manager(Counters):
        def progress(self, phase, iteration, loss, psnr_db, rate_bpp):
            told.append(iteration)

    train(frame_encoder(), FRAME, Manager(), max_iterations=7, frequency_validation=3, patience=7)
    assert told == [0, 3, 6, 7]


def test_quantize_model_tries_all_pairs_with_the_managers_lambda_and_counts(monkeypatch):
    encoder = frame_encoder()
    train(encoder, FRAME, Counters(), max_iterations=20, frequency_validation=20, patience=20)
    methods, rates = [], {}

    def watched(ranges, loss_of, method, start, search=quantize.search_pair):
        methods.append(method)
        return search(ranges, loss_of, "descent", start)

    monkeypatch.setattr(quantize, "search_pair", watched)
    for lmbda in (1e-4, 1.0):
        twin = frame_encoder()
        twin.set_param(encoder.get_param())
        manager = Counters(lmbda)
        assert quantize_model(twin, FRAME, manager) is twin
        assert manager.iterations_counter > 10 and manager.total_training_time_sec > 0
        rates[lmbda] = twin.get_network_rate()[1]
    assert set(methods) == {"full"} and rates[1.0] < rates[1e-4]


@pytest.mark.parametrize("frame_type", FrameType)
def test_the_network_rate_before_packing_is_that_of_the_packet(frame_type):
    encoder = frame_encoder(frame_type)
    train(encoder, FRAME, Counters(), max_iterations=20, frequency_validation=20, patience=20)
    quantize_model(encoder, FRAME, Counters(), step_search="descent")
    references = dict.fromkeys(range(frame_type.n_references), FRAME)
    result = coolvid.pack(encoder, FRAME, references, display_index=2)
    parts = result.packet.info.bits_by_part
    sent = sum(
        bits for name, bits in parts.items() if name.split(".")[-1] in ("arm", "ifce", "synthesis", "upsampling")
    )
    assert encoder.get_network_rate()[1] == pytest.approx(sent, rel=0.01, abs=32)  # the end of the code, whole bytes
    decoded = decode_frame(result.packet.data, coolvid.header_of(encoder), list(references.values()))
    assert decoded == result.picture


def test_a_manager_without_header_counts_but_does_not_encode():
    manager = coolvid.FrameEncoderManager(EncodeConfig(lmbda=0.01))
    assert manager.lmbda == 0.01
    train(frame_encoder(), FRAME, manager, max_iterations=2)
    assert manager.iterations_counter == 2 and manager.best_loss > 0
    with pytest.raises(ConfigError, match="has no stream header"):
        _ = manager.header


def test_python_m_coolvid_is_the_command_line():
    result = subprocess.run(
        [sys.executable, "-P", "-m", "coolvid", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("coolvid, version")


def test_modules_to_send_are_listed_in_order():
    encoder = frame_encoder()
    assert encoder.coolchic_encoder.modules_to_send == ["arm", "ifce", "synthesis", "upsampling"]
    assert CoolChicEncoder(SMALL).modules_to_send == ["arm", "ifce", "synthesis", "upsampling"]
    bare = CoolChicEncoderParameter((17, 19), "X-1-linear-none", ifce_resolution=None)
    assert CoolChicEncoder(bare).modules_to_send == ["arm", "synthesis", "upsampling"]


@pytest.mark.parametrize("function", [CoolChicEncoder.forward, FrameEncoder.forward])
def test_forward_has_the_documents_defaults(function):
    found = defaults(function)
    assert (found["quantizer_noise_type"], found["quantizer_type"]) == ("gaussian", "softround")
    assert torch.equal(found["soft_round_temperature"], torch.tensor(0.35))
    assert torch.equal(found["noise_parameter"], torch.tensor(0.22))
    assert found["AC_MAX_VAL"] == -1


def test_a_coolchic_alone_has_three_outputs():
    assert CoolChicEncoder(SMALL)().raw_out.shape == (1, 3, 17, 19)


def test_unused_arguments_of_forward_may_be_none():
    coolchic = CoolChicEncoder(SMALL)
    coolchic("none", "hardround", None, None)
    with pytest.raises(ConfigError, match="noise_parameter is None, and gaussian noise needs one"):
        coolchic("gaussian", "softround", 0.3, None)
    with pytest.raises(ConfigError, match="soft_round_temperature is None, and quantizer 'softround' needs a number"):
        coolchic("none", "softround", None, None)


def test_descriptors_hold_weights_and_biases_of_every_module():
    coolchic = CoolChicEncoder(SMALL)
    for found in (coolchic.get_network_quantization_step(), coolchic.get_network_expgol_count()):
        assert list(found) == ["arm", "ifce", "synthesis", "upsampling"]
        assert all(each == {"weight": None, "bias": None} for each in found.values())
    coolchic.set_network_quantization("arm", {"weight": 2.0**-4, "bias": 2.0**-10})
    count = coolchic.get_network_expgol_count()["arm"]
    assert 0 <= count["weight"] <= 12 and 0 <= count["bias"] <= 12
    rates, total = coolchic.get_network_rate()
    assert total == sum(bits for module in rates.values() for bits in module.values()) > 0


@pytest.mark.parametrize("values, order", [([0, 0, 1], 0), ([5, -9, 12, 7], 3), ([1000, -1000, 900], 11), ([], 0)])
def test_the_golomb_order_is_the_cheapest(values, order):
    from coolvid.bitstream.records import BitWriter

    def bits(order):
        writer = BitWriter()
        for value in values:
            writer.write_golomb(2 * value - 1 if value > 0 else -2 * value, order)
        return writer.n_bits

    found = golomb_order(np.array(values, np.int64))
    assert found == order and bits(found) == min(map(bits, range(13)))


def test_flops_are_stored_and_the_table_counts_the_picture():
    coolchic = CoolChicEncoder(SMALL)
    assert coolchic.get_flops() is None
    assert coolchic.flops_str == coolchic.str_complexity()
    name, parameters, macs = coolchic.flops_str.splitlines()[-1].split()
    assert (name, int(macs)) == ("total", coolchic.total_flops)
    assert int(parameters) == sum(p.numel() for p in coolchic.modules_by_name.parameters())


def test_hyper_latent_resolution_is_the_same_field():
    one = CoolChicEncoderParameter((64, 64), hyper_latent_resolution=(2, 3))
    assert one == CoolChicEncoderParameter((64, 64), hyperlatent_resolution=(2, 3))
    assert one.hyper_latent_resolution == one.hyperlatent_resolution == (2, 3)


def test_features_without_ifce_are_ignored():
    assert CoolChicEncoderParameter((64, 64), ifce_resolution=None, output_feature_ifce=6).output_feature_ifce == 0


def test_loss_function_output_is_empty_and_keyword_only():
    empty = LossFunctionOutput()
    assert (empty.loss, empty.mse, empty.rate_nn_bpp, empty.rate_latent_bpp) == (None,) * 4
    with pytest.raises(TypeError):
        LossFunctionOutput(1.0)


def test_loss_function_is_a_method_of_the_frame_encoder():
    given = torch.rand(1, 3, 4, 4), torch.tensor([3.0]), torch.rand(1, 3, 4, 4)
    assert torch.equal(frame_encoder().loss_function(*given).loss, loss_function(*given).loss)


PICTURES = {
    "dense": torch.rand(1, 3, 4, 4),
    "grey": torch.rand(1, 1, 4, 4),
    "wide": torch.rand(1, 3, 4, 6),
    "flat": torch.rand(3, 4, 4),
    "yuv": {"y": torch.rand(1, 1, 4, 4), "u": torch.rand(1, 1, 2, 2), "v": torch.rand(1, 1, 2, 2)},
    "three": {"y": torch.rand(1, 3, 4, 4), "u": torch.rand(1, 3, 2, 2), "v": torch.rand(1, 3, 2, 2)},
}


@pytest.mark.parametrize(
    "decoded, target", [("dense", "yuv"), ("yuv", "dense"), ("dense", "wide"), ("grey", "grey"), ("flat", "flat"),
                        ("three", "three"), ("grey", "dense")],
)  # fmt: skip
def test_pictures_of_other_kinds_are_one_clear_error(decoded, target):
    with pytest.raises(ConfigError, match=r"decoded picture .* and target .*; give two tensors \[B, 3, H, W\]"):
        loss_function(PICTURES[decoded], torch.tensor(1.0), PICTURES[target])
    with pytest.raises(ConfigError, match=r"^decoded picture"):
        RateDistortionLoss()({"x_hat": PICTURES[decoded], "likelihoods": {"y": torch.ones(1)}}, PICTURES[target])


@pytest.mark.parametrize(
    "likelihoods, says",
    [
        ({}, "has no stream"),
        ({"y": torch.zeros(0)}, "likelihoods of 'y' are empty"),
        ({"y": torch.tensor([0.5, 0.0])}, "likelihoods of 'y' go down to 0.0"),
        ({"y": torch.tensor([0.5, -0.1])}, "likelihoods of 'y' go down to -0.1"),
        ({"y": torch.tensor([float("nan")])}, "likelihoods of 'y' go down to nan"),
    ],
)
def test_impossible_likelihoods_are_one_clear_error(likelihoods, says):
    with pytest.raises(ConfigError, match=says):
        RateDistortionLoss()({"x_hat": PICTURES["dense"], "likelihoods": likelihoods}, PICTURES["dense"])


def test_rate_distortion_loss_is_the_documents_by_default():
    decoded, target, p = PICTURES["dense"], 1 - PICTURES["dense"], torch.full((8,), 0.25)
    out = RateDistortionLoss(lmbda=0.01)({"x_hat": decoded, "likelihoods": {"y": p}}, target)
    distortion = float(((decoded - target) ** 2).mean())
    assert float(out["loss"]) == pytest.approx(0.01 * 255**2 * distortion + 1.0)
    ours = RateDistortionLoss(convert_lmbda(0.01, to="mse"), convention="mse")
    found = ours({"x_hat": decoded, "likelihoods": {"y": p}}, target)
    assert float(found["loss"]) == pytest.approx(float(out["loss"]) * ours.lmbda)
