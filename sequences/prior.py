"""Make coolvid/codec/prior.npz: I-frame networks, trained jointly on many falling-leaves scenes.

    python sequences/prior.py

Every scene has its own latents; the networks are shared. Training takes one to two minutes on two cores. The prior is
part of the stream format: copy the printed hash to coolvid/codec/prior.py, and increase FORMAT_VERSION.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from leaves import scene  # this folder comes first on the path of a script
from torch import Tensor

from coolvid import EncodeConfig, FrameType
from coolvid.codec.coded_frame import CodedModule
from coolvid.codec.prior import pack_prior
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective
from coolvid.encoding.quantization import code_frame
from coolvid.encoding.quantization.state import QuantizedModule, float_parameters
from coolvid.encoding.quantization.steps import quantize
from coolvid.encoding.threads import use_threads
from coolvid.encoding.training.optimizers import Optimizers, cosine_lr
from coolvid.encoding.training.train import FrameTask
from coolvid.plugin.interfaces import TRAINED
from coolvid.settings.presets import frame_config

OUT = Path(__file__).parents[1] / "coolvid" / "codec" / "prior.npz"
HEIGHT, WIDTH = 192, 256
N_SCENES = 12
N_STEPS = 6000
LR = {"weights": 5e-3, "latents": 1e-2}
LAMBDAS = (3e-4, 1e-3, 3e-3)
AVERAGED = 0.2  # the last part of training, over which the networks are averaged
SHIFTS = {"arm": (8, 8), "ifce": (8, 8), "synthesis": (10, 12), "upsampling": (10, 12)}


class Member:
    """One scene: an encoder with its own latents."""

    def __init__(self, seed: int) -> None:
        lmbda = LAMBDAS[seed // 2 % 3]
        (picture,) = scene(HEIGHT, WIDTH, seed, (0,))
        config = replace(frame_config(EncodeConfig(intra="mop"), FrameType.I, 0, (HEIGHT, WIDTH)), lmbda=lmbda)
        self.encoder = FrameEncoder(config, picture, seed=0)
        self.task = FrameTask(self.encoder.train(), Objective.of(self.encoder.config, picture, lmbda=lmbda), ("all",))
        self.latents = Optimizers([], [p for n, p in self.encoder.named_parameters() if "latent" in n], LR["latents"])
        self.phase = config.training.phases[0]
        self.weight = 1 / (30 * lmbda**0.5)  # losses of all lambdas count alike

    def networks(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.encoder.named_parameters() if "latent" not in name}

    def step(self, shared: Mapping[str, Tensor], progress: float, lr: float) -> None:
        """Train the latents, and give the shared networks this scene's gradients."""
        own = self.networks()
        with torch.no_grad():
            for name, value in shared.items():
                own[name].copy_(value)
        for parameter in self.encoder.parameters():
            parameter.grad = None
        spans = self.phase.softround_temperature, self.phase.noise_parameter
        temperature, noise = (a + (b - a) * progress for a, b in spans)
        self.task.loss(self.phase, temperature, noise, TRAINED).backward()
        for name, value in shared.items():
            gradient = own[name].grad
            value.grad = None if gradient is None else gradient * self.weight
        self.latents.step(lr)


def train_shared(members: list[Member]) -> dict[str, Tensor]:
    """The networks that minimize the mean loss, averaged over the last steps."""
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


def quantized(member: Member, networks: Mapping[str, Tensor]) -> Mapping[str, CodedModule]:
    """The networks as integers, with activation scales from this member's picture."""
    encoder = member.encoder
    encoder.set_param(networks)
    coolchic = encoder.branches["residue"]
    for name, specs in coolchic.tensors.items():
        integers = quantize(float_parameters(coolchic, name), specs, *SHIFTS[name])
        if integers is None:
            raise SystemExit(f"{name} has parameters that do not fit {SHIFTS[name]}")
        own = QuantizedModule(f"residue.{name}", specs, integers, None)
        own.write(coolchic)
        own.record(coolchic)
    return code_frame(encoder.eval(), 0, ()).coolchics["residue"].modules


@use_threads()
def main() -> None:
    torch.manual_seed(0)
    members = [Member(seed) for seed in range(N_SCENES)]
    modules = quantized(members[0], train_shared(members))
    np.savez_compressed(OUT, **pack_prior(modules))
    print(f"{OUT}: {OUT.stat().st_size} bytes, sha256 {hashlib.sha256(OUT.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
