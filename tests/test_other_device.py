"""Training on another device than the CPU, without such a device: with tensors that only pretend.

They say that they live on the "meta" device, where PyTorch has no data; behind each is an ordinary tensor that does the
computing. As on a real device, operations between the two sorts raise, and so does numpy() of a tensor that is away.
Trained parameters must be, bit for bit, those of the CPU without compiled kernels.
"""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coolvid import kernels
from coolvid.codec.networks import FrameNetworks
from coolvid.encoding.model import noise
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.encoding.quantization import warm_start
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.schedule import train_frame
from coolvid.picture.types import Frame, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.config import EncodeConfig
from coolvid.settings.presets import frame_config

AWAY = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
GATHERS = {torch.ops.aten.cat.default, torch.ops.aten.stack.default}


class Away(torch.Tensor):
    """A tensor that says it is on the other device; `numbers` computes."""

    @staticmethod
    def __new__(cls, numbers):
        shape = {"strides": numbers.stride(), "dtype": numbers.dtype, "device": AWAY}
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, **shape)

    def __init__(self, numbers):
        self.numbers = numbers

    def __repr__(self, **_):
        return f"Away({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """While it is on, tensors can be made on the other device and moved to it and back."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


def computed(operation, args, kwargs):
    """The operation on the numbers behind its tensors; the result is on the device asked for, or where they are."""
    asked, tensors = kwargs.get("device"), []
    plain = [changed(x, lambda t: tensors.append(t) or numbers(t)) for x in (*args, *kwargs.values())]
    known = {id(numbers(t)): t for t in tensors}
    check_mixture(operation, tensors)
    is_away = any(isinstance(t, Away) for t in tensors) if asked is None else torch.device(asked) == AWAY
    named = dict(zip(kwargs, plain[len(args) :], strict=True))
    if asked is not None:
        named["device"] = torch.device("cpu")
    out = operation(*plain[: len(args)], **named)
    # Of operations in place, the result is the tensor itself.
    return changed(out, lambda made: known[id(made)] if id(made) in known else Away(made) if is_away else made)


def numbers(tensor):
    return tensor.numbers if isinstance(tensor, Away) else tensor


def changed(x, change):
    """An argument or a result, all its tensors changed."""
    if isinstance(x, torch.Tensor):
        return change(x)
    return type(x)(changed(each, change) for each in x) if isinstance(x, (list, tuple)) else x


def check_mixture(operation, tensors):
    """As on a real device: only moves take both sorts, and most operations single numbers of the CPU."""
    here = [t for t in tensors if not isinstance(t, Away)]
    if not here or len(here) == len(tensors) or operation in MOVES:
        return
    if operation in GATHERS or any(t.dim() > 0 for t in here):
        raise RuntimeError(
            f"{operation}: tensors on two devices, of shapes {[tuple(t.shape) for t in here]} on the CPU"
        )


def generator(device="cpu"):
    """PyTorch has no generators of random numbers on this device."""
    assert torch.device(device) == AWAY, "noise for the other device is drawn on it"
    return torch.Generator("cpu")


class Torch:
    """The module torch, but for its generators."""

    Generator = staticmethod(generator)

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def without_kernels(monkeypatch):
    chosen = kernels.compiled
    for module in list(sys.modules.values()):
        is_ours = module.__name__.startswith(("coolvid.", "coolvid_plugins."))
        if is_ours and chosen is not None and getattr(module, "compiled", None) is chosen:
            monkeypatch.setattr(module, "compiled", None)


def picture(number, pixel_format, size=(16, 24)):
    """A pattern that moves by a pixel and a half from frame to frame."""
    format, planes = VideoFormat(*size, pixel_format, 8), []
    for channel, (height, width) in enumerate(pixel_format.plane_shapes(*size)):
        y, x = np.mgrid[:height, :width]
        waves = np.sin((x + 1.5 * number) / 3.0 + channel) + np.cos((y - number) / 4.0) + 0.2 * np.sin(x * y / 7.0)
        planes.append(np.rint(128 + 40 * waves).clip(0, 255).astype(np.uint16))
    return Frame(tuple(planes), format)


TRAINING = {  # SOAP changes its basis in the second step of a warm-up and in the eleventh of another phase
    "warmup": ((2, 2),),
    "motion_start": 2,
    "intra_iterations": 12,
    "p_iterations": 12,
    "b_iterations": 12,
    "final": 2,
    "frequency_validation": 6,
}
KUMARASWAMY = PluginChoice.parse("softround:noise=kumaraswamy")
CASES = {
    "I": (FrameType.I, PixelFormat.YUV420, {"common_randomness": True}),
    "P": (FrameType.P, PixelFormat.YUV420, {"residue": "vlop", "motion": "lop", "quantizer": KUMARASWAMY}),
    "B": (FrameType.B, PixelFormat.RGB, {"common_randomness": True}),
}


def trained(case, device):
    """Parameters after motion start, warm-up, main and rounding phase, back on the CPU; and what was told."""
    kind, pixel_format, options = CASES[case]
    config = frame_config(EncodeConfig(training=TRAINING, **options), kind, 1, (16, 24))
    target, *references = (picture(i, pixel_format) for i in range(1 + kind.n_references))
    told = []

    class Listening(Counters):
        def progress(self, phase, iteration, loss, psnr_db, rate_bpp):
            told.append((phase.split()[0], iteration, loss, psnr_db, rate_bpp))

    def candidate(seed):
        encoder = FrameEncoder(config, target, references, seed=seed)
        predicted = FrameNetworks.prior(encoder.architecture) if kind is FrameType.I else None
        return (encoder if predicted is None else warm_start(encoder, predicted)).to(device)

    encoder = train_frame(candidate, Objective.of(config, target, device), Listening(), config)
    assert all(t.device == torch.device(device) for t in (*encoder.parameters(), *encoder.references))
    encoder = encoder.cpu()
    return {name: p.detach().numpy() for name, p in encoder.named_parameters()}, told


@pytest.mark.parametrize("case", CASES)
def test_training_on_another_device_is_training_on_the_cpu(case, monkeypatch, without_kernels):
    expected, told = trained(case, "cpu")
    phases = {"warm-up", "phase", "coarse" if case == "I" else "motion"}
    assert {phase for phase, *_ in told} == phases
    monkeypatch.setattr(noise, "torch", Torch())
    adam = importlib.import_module("torch.optim.adam")  # whose fused form knows real devices only
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_: None, raising=False)
    with Pretending():
        found, told_away = trained(case, AWAY)
    assert told_away == told
    assert all(np.array_equal(values, found[name]) for name, values in expected.items())


def test_devices_do_not_mix():
    """What the pretended device is for."""
    with Pretending():
        here, away = torch.ones(3), torch.ones(3, device=AWAY)
        assert float((away * torch.tensor(2.0)).sum()) == 6.0
        assert torch.equal(away.to("cpu"), here) and (here.to(AWAY) + away).device == AWAY
        for mixed in (lambda: here + away, lambda: torch.stack([away[0], torch.zeros(())])):
            with pytest.raises(RuntimeError, match="on two devices"):
                mixed()
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            away.numpy()
