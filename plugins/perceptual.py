"""Distortions that follow perception: MS-SSIM, and the Wasserstein distortion of features (arXiv 2412.00505)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolvid.errors import ConfigError
from coolvid.picture.color import RGB_MATRIX
from coolvid.picture.quality import MS_SSIM_WEIGHTS, SSIM_K1, SSIM_K2, SSIM_SIGMA, SSIM_TAPS
from coolvid.picture.types import ColorInfo
from coolvid.plugin.interfaces import DistortionPlugin, PluginOptions, TrainingState
from coolvid.values import OneOf, Within, check_fields

from .distortion import MeanSquaredError
from .features import Features, Steerable, Vgg16, averaged, lowpass, widths

_SQUARED_ERROR = MeanSquaredError(PluginOptions())


def planes_of(picture: Any) -> list[Tensor]:
    """The three planes [1, 1, h, w] of a picture."""
    if isinstance(picture, dict):
        return [picture[name] for name in ("y", "u", "v")]
    return [picture[:, i : i + 1] for i in range(3)]


# -- MS-SSIM ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MsSsimOptions(PluginOptions):
    """alpha: weight of 1 - MS-SSIM, 0..1; the mean squared error has the rest. planes: "y" measures luma (of RGB, all)
    by MS-SSIM and the others by squared error, "all" measures all planes by MS-SSIM."""

    alpha: Annotated[float, Within(0, 1)] = 1.0
    planes: Annotated[str, OneOf(("y", "all"))] = "y"

    def __post_init__(self) -> None:
        check_fields(self)


class _SsimTarget(NamedTuple):
    planes: list[Tensor]
    is_measured: list[bool]


class MsSsim(DistortionPlugin):
    """(1 - alpha) * MSE + alpha * MS_SSIM_SHARE * (1 - MS-SSIM), plane by plane, weighted by samples.

    Five scales, fewer for pictures below 176 pixels a side, with the weights of the finest scales scaled to sum to 1.
    """

    name = "ms_ssim"
    Options = MsSsimOptions

    def prepare(self, target: Any, color: ColorInfo) -> _SsimTarget:
        planes = planes_of(target)
        takes_all = self.options.planes == "all" or color.matrix == RGB_MATRIX
        return _SsimTarget(planes, [takes_all or i == 0 for i in range(len(planes))])

    def distortion(self, decoded: Any, target: _SsimTarget, state: TrainingState) -> Tensor:
        n_samples = sum(plane.numel() for plane in target.planes)
        parts = [
            wanted.numel() / n_samples * self._plane(plane, wanted, measured)
            for plane, wanted, measured in zip(planes_of(decoded), *target, strict=True)
        ]
        return torch.stack(parts).sum()

    def _plane(self, decoded: Tensor, target: Tensor, is_measured: bool) -> Tensor:
        alpha: float = self.options.alpha if is_measured else 0.0
        loss = (1 - alpha) * F.mse_loss(decoded, target)
        return loss + alpha * MS_SSIM_SHARE * (1 - ms_ssim(decoded, target)) if alpha else loss


MS_SSIM_SHARE = 1 / 50
"""Mean squared error of about the same quality, per unit of 1 - MS-SSIM: the ratio of the lambdas with which learned
codecs are trained for both (CompressAI: 0.0018 * 255**2 and 2.4 to 0.18 * 255**2 and 220)."""


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity of two planes [1, 1, H, W] in [0, 1], differentiable, as quality.ms_ssim."""
    weights = MS_SSIM_WEIGHTS[: _n_scales(x.shape[-2:])]
    share, logarithm = sum(MS_SSIM_WEIGHTS) / sum(weights), x.new_zeros(())
    for i, weight in enumerate(weights):
        luminance, contrast = _similarity(x, y)
        is_last = i == len(weights) - 1
        mean = (luminance * contrast if is_last else contrast).mean()
        logarithm = logarithm + share * weight * torch.log(mean.clamp_min(1e-6))
        if not is_last:
            x, y = _halved(x), _halved(y)
    return torch.exp(logarithm)


def _n_scales(size: Sequence[int]) -> int:
    """How many of the five scales have whole windows."""
    return max(1, min(len(MS_SSIM_WEIGHTS), int(math.log2(min(size) / SSIM_TAPS)) + 1))


def _halved(plane: Tensor) -> Tensor:
    """Means of 2x2 blocks, the last row or column repeated where the size is odd."""
    height, width = plane.shape[-2:]
    return F.avg_pool2d(F.pad(plane, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(luminance, contrast times structure) of every whole window."""
    x_mean, y_mean, xx, yy, xy = _blurred(torch.cat((x, y, x * x, y * y, x * y))).unbind(0)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1)
    variances = xx - x_mean**2 + yy - y_mean**2
    return luminance, (2 * (xy - x_mean * y_mean) + c2) / (variances + c2)


def _blurred(planes: Tensor) -> Tensor:
    """Gaussian mean of every whole window of [N, 1, H, W]."""
    for dim in (2, 3):
        n_taps = min(SSIM_TAPS, planes.shape[dim])
        position = torch.arange(n_taps).to(planes) - (n_taps - 1) / 2
        taps = torch.exp(-(position**2) / (2 * SSIM_SIGMA**2))
        shape = (1, 1, n_taps, 1) if dim == 2 else (1, 1, 1, n_taps)
        planes = F.conv2d(planes, (taps / taps.sum()).view(shape))
    return planes


# -- Wasserstein distortion ---------------------------------------------------------------------------------------


MAX_LOG2_SIGMA = 5.0
SHARES = {"steerable": 9.0, "vgg16": 1 / 200}
"""Mean squared error of about the same quality, per unit of the Wasserstein distortion of these features."""


@dataclass(frozen=True)
class WassersteinOptions(PluginOptions):
    """alpha: weight of the Wasserstein distortion, 0..1; the mean squared error has the rest. log2_sigma: log2 of the
    radius in pixels within which features may move (0: not at all), 0..5. sigma_map: a .npy file with log2_sigma
    [H, W] for every pixel, of any size. features: steerable, or vgg16 with weights=PATH, torchvision's state dict."""

    alpha: Annotated[float, Within(0, 1)] = 0.8
    log2_sigma: Annotated[float, Within(0, MAX_LOG2_SIGMA)] = 3.0
    sigma_map: str = ""
    features: Annotated[str, OneOf(tuple(SHARES))] = "steerable"
    weights: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


VARIANCE_FLOOR = 1e-6
"""Added to variances, so that the slope of the deviation is bounded."""


class _Statistics(NamedTuple):
    """Local mean and deviation [1, C, h, w] of features at one scale, and the weight of this scale."""

    mean: Tensor
    deviation: Tensor | None
    weight: Tensor | float


class _WassersteinTarget(NamedTuple):
    picture: Any
    color: ColorInfo
    sigmas: list[Tensor | float]
    statistics: list[list[_Statistics]]


class Wasserstein(DistortionPlugin):
    """(1 - alpha) * MSE + alpha * share * Wasserstein distortion of features.

    Textures may differ from the target's in detail, but not in local mean and deviation of their features.
    """

    name = "wasserstein"
    Options = WassersteinOptions
    common_randomness = True

    def __init__(self, options: WassersteinOptions) -> None:
        super().__init__(options)
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        """Built at first use. Raises ConfigError for weights that cannot be read."""
        if self._features is None:
            self._features = Steerable() if self.options.features == "steerable" else Vgg16.read(self.options.weights)
        return self._features

    @torch.no_grad()
    def prepare(self, target: Any, color: ColorInfo) -> _WassersteinTarget:
        features = self.features(target, color)
        sigma = self._sigma_map() if self.options.sigma_map else self.options.log2_sigma
        found = widths(features, planes_of(target)[0].shape[-2])
        sigmas = [_sigma_of(sigma, each, width) for each, width in zip(features, found, strict=True)]
        made = [statistics(each, each_sigma) for each, each_sigma in zip(features, sigmas, strict=True)]
        return _WassersteinTarget(target, color, sigmas, made)

    def _sigma_map(self) -> Tensor:
        path = self.options.sigma_map
        try:
            values = np.load(Path(path), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read sigma_map {path}: {error}; give a .npy file [H, W]") from error
        if values.ndim != 2 or not 0 <= float(values.min()) <= float(values.max()) <= MAX_LOG2_SIGMA:
            raise ConfigError(f"sigma_map {path} has shape {values.shape}; give [H, W] within 0..{MAX_LOG2_SIGMA:g}")
        return torch.from_numpy(values.astype(np.float32))[None, None]

    def distortion(self, decoded: Any, target: _WassersteinTarget, state: TrainingState) -> Tensor:
        alpha: float = self.options.alpha
        loss = (1 - alpha) * _SQUARED_ERROR.distortion(decoded, target.picture)
        if not alpha:
            return loss
        features = self.features(decoded, target.color)
        parts = [
            wasserstein(statistics(each, sigma), wanted)
            for each, sigma, wanted in zip(features, target.sigmas, target.statistics, strict=True)
        ]
        return loss + alpha * SHARES[self.options.features] * torch.stack(parts).sum()


def _sigma_of(sigma: Tensor | float, features: Tensor, width: int) -> Tensor | float:
    """log2_sigma in samples of the features, each `width` (log2) pixels wide; a map is resized to theirs."""
    if isinstance(sigma, float):
        return max(0.0, sigma - width)
    resized = F.interpolate(sigma, features.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    return (resized - width).clamp_min(0).to(features)


def statistics(features: Tensor, log2_sigma: Tensor | float) -> list[_Statistics]:
    """Local statistics of features [1, C, h, w] at the scales to which log2_sigma, a number or a map [1, 1, h, w],
    gives a weight. Scale 0 is the features themselves; scale k > 0 has mean and deviation of their magnitudes, at every
    2**(k - 1)-th sample."""
    found = []
    top = math.ceil(float(log2_sigma.max()) if isinstance(log2_sigma, Tensor) else log2_sigma)
    for scale in range(top + 1):
        weight = _weight(log2_sigma, scale)
        if isinstance(weight, Tensor) or weight > 0:
            found.append(_statistics_at(features, scale, weight))
    return found


def _statistics_at(features: Tensor, scale: int, weight: Tensor | float) -> _Statistics:
    if scale == 0:
        return _Statistics(features, None, weight)
    mean, square = averaged(features.abs(), scale), averaged(features.square(), scale)
    deviation = torch.sqrt((square - mean.square()).clamp_min(0) + VARIANCE_FLOOR)
    return _Statistics(mean, deviation, weight)


def _weight(log2_sigma: Tensor | float, scale: int) -> Tensor | float:
    """Share of a scale, at its samples: 1 where it equals log2_sigma, 0 from a distance of 1 on."""
    if not isinstance(log2_sigma, Tensor):
        return max(0.0, 1 - abs(log2_sigma - scale))
    for _ in range(scale - 1):
        log2_sigma = lowpass(log2_sigma, 2)
    return (1 - (log2_sigma - scale).abs()).clamp_min(0)


def wasserstein(found: Sequence[_Statistics], wanted: Sequence[_Statistics]) -> Tensor:
    """Squared differences of means and of deviations, averaged over positions and channels, summed over scales."""
    parts = []
    for own, other in zip(found, wanted, strict=True):
        distance = (own.mean - other.mean).square()
        if own.deviation is not None and other.deviation is not None:
            distance = distance + (own.deviation - other.deviation).square()
        parts.append((other.weight * distance).mean())
    return torch.stack(parts).sum()
