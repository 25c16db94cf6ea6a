"""Make coolvid/prior.npz: networks trained on many scenes of falling leaves at once, one set per type of frame.

    python sequences/prior.py

Every scene has latents of its own; the networks are shared. It takes a quarter of an hour on two cores. The prior is a
part of the stream format: put the hash that is printed into coolvid/prior.py, and raise FORMAT_VERSION.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from leaves import scene  # this folder comes first on the path of a script
from torch import Tensor

import coolvid
from coolvid import EncodeConfig, Frame, FrameType
from coolvid.bitstream.stream import StreamReader
from coolvid.config import FrameConfig
from coolvid.decoder import decode_stream
from coolvid.manager import use_threads
from coolvid.model.frame_encoder import FrameEncoder
from coolvid.networks import FrameNetworks
from coolvid.presets import frame_config
from coolvid.prior import pack_prior
from coolvid.quantization import code_frame
from coolvid.quantization.state import QuantizedModule, float_parameters
from coolvid.quantization.steps import quantise
from coolvid.training.loop import Counters
from coolvid.training.motion_start import start_motion
from coolvid.training.optimizers import Optimizers, cosine_lr
from coolvid.training.train import FrameTask

OUT = Path(__file__).parents[1] / "coolvid" / "prior.npz"
HEIGHT, WIDTH = 192, 256
N_SCENES = 12
N_STEPS = 6000
LR = {"weights": 5e-3, "latents": 1e-2}
LAMBDAS = (3e-4, 1e-3, 3e-3)
GAPS = (2, 4, 8)  # frames from a picture to its references
B_FACTORS = (2, 4, 8)  # of lambda, by gap
AVERAGED = 0.2  # the last part of training, over which the networks are averaged
SHIFTS = {"arm": (8, 8), "ifce": (8, 8), "synthesis": (10, 12), "upsampling": (10, 12)}


def coded(frame: Frame, lmbda: float) -> Frame:
    """What a short encode makes of a picture: references are never perfect."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.cvd"
        coolvid.encode_frames([frame], path, EncodeConfig(lmbda=lmbda, preset="fast", iterations=250))
        with StreamReader(path) as reader:
            return next(iter(decode_stream(reader)))


def jobs(kind: FrameType) -> Iterator[tuple[Frame, tuple[Frame, ...], FrameConfig]]:
    """(picture, references, configuration) of every scene."""
    for seed in range(N_SCENES):
        gap, lmbda = GAPS[seed % 3], LAMBDAS[seed // 2 % 3]
        past, now, future = scene(HEIGHT, WIDTH, seed, (0, gap, 2 * gap))
        if kind is FrameType.I:
            yield past, (), configuration(kind, lmbda)
        else:
            references = (past, future)[: kind.n_references]
            factor = B_FACTORS[seed % 3] if kind is FrameType.B else 1
            yield now, tuple(coded(each, lmbda) for each in references), configuration(kind, factor * lmbda)


def configuration(kind: FrameType, lmbda: float) -> FrameConfig:
    residue = {"intra": "mop"} if kind is FrameType.I else {"residue": "mop", "motion": "mop"}
    config = frame_config(EncodeConfig(**residue), kind, kind.value, (HEIGHT, WIDTH))
    return replace(config, lmbda=lmbda, training=replace(config.training, motion_start=80))


class Member:
    """One scene: its encoder, whose latents are its own."""

    def __init__(self, picture: Frame, references: tuple[Frame, ...], config: FrameConfig) -> None:
        self.encoder = FrameEncoder(config, picture, references, seed=0)
        if config.motion is not None:
            self.encoder.branches["motion"].set_param(start_motion(self.encoder, picture, Counters(), config))
        self.task = FrameTask(self.encoder.train(), picture, config.lmbda, ("all",))
        self.latents = Optimizers([], [p for n, p in self.encoder.named_parameters() if "latent" in n], LR["latents"])
        self.phase = config.training.phases[0]
        self.weight = 1 / (30 * config.lmbda**0.5)  # losses of all lambdas count alike

    def networks(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.encoder.named_parameters() if "latent" not in name}

    def step(self, shared: dict[str, Tensor], progress: float, lr: float) -> None:
        """Latents learn, and the shared networks get this scene's gradients."""
        own = self.networks()
        with torch.no_grad():
            for name, value in shared.items():
                own[name].copy_(value)
        for parameter in self.encoder.parameters():
            parameter.grad = None
        temperature, noise = (a + (b - a) * progress for a, b in self._spans())
        self.task.loss(self.phase, temperature, noise).backward()
        for name, value in shared.items():
            gradient = own[name].grad
            value.grad = None if gradient is None else gradient * self.weight
        self.latents.step(lr)

    def _spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return self.phase.softround_temperature, self.phase.noise_parameter


def train_shared(members: list[Member]) -> dict[str, Tensor]:
    """The networks of least mean loss, averaged over the last steps."""
    shared = {name: p.detach().clone().requires_grad_(True) for name, p in members[0].networks().items()}
    optimizer, rng = Optimizers(list(shared.values()), [], LR["weights"]), np.random.default_rng(0)
    mean: dict[str, Tensor] = {}
    for i in range(N_STEPS):
        members[rng.integers(len(members))].step(shared, i / N_STEPS, cosine_lr(LR["latents"], i, N_STEPS))
        optimizer.step(cosine_lr(LR["weights"], i, N_STEPS))
        if i >= (1 - AVERAGED) * N_STEPS:
            for name, value in shared.items():
                mean[name] = mean.get(name, value.detach()).lerp(value.detach(), 0.005)
    return mean


def quantised(member: Member, networks: dict[str, Tensor]) -> FrameNetworks:
    """The networks as integers, with the activation scales that this member's picture wants."""
    encoder = member.encoder
    encoder.set_param(networks)
    for branch, coolchic in encoder.branches.items():
        for module, specs in coolchic.tensors.items():
            integers = quantise(float_parameters(coolchic, module), specs, *SHIFTS[module])
            if integers is None:
                raise SystemExit(f"{branch}.{module} has parameters that do not fit {SHIFTS[module]}")
            own = QuantizedModule(f"{branch}.{module}", specs, integers, None)
            own.write(coolchic)
            own.record(coolchic)
    return FrameNetworks.of(code_frame(encoder.eval(), 0, tuple(range(1, 1 + len(encoder.references)))))


def main() -> None:
    use_threads(0)
    torch.manual_seed(0)
    made = {}
    for kind in FrameType:
        members = [Member(*job) for job in jobs(kind)]
        made[kind] = quantised(members[0], train_shared(members)).modules
    np.savez_compressed(OUT, **pack_prior(made))
    print(f"{OUT}: {OUT.stat().st_size} bytes, sha256 {hashlib.sha256(OUT.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
