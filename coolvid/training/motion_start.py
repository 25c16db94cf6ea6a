"""The motion branch learns an optical flow before it learns to serve the picture.

Gradient descent through a warp only sees motion of a pixel or two, so a fresh motion branch finds large motion by luck.
A classical estimator gives a flow per reference; the branch is trained to code it as if it were an image:

    loss = mean(((raw_out - flow) / FLOW_UNIT)**2) + RATE_FACTOR * lmbda * motion bits / pixels

with flows in pixels and FLOW_UNIT chosen by the final loss on four clips (1, 2 and 4 pixels differ little). The rate
term smooths away what the estimator invented in flat areas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolvid.config import FrameConfig, Phase
from coolvid.errors import PluginError
from coolvid.interfaces import MotionPlugin
from coolvid.registry import make
from coolvid.types import Frame, PixelFormat

from .fused import ByAutograd, FusedLoss
from .loop import TrainingManager, Validation, optimise
from .train import device_of, select_groups

if TYPE_CHECKING:
    from coolvid.model.frame_encoder import FrameEncoder

FLOW_UNIT = 2.0
RATE_FACTOR = 20.0
_RGB_TO_LUMA = (0.299, 0.587, 0.114)
Luma = NDArray[np.float32]


def start_motion(frame_encoder: FrameEncoder, frame: Frame, manager: TrainingManager, config: FrameConfig) -> Any:
    """Parameters (get_param) of the encoder's motion branch after config.training.motion_start iterations.

    Raises PluginError when the motion estimator fails, TrainingError.
    """
    target = torch.from_numpy(flows(frame_encoder, frame, config))[None].to(device_of(frame_encoder))
    task = FlowTask(frame_encoder, target, config.lmbda)
    settings = Phase(
        config.training.motion_start,
        frequency_validation=max(1, config.training.motion_start // 4),
        optimized_module=("motion.all",),
        softround_temperature=(0.3, 0.1),
        noise_parameter=(0.25, 0.1),
    )
    optimise(task, settings, manager, "motion start")
    return task.get_param()


def flows(frame_encoder: FrameEncoder, frame: Frame, config: FrameConfig) -> Luma:
    """Flow to every reference, x then y: float32 [2 * n_references, H, W] pixels, after global translation."""
    choice = config.motion_estimator
    estimator = cast(MotionPlugin, make("motion", choice.name, dict(choice.options)))
    pixel_format = frame.format.pixel_format
    dense = frame.planes if pixel_format is PixelFormat.RGB else frame.planes[:1]
    target = luma(np.stack([p.astype(np.float32) / frame.format.peak for p in dense]), pixel_format)
    out = []
    for reference in frame_encoder.references:
        planes = reference.detach()[0].cpu().numpy().astype(np.float32)
        flow = np.asarray(estimator.flow(target, luma(planes, pixel_format)), dtype=np.float32)
        if flow.shape != (2, *target.shape) or not np.isfinite(flow).all():
            raise PluginError(f"motion '{choice.name}' gave {flow.shape}, not a finite flow {(2, *target.shape)}")
        out.append(flow)
    return np.concatenate(out)


def luma(planes: Luma, pixel_format: PixelFormat) -> Luma:
    """Luma [H, W] of planes [n, H, W]: the first one, or the weighted sum of red, green and blue (BT.601)."""
    if pixel_format is not PixelFormat.RGB:
        return np.ascontiguousarray(planes[0])
    return np.tensordot(np.asarray(_RGB_TO_LUMA, dtype=np.float32), planes, axes=1)


class FlowTask:
    """Coding flows [1, n, H, W] (pixels) with the motion branch of an encoder."""

    def __init__(self, frame_encoder: FrameEncoder, target: Tensor, lmbda: float) -> None:
        self.coolchic = frame_encoder.branches["motion"]
        self.module: nn.Module = self.coolchic
        groups = select_groups(frame_encoder.named_groups(), ("motion.all",))
        self.groups: Mapping[str, Sequence[Tensor]] = {k: v for k, v in groups.items() if k != "motion.warper"}
        self.is_fresh = True
        self.target = target
        self.lmbda = RATE_FACTOR * lmbda

    def get_param(self) -> Any:
        return self.coolchic.get_param()

    def set_param(self, param: Any) -> None:
        self.coolchic.set_param(param)

    def loss(self, settings: Phase, temperature: float, noise_parameter: float) -> Tensor:
        error, bpp = self._measure(
            quantizer_noise_type=settings.quantizer_noise_type,
            quantizer_type=settings.quantizer_type,
            soft_round_temperature=temperature,
            noise_parameter=noise_parameter,
        )
        return error + self.lmbda * bpp

    @property
    def fused(self) -> FusedLoss | None:
        """loss() and its gradient through compiled kernels alone; None where they do not apply."""
        branches, bit_slope = {"motion": self.coolchic}, self.lmbda / self.target[0, 0].numel()
        measure = ByAutograd(branches, lambda outputs: self._error(outputs["motion"].raw_out))
        return FusedLoss.of(branches, measure, bit_slope)

    def validate(self) -> Validation:
        """psnr_db is of the flow, in FLOW_UNIT."""
        error, bpp = self._measure(quantizer_noise_type="none", quantizer_type="hardround")
        psnr_db = -10.0 * float(torch.log10(error.clamp_min(1e-12)))
        return Validation(float(error + self.lmbda * bpp), psnr_db, float(bpp))

    def _measure(self, **forward: Any) -> tuple[Tensor, Tensor]:
        out = self.coolchic(**forward)
        return self._error(out.raw_out), out.rate.sum() / self.target[0, 0].numel()

    def _error(self, flow: Tensor) -> Tensor:
        return (((flow - self.target) / FLOW_UNIT) ** 2).mean()
