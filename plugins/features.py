"""Features of a picture for the Wasserstein distortion: an oriented filter bank, and layers of VGG-16."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from coolvid.errors import ConfigError
from coolvid.picture.color import to_rgb, to_yuv
from coolvid.picture.types import ColorInfo

MIN_SIDE = 8
"""A pyramid ends before its pictures get smaller than this."""


class Features(Protocol):
    """Maps a picture to features [1, C, h, w] of one or several sizes."""

    def __call__(self, picture: Any, color: ColorInfo) -> list[Tensor]: ...


def lowpass(x: Tensor, stride: int = 1) -> Tensor:
    """x [1, C, H, W] filtered by [1/4, 1/2, 1/4] along rows and columns, borders reflected; every stride-th sample."""
    for dim in (-1, -2):
        x = _filtered(x, dim, stride)
    return x


def _filtered(x: Tensor, dim: int, stride: int) -> Tensor:
    size = x.shape[dim]
    if size == 1:
        return x
    padded = F.pad(x, (1, 1, 0, 0) if dim == -1 else (0, 0, 1, 1), mode="reflect")
    n = (size + stride - 1) // stride
    before, here, after = (padded.narrow(dim, k, size + 2 - k)[_every(dim, stride)].narrow(dim, 0, n) for k in range(3))
    return 0.5 * here + 0.25 * (before + after)


def _every(dim: int, stride: int) -> tuple[Any, ...]:
    step = slice(None, None, stride)
    return (..., step) if dim == -1 else (..., step, slice(None))


@lru_cache(maxsize=256)
def averaging(size: int, scale: int) -> Tensor:
    """The matrix [n, size] of `scale` lowpass filters in a row along one side, each but the last with stride 2."""
    rows = torch.eye(size)[None, None]
    for i in range(scale):
        rows = _filtered(rows, -2, 1 if i == scale - 1 else 2)
    return rows[0, 0]


def averaged(x: Tensor, scale: int) -> Tensor:
    """Local means of x [1, C, H, W]: `scale` lowpass filters in a row, each but the last with stride 2."""
    columns, rows = (averaging(side, scale).to(x) for side in x.shape[-2:])
    means: Tensor = columns @ (x @ rows.T)
    return means


def pyramid(plane: Tensor, n_levels: int) -> list[Tensor]:
    """The plane [1, C, H, W] and its halvings, at most n_levels, none below MIN_SIDE."""
    levels = [plane]
    while len(levels) < n_levels and min(levels[-1].shape[-2:]) >= 2 * MIN_SIDE:
        levels.append(lowpass(levels[-1], stride=2))
    return levels


def _bank() -> Tensor:
    """Filters [8, 1, 5, 5]: first and second derivatives of a binomial along 0, 45, 90 and 135 degrees."""
    smooth = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    slope = torch.tensor([-1.0, -2.0, 0.0, 2.0, 1.0]) / 8
    bend = torch.tensor([1.0, 0.0, -2.0, 0.0, 1.0]) / 4
    x, y = torch.outer(smooth, slope), torch.outer(slope, smooth)
    xx, yy, xy = torch.outer(smooth, bend), torch.outer(bend, smooth), torch.outer(slope, slope)
    odd = [x, (x + y) / 2**0.5, y, (y - x) / 2**0.5]
    even = [xx, (xx + yy) / 2 + xy, yy, (xx + yy) / 2 - xy]
    return torch.stack(odd + even)[:, None]


class Steerable:
    """Planes of a pyramid and their oriented first and second derivatives (Freeman and Adelson, IEEE Transactions on
    Pattern Analysis and Machine Intelligence 13(9), 1991), for luma and both chroma planes."""

    def __init__(self, n_levels: int = 4) -> None:
        self.n_levels = n_levels
        self._bank = _bank()

    def __call__(self, picture: Any, color: ColorInfo) -> list[Tensor]:
        return [self._responses(level) for plane in to_yuv(picture, color) for level in pyramid(plane, self.n_levels)]

    def _responses(self, plane: Tensor) -> Tensor:
        """[1, 9, h, w] of a plane [1, 1, h, w]."""
        responses = F.conv2d(F.pad(plane, (2, 2, 2, 2), mode="reflect"), self._bank.to(plane))
        return torch.cat((plane, responses), dim=1)


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LAYERS: tuple[tuple[int, ...], ...] = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21))
"""Convolutions of the first four blocks of VGG-16, by their number in torchvision's `features`."""


class Vgg16:
    """relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16 (arXiv 1409.1556), on a pyramid of the RGB picture.

    weights: state dict of torchvision's vgg16. Raises ConfigError if a parameter is missing or has another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor], n_levels: int = 3) -> None:
        self.n_levels = n_levels
        self._layers = [[_convolution(weights, number) for number in block] for block in _LAYERS]

    @classmethod
    def read(cls, path: str, n_levels: int = 3) -> Vgg16:
        """From a file that torch.save wrote. Raises ConfigError."""
        if not path or not Path(path).is_file():
            raise ConfigError(
                f"features vgg16 need weights=PATH, a file with torchvision's vgg16 state dict; '{path}' is not a file"
            )
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ConfigError(f"cannot read the VGG-16 weights {path}: {str(error).splitlines()[0]}") from error
        return cls(weights, n_levels)

    def __call__(self, picture: Any, color: ColorInfo) -> list[Tensor]:
        rgb = to_rgb(picture, color).clamp(0, 1)
        return [features for level in pyramid(rgb, self.n_levels) for features in self._blocks(level)]

    def _blocks(self, rgb: Tensor) -> list[Tensor]:
        mean, deviation = (rgb.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        x, found = (rgb - mean) / deviation, []
        for number, block in enumerate(self._layers):
            if min(x.shape[-2:]) < 2:
                break
            x = F.max_pool2d(x, 2) if number else x
            for weight, bias in block:
                x = F.conv2d(x, weight.to(x), bias.to(x), padding=1).relu()
            found.append(x)
        return found


def _convolution(weights: Mapping[str, Tensor], number: int) -> tuple[Tensor, Tensor]:
    try:
        weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
    except KeyError as error:
        raise ConfigError(f"the VGG-16 weights have no {error}; give torchvision's state dict of vgg16") from error
    if weight.shape[2:] != (3, 3) or bias.shape != weight.shape[:1]:
        raise ConfigError(f"features.{number}.weight has shape {list(weight.shape)}; give torchvision's vgg16")
    return weight.float(), bias.float()


def widths(features: Sequence[Tensor], height: int) -> list[int]:
    """log2 of the side of a feature sample in pixels of a picture of this height."""
    return [round(math.log2(height / each.shape[-2])) for each in features]
