"""Motion start: the motion branch first learns an optical flow, then joins the training of the picture.

Gradient descent through a warp only sees motion of a pixel or two, so a fresh motion branch finds large motion by luck.
A classical estimator provides one flow per reference, and the branch learns to code it like an image. The error of a
vector approximates its cost in the picture, from the mean squared slopes S (2x2) of the warped luma around it:

    error = d' S d / (1 + d' S d / SATURATION) + FLATNESS * d' d      for a vector error of d pixels
    loss = mean(error) + RATE_FACTOR * lmbda * motion bits / pixels

so that flat areas, and spurious vectors there, cost few bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from coolvid.encoding.objective import Objective
from coolvid.errors import PluginError
from coolvid.picture.types import Frame, PixelFormat
from coolvid.plugin.interfaces import MotionPlugin, TrainingState
from coolvid.plugin.registry import make
from coolvid.settings.config import FrameConfig, Phase

from .fused import ByAutograd, FusedLoss
from .loop import TrainingManager, Validation, optimize
from .train import device_of, select_groups

if TYPE_CHECKING:
    from coolvid.encoding.model.coolchic import CoolChicEncoderOutput
    from coolvid.encoding.model.frame_encoder import FrameEncoder

SATURATION = 0.01
"""Limit of a vector's error: beyond it, the warped picture is unrelated to the target, and distance does not matter."""
FLATNESS = 1e-5
RATE_FACTOR = 4.5
_REACH = 4
_RGB_TO_LUMA = (0.299, 0.587, 0.114)
Luma = NDArray[np.float32]


def start_motion(
    frame_encoder: FrameEncoder, objective: Objective, manager: TrainingManager, config: FrameConfig
) -> Any:
    """Parameters (get_param) of the encoder's motion branch after config.training.motion_start iterations.

    Raises TrainingError, and PluginError when the motion estimator fails.
    """
    flow = torch.from_numpy(flows(frame_encoder, objective.frame, config))[None].to(device_of(frame_encoder))
    task = FlowTask(frame_encoder, flow, slopes(frame_encoder, flow), objective.lmbda)
    settings = Phase(
        config.training.motion_start,
        frequency_validation=max(1, config.training.motion_start // 4),
        optimized_module=("motion.all",),
        softround_temperature=(0.3, 0.1),
        noise_parameter=(0.25, 0.1),
    )
    optimize(task, settings, manager, "motion start")
    return task.get_param()


def flows(frame_encoder: FrameEncoder, frame: Frame, config: FrameConfig) -> Luma:
    """Flow to every reference, x then y: float32 [2 * n_references, H, W] in pixels, after global translation."""
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
    """Luma [H, W] of planes [n, H, W]: the first plane, or the weighted sum of red, green and blue (BT.601)."""
    if pixel_format is not PixelFormat.RGB:
        return np.ascontiguousarray(planes[0])
    return np.tensordot(np.asarray(_RGB_TO_LUMA, dtype=np.float32), planes, axes=1)


def slopes(frame_encoder: FrameEncoder, flow: Tensor) -> Tensor:
    """Products of the luma slopes in each reference warped by flow, [n_references, 3, H, W]: xx, xy and yy, averaged
    over a neighbourhood."""
    products = []
    pixel_format = frame_encoder.format.pixel_format
    with torch.no_grad():
        for warped in frame_encoder.warp(flow):
            plane = luma(warped[0].cpu().numpy(), pixel_format)
            y, x = (torch.from_numpy(np.asarray(slope)) for slope in np.gradient(plane))
            products.append(torch.stack((x * x, x * y, y * y)))
    return F.avg_pool2d(torch.stack(products).to(flow), 2 * _REACH + 1, 1, _REACH, count_include_pad=False)


class FlowTask:
    """Codes flows [1, 2n, H, W] (pixels) with an encoder's motion branch. products: as from slopes(). If pixels share a
    vector, flows and products are averaged over them."""

    def __init__(self, frame_encoder: FrameEncoder, target: Tensor, products: Tensor, lmbda: float) -> None:
        self.coolchic = frame_encoder.branches["motion"]
        self.module: nn.Module = self.coolchic
        groups = select_groups(frame_encoder.named_groups(), ("motion.all",))
        self.groups: Mapping[str, Sequence[Tensor]] = {k: v for k, v in groups.items() if k != "motion.warper"}
        self.is_fresh = True
        self.distortion_name = ""
        self.n_pixels = target[0, 0].numel()
        self.lmbda = RATE_FACTOR * lmbda
        self.block = frame_encoder.block
        self.target, self.products = _pairs(self._shared(target)), self._shared(products)

    def _shared(self, x: Tensor) -> Tensor:
        """Means over the pixels that share a vector."""
        return F.avg_pool2d(x, self.block, ceil_mode=True, count_include_pad=False) if self.block > 1 else x

    def get_param(self) -> Any:
        return self.coolchic.get_param()

    def set_param(self, param: Any) -> None:
        self.coolchic.set_param(param)

    def loss(self, settings: Phase, temperature: float, noise_parameter: float, state: TrainingState) -> Tensor:
        error, bpp = self._measure(
            quantizer_noise_type=settings.quantizer_noise_type,
            quantizer_type=settings.quantizer_type,
            soft_round_temperature=temperature,
            noise_parameter=noise_parameter,
            state=state,
        )
        return error + self.lmbda * bpp

    @property
    def fused(self) -> FusedLoss | None:
        """loss() and its gradient in compiled kernels only; None if the kernels do not apply."""
        branches = {"motion": self.coolchic}
        measure = ByAutograd(branches, lambda outputs, _: self._error(outputs["motion"]))
        return FusedLoss.of(branches, measure, self.lmbda / self.n_pixels)

    def validate(self) -> Validation:
        """psnr_db: the picture's loss from the vector errors alone."""
        error, bpp = self._measure(quantizer_noise_type="none", quantizer_type="hardround")
        psnr_db = -10.0 * float(torch.log10(error.clamp_min(1e-12)))
        return Validation(float(error + self.lmbda * bpp), psnr_db, float(bpp))

    def _measure(self, **forward: Any) -> tuple[Tensor, Tensor]:
        out = self.coolchic(**forward)
        return self._error(out), out.rate.sum() / self.n_pixels

    def _error(self, out: CoolChicEncoderOutput) -> Tensor:
        flow = out.coarse if self.block > 1 else out.raw_out
        off = _pairs(flow) - self.target
        x, y = off[:, 0], off[:, 1]
        xx, xy, yy = self.products.unbind(1)
        error = xx * x * x + 2 * xy * x * y + yy * y * y
        mean: Tensor = (error / (1 + error / SATURATION)).mean() + 2 * FLATNESS * (off * off).mean()
        return mean


def _pairs(flow: Tensor) -> Tensor:
    """Reshape [1, 2n, h, w] to [n, 2, h, w]."""
    return flow.view(-1, 2, *flow.shape[2:])
