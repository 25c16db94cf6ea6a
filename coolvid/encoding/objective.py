"""The Objective of a frame: distortion of the decoded picture + lambda * bits per pixel (arXiv 2212.05458, sec. 3).

Training, rounding, and the choice among copies, candidates and packings all minimize this value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from coolvid.errors import PluginError
from coolvid.picture.quality import mse
from coolvid.picture.types import ColorInfo, DictTensorYUV, Frame
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.contract import check_scale, check_tensor, reported
from coolvid.plugin.interfaces import TRAINED, DistortionPlugin, TrainingState
from coolvid.plugin.registry import make
from coolvid.settings.config import FrameConfig

Picture = DictTensorYUV | Tensor
Distortion = Callable[[Picture, Picture], Tensor]


def distortion_plugin(choice: PluginChoice) -> DistortionPlugin:
    """The named plugin. Raises UnknownPlugin, PluginError, ConfigError."""
    return cast(DistortionPlugin, make("distortion", choice.name, dict(choice.options)))


def distortion_function(choice: PluginChoice) -> Distortion:
    """The plugin's distortion in its own units, for any two pictures of one format."""
    plugin = distortion_plugin(choice)
    return lambda decoded, target: plugin.distortion(decoded, plugin.prepare(target, ColorInfo()), TRAINED)


@cache
def _squared_error() -> DistortionPlugin:
    return distortion_plugin(PluginChoice("mse"))


def mean_squared_error(decoded: Picture, target: Picture) -> Tensor:
    """Mean over all samples, a scalar. PSNR is computed from it, whatever distortion is minimized."""
    return _squared_error().distortion(decoded, target, TRAINED)


@dataclass(frozen=True, eq=False)
class Objective:
    """(D + lambda * bits / pixels) / scale, so that values are in units of mean squared error whatever the plugin.

    frame: the target. target: the same as a picture in [0, 1] on the training device. prepared: the plugin's result of
    preparing it. lmbda: lambda / scale. scale: factor to the plugin's own units.
    """

    frame: Frame
    target: Picture
    plugin: DistortionPlugin
    name: str
    prepared: Any
    lmbda: float
    scale: float

    @classmethod
    def of(
        cls, config: FrameConfig, frame: Frame, device: torch.device | str = "cpu", lmbda: float | None = None
    ) -> Objective:
        """Objective of a frame's configuration. lmbda: overrides config.lmbda. Raises ConfigError, PluginError."""
        plugin = distortion_plugin(config.distortion)
        scale = check_scale(config.distortion.name, plugin.scale)
        target = to_device(frame.as_tensor(), device)
        made = cls(
            frame=frame,
            target=target,
            plugin=plugin,
            name=config.distortion.name,
            prepared=plugin.prepare(target, config.color),
            lmbda=(config.lmbda if lmbda is None else lmbda) / scale,
            scale=scale,
        )
        made._check()
        return made

    def _check(self) -> None:
        """Call the plugin once with a grey picture. Raises PluginError if the result is not a usable scalar or not as
        declared."""
        grey = _like(self.target, 0.5)
        with torch.enable_grad(), reported("distortion", self.name):
            measured = self.plugin.distortion(grey, self.prepared, TrainingState(0, 1))
            errors = self.plugin.errors(grey, self.prepared)
        check_tensor("distortion", self.name, measured, (), needs_grad=True)
        if self.is_squared_error:
            wanted = self.scale * float(mean_squared_error(grey, self.target).detach())
            if not math.isclose(float(measured.detach()), wanted, rel_tol=1e-3, abs_tol=1e-9):
                raise PluginError(f"distortion '{self.name}' declares is_squared_error, but is not scale * MSE")
        if errors is None:
            return
        planes = planes_of(grey)
        if len(errors) != len(planes):
            raise PluginError(
                f"distortion '{self.name}' returns {len(errors)} planes of errors; expected {len(planes)}"
            )
        for plane, error in zip(planes, errors, strict=True):
            check_tensor("distortion", self.name, error, tuple(plane.shape))

    @property
    def is_squared_error(self) -> bool:
        """Whether distortion() is the mean squared error."""
        return self.plugin.is_squared_error

    @property
    def is_sum(self) -> bool:
        """Whether distortion() is a sum over samples, so that errors() is available."""
        return self.is_squared_error or self.plugin.errors(self.target, self.prepared) is not None

    @property
    def n_pixels(self) -> int:
        return self.frame.height * self.frame.width

    @property
    def loss_per_bit(self) -> float:
        return self.lmbda / self.n_pixels

    @property
    def squared(self) -> Objective:
        """The objective with mean squared error and the lambda of about the same quality."""
        if self.is_squared_error:
            return self
        return replace(self, plugin=_squared_error(), name="mse", prepared=self.target, scale=1.0)

    # -- of the float model ---------------------------------------------------------------------------------------

    def distortion(self, decoded: Picture, state: TrainingState = TRAINED) -> Tensor:
        """Distortion of a picture in [0, 1], a scalar. Raises PluginError if it is not finite for a picture
        that is."""
        if self.is_squared_error:
            return mean_squared_error(decoded, self.target)
        found = self.plugin.distortion(decoded, self.prepared, state)
        if not _is_finite(found) and all(map(_is_finite, planes_of(decoded))):
            raise PluginError(
                f"distortion '{self.name}' is {float(found.detach())} for a picture of finite values "
                "(see coolvid.testing.check)"
            )
        return found / self.scale

    def errors(self, decoded: Picture) -> tuple[Tensor, ...] | None:
        """Each sample's share of distortion(), in planes like the picture's; None if it is not a sum over samples."""
        if self.is_squared_error:
            return _squared_error().errors(decoded, self.target)
        errors = self.plugin.errors(decoded, self.prepared)
        return None if errors is None else tuple(error / self.scale for error in errors)

    # -- of what the stream holds -----------------------------------------------------------------------------------

    def of_packet(self, picture: Frame, data: bytes) -> float:
        """Objective of a decoded picture and its packet."""
        return self.of_picture(picture) + self.lmbda * 8 * len(data) / self.n_pixels

    @torch.no_grad()
    def of_picture(self, picture: Frame) -> float:
        """Distortion of a decoded picture."""
        if self.is_squared_error:
            return mse(picture, self.frame)
        return float(self.distortion(to_device(picture.as_tensor(), planes_of(self.target)[0].device)))


def planes_of(picture: Picture) -> list[Tensor]:
    """y, u and v [1, 1, h, w] of a DictTensorYUV; a single [1, 3, H, W] of any other picture."""
    return [picture["y"], picture["u"], picture["v"]] if isinstance(picture, dict) else [picture]


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values.detach()).all())


def to_device(picture: Picture, device: torch.device | str) -> Picture:
    """The picture on another device."""
    if isinstance(picture, dict):
        return DictTensorYUV(y=picture["y"].to(device), u=picture["u"].to(device), v=picture["v"].to(device))
    return picture.to(device)


def _like(picture: Picture, value: float) -> Picture:
    """A flat picture of the same shape that requires gradients."""
    flat = [torch.full_like(plane, value).requires_grad_() for plane in planes_of(picture)]
    return DictTensorYUV(y=flat[0], u=flat[1], v=flat[2]) if isinstance(picture, dict) else flat[0]
