"""Rate-distortion losses: the codec's own, and a module for batches and for CompressAI's convention.

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

from coolvid.errors import ConfigError, choose, within
from coolvid.plugin.choice import PluginChoice

from .objective import Distortion, Picture, distortion_function, mean_squared_error, planes_of

CONVENTIONS = ("compressai", "mse")


def n_pixels(picture: Picture) -> int:
    """H * W of the luma, times the batch."""
    luma = picture["y"] if isinstance(picture, dict) else picture[:, :1]
    return luma.numel()


@dataclass(frozen=True, kw_only=True)
class LossFunctionOutput:
    """loss: scalar tensor, to be differentiated. The others are floats, only with compute_logs: MSE on [0, 1], bits per
    pixel of the networks and of the latents."""

    loss: Tensor | None = None
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
    The result's loss is a tensor. Raises ConfigError for pictures of different kinds or shapes.
    """
    _check_pictures(decoded_image, target_image)
    pixels = n_pixels(target_image)
    latent_bpp = rate_latent_bit.sum() / pixels
    nn_bpp = float(rate_mlp_bit) / pixels
    measured = (distortion or mean_squared_error)(decoded_image, target_image)
    loss = measured + lmbda * (latent_bpp + nn_bpp)
    if not compute_logs:
        return LossFunctionOutput(loss=loss)
    with torch.no_grad():
        mse = measured if distortion is None else mean_squared_error(decoded_image, target_image)
        return LossFunctionOutput(loss=loss, mse=float(mse), rate_nn_bpp=nn_bpp, rate_latent_bpp=float(latent_bpp))


def _check_pictures(decoded: Picture, target: Picture) -> None:
    """Raise ConfigError unless both are DictTensorYUV or both [B, 3, H, W], with planes of equal shapes."""
    shapes = [[tuple(plane.shape) for plane in planes_of(picture)] for picture in (decoded, target)]
    n_channels = 1 if isinstance(target, dict) else 3
    if shapes[0] != shapes[1] or any(len(shape) != 4 or shape[1] != n_channels for shape in shapes[1]):
        raise ConfigError(
            f"decoded picture {_kind(decoded)} and target {_kind(target)}; give two tensors [B, 3, H, W] of one "
            "shape, or two dictionaries of y, u, v [B, 1, h, w]"
        )


def _kind(picture: Picture) -> str:
    """Shape of the picture's tensors, for a message."""
    if isinstance(picture, dict):
        return "{" + ", ".join(f"{name} {list(plane.shape)}" for name, plane in picture.items()) + "}"  # type: ignore[attr-defined]
    return str(list(picture.shape))


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

    convention "compressai": lmbda * 255**2 * distortion + bpp; "mse": distortion + lmbda * bpp.
    forward(output, target): output has "x_hat" [B, 3, H, W] or DictTensorYUV in [0, 1] and "likelihoods", a mapping of
    stream names to tensors of any shape in (0, 1]. The rate is summed over all streams and averaged over
    all pixels of the batch. Returns scalars "loss", "mse_loss" (the distortion) and "bpp_loss". Raises ConfigError for
    pictures of different kinds or shapes, and for likelihoods that are empty or not positive.
    """

    def __init__(
        self, lmbda: float = 1e-2, convention: str = "compressai", distortion: str | Distortion = "mse"
    ) -> None:
        super().__init__()
        choose("loss convention", convention, CONVENTIONS)
        within("lmbda", lmbda, 1e-12, 1e12)
        self.lmbda = lmbda
        self.convention = convention
        named = isinstance(distortion, str)
        self.distortion = distortion_function(PluginChoice.parse(cast(str, distortion))) if named else distortion

    def forward(self, output: Mapping[str, Any], target: Picture) -> dict[str, Tensor]:
        streams: Mapping[str, Tensor] = output["likelihoods"]
        _check_pictures(output["x_hat"], target)
        _check_likelihoods(streams)
        pixels = n_pixels(target)
        bpp = torch.stack([-torch.log2(p).sum() for p in streams.values()]).sum() / pixels
        distortion = cast(Distortion, self.distortion)(output["x_hat"], target)
        ours = self.convention == "mse"
        loss = distortion + self.lmbda * bpp if ours else self.lmbda * 255.0**2 * distortion + bpp
        return {"loss": loss, "mse_loss": distortion, "bpp_loss": bpp}


def _check_likelihoods(streams: Mapping[str, Tensor]) -> None:
    if not streams:
        raise ConfigError("likelihoods has no stream; give one tensor for each stream of latents")
    for name, likelihoods in streams.items():
        if not likelihoods.numel():
            raise ConfigError(f"likelihoods of '{name}' are empty; leave out a stream without latents")
        least = float(likelihoods.detach().min())
        if not least > 0:
            raise ConfigError(f"likelihoods of '{name}' go down to {least}; give values in (0, 1], for example clamped")
