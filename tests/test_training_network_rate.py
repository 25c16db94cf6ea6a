"""The estimated rate of the networks as a part of the training loss."""

import math

import pytest
import torch
from torch import nn

from coolvid.codec.coded_frame import TensorSpec
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.network_rate import estimated_bits
from coolvid.encoding.objective import Objective
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.train import FrameTask, evaluate, train
from coolvid.errors import ConfigError
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.interfaces import TRAINED
from coolvid.settings.config import EncodeConfig, Phase
from coolvid.settings.presets import frame_config

SIZE = (16, 24)
SPECS = (TensorSpec("weight", (3, 2)), TensorSpec("bias", (3,), "bias"))


def linear(weight: float, bias: float) -> nn.Linear:
    module = nn.Linear(2, 3)
    nn.init.constant_(module.weight, weight)
    nn.init.constant_(module.bias, bias)
    return module


def picture() -> Frame:
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return Frame.from_tensor(image, VideoFormat(*SIZE, PixelFormat.YUV444, 8))


def intra() -> FrameEncoder:
    config = frame_config(EncodeConfig(intra="lop"), FrameType.I, 0, SIZE)
    return FrameEncoder(config, picture(), seed=1)


@pytest.mark.parametrize("weight, bias", [(0.0, 0.0), (0.5, 0.0), (-0.5, 2.0), (1e-3, -1e3)])
def test_estimate_counts_each_kind_by_its_mean_magnitude(weight, bias):
    bits = estimated_bits(linear(weight, bias), SPECS, 2.0**-4).detach()
    expected = sum(n * math.log2(1 + 32 * math.e * abs(x)) for n, x in ((6, weight), (3, bias)))
    assert float(bits) == pytest.approx(expected, rel=1e-5)


def test_estimate_of_nothing_is_nothing():
    assert float(estimated_bits(nn.Module(), (), 1.0)) == 0.0


@pytest.mark.parametrize("weight, from_predictor", [(0.5, True), (-0.1, False), (0.25, True), (0.0, False)])
def test_estimate_counts_what_is_cheaper_the_values_or_their_differences(weight, from_predictor):
    """To a predictor of 0.4 everywhere."""
    module = linear(weight, weight)
    known = {name: torch.full_like(p, 0.4) for name, p in module.named_parameters()}
    distance = abs(weight - 0.4) if from_predictor else abs(weight)
    bits = estimated_bits(module, SPECS, 2.0**-4, known)
    assert float(bits.detach()) == pytest.approx(9 * math.log2(1 + 32 * math.e * distance), rel=1e-4)
    bits.backward()
    towards = 0.4 if from_predictor else 0.0
    expected = torch.full_like(module.weight, weight - towards).sign()
    assert torch.equal(module.weight.grad.sign(), expected)


def test_estimate_pulls_all_parameters_of_a_kind_to_zero_alike_and_leaves_zeros_alone():
    module = linear(0.0, 0.0)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -0.1], [0.0, 0.3], [-2.0, 0.0]]))
    estimated_bits(module, SPECS, 2.0**-4).backward()
    gradient = module.weight.grad
    assert torch.equal(gradient.sign(), module.weight.detach().sign())
    assert gradient.abs()[gradient != 0].unique().numel() == 1
    assert torch.equal(module.bias.grad, torch.zeros(3))


def test_loss_and_validation_count_the_estimate_by_its_weight():
    encoder = intra()
    bits = float(encoder.estimated_network_bits().detach())
    objective = Objective.of(encoder.config, picture(), lmbda=1e-3)
    plain, weighed = (FrameTask(encoder, objective, ("all",), weight) for weight in (0.0, 2.0))
    encoder.eval()
    extra = 2.0 * 1e-3 * bits / (SIZE[0] * SIZE[1])
    settings = Phase(1, quantizer_type="hardround", quantizer_noise_type="none")
    with torch.no_grad():
        unweighed = plain.validate().loss
        assert weighed.validate().loss - unweighed == pytest.approx(extra, rel=1e-4)
        losses = [float(task.loss(settings, 0.3, 0.0, TRAINED)) for task in (weighed, plain)]
    assert losses[0] - losses[1] == pytest.approx(extra, rel=1e-4)
    assert evaluate(encoder, objective).loss == unweighed


def test_training_with_the_estimate_gives_cheaper_networks():
    bits = []
    for weight in (0.0, 5.0):
        encoder = train(intra(), picture(), Counters(), 1e-2, max_iterations=30, network_rate_weight=weight)
        bits.append(float(encoder.estimated_network_bits().detach()))
    assert bits[1] < 0.9 * bits[0]


@pytest.mark.parametrize("kind", list(FrameType))
def test_presets_count_the_networks_in_every_phase(kind):
    training = frame_config(EncodeConfig(), kind, 2, SIZE).training
    phases = [*training.phases, *(round_.phase for round_ in training.warmup)]
    assert all(phase.network_rate_weight > 0 for phase in phases)


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match="network_rate_weight is -1"):
        Phase(1, network_rate_weight=-1)
