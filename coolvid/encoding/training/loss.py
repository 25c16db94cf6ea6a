"""Rate-distortion losses: the codec's own, and a module for users of CompressAI's convention.

Ours: loss = distortion + lmbda * bits per pixel, with samples in [0, 1] and luma pixels.
CompressAI's: loss = lmbda' * 255**2 * MSE + bits per pixel. Both have the same optimum when
lmbda = 1 / (255**2 * lmbda'); `convert_lmbda` converts in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from coolvid.encoding.objective import Distortion, Picture, distortion_function, mean_squared_error
from coolvid.errors import choose, within
from coolvid.plugin.choice import PluginChoice

CONVENTIONS = ("mse", "compressai")


def n_pixels(picture: Picture) -> int:
    """H * W of the luma, times the batch."""
    luma = picture["y"] if isinstance(picture, dict) else picture[:, :1]
    return luma.numel()


@dataclass(frozen=True)
class LossFunctionOutput:
    """loss: scalar tensor to differentiate. Other fields only with compute_logs: MSE on [0, 1], bits per pixel."""

    loss: Tensor
    mse: float | None = None
    rate_nn_bpp: float | None = None
    rate_latent_bpp: float | None = None

    @property
    def total_rate_bpp(self) -> float | None:
        if self.rate_nn_bpp is None or self.rate_latent_bpp is None:
            return None
        return self.rate_nn_bpp + self.rate_latent_bpp

    @property
    def psnr_db(self) -> float | None:
        """Over all samples; infinite for equal pictures."""
        if self.mse is None:
            return None
        return -10.0 * math.log10(self.mse) if self.mse > 0 else math.inf if self.mse == 0 else math.nan


def loss_function(
    decoded_image: Picture,
    rate_latent_bit: Tensor,
    target_image: Picture,
    lmbda: float = 1e-3,
    rate_mlp_bit: float = 0.0,
    compute_logs: bool = False,
    distortion: Distortion | None = None,
) -> LossFunctionOutput:
    """distortion + lmbda * (latent bits + network bits) / pixels (arXiv 2212.05458, sec. 3).

    decoded_image, target_image: DictTensorYUV or [B, 3, H, W] in [0, 1]. rate_latent_bit: bits, any shape, summed.
    rate_mlp_bit: bits of the networks, a constant. distortion: MSE by default. compute_logs synchronizes the device.
    """
    pixels = n_pixels(target_image)
    latent_bpp = rate_latent_bit.sum() / pixels
    nn_bpp = float(rate_mlp_bit) / pixels
    measured = (distortion or mean_squared_error)(decoded_image, target_image)
    loss = measured + lmbda * (latent_bpp + nn_bpp)
    if not compute_logs:
        return LossFunctionOutput(loss)
    with torch.no_grad():
        mse = measured if distortion is None else mean_squared_error(decoded_image, target_image)
        return LossFunctionOutput(loss, float(mse), nn_bpp, float(latent_bpp))


def convert_lmbda(value: float, to: str) -> float:
    """The lambda with the same optimum in the convention `to`, "mse" or "compressai".

    value is in the other convention. The formula 1 / (255**2 * value) is its own inverse.
    Raises ConfigError for another name, or if value is not positive.
    """
    choose("lambda convention", to, CONVENTIONS)
    within("lambda", value, 1e-12, 1e12)
    return 1.0 / (255.0**2 * value)


class RateDistortionLoss(nn.Module):
    """The loss as a module, for batches and for codecs that return likelihoods of one or several latent streams.

    convention "mse": distortion + lmbda * bpp; "compressai": lmbda * 255**2 * distortion + bpp.
    forward(output, target): output has "x_hat" [B, 3, H, W] or DictTensorYUV in [0, 1] and "likelihoods", a mapping of
    stream names to tensors of any shape in (0, 1]. The rate is summed over all streams and averaged over
    all pixels of the batch. Returns scalars "loss", "mse_loss" (the distortion) and "bpp_loss".
    """

    def __init__(self, lmbda: float, convention: str = "mse", distortion: str | Distortion = "mse") -> None:
        super().__init__()
        choose("loss convention", convention, CONVENTIONS)
        within("lmbda", lmbda, 1e-12, 1e12)
        self.lmbda = lmbda
        self.convention = convention
        named = isinstance(distortion, str)
        self.distortion = distortion_function(PluginChoice.parse(cast(str, distortion))) if named else distortion

    def forward(self, output: Mapping[str, Any], target: Picture) -> dict[str, Tensor]:
        streams: Mapping[str, Tensor] = output["likelihoods"]
        pixels = n_pixels(target)
        bpp = torch.stack([-torch.log2(p).sum() for p in streams.values()]).sum() / pixels
        distortion = cast(Distortion, self.distortion)(output["x_hat"], target)
        ours = self.convention == "mse"
        loss = distortion + self.lmbda * bpp if ours else self.lmbda * 255.0**2 * distortion + bpp
        return {"loss": loss, "mse_loss": distortion, "bpp_loss": bpp}
