"""The frame formula in floating point. The integer version is decoding/frame.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coolvid.picture.color import from_dense
from coolvid.picture.types import DictTensorYUV, PixelFormat

from . import fused

FLOW_STEPS = 64
"""Flow is decoded in steps of 1 / FLOW_STEPS pixel."""


def trust(raw: Tensor) -> Tensor:
    """A blending weight in [0, 1] from a raw output: clamp(raw + 1/2)."""
    return (raw + 0.5).clamp(0.0, 1.0)


def round_flow(flow: Tensor) -> Tensor:
    """Flow as decoded: rounded to the nearest 1/64 pixel, halves up."""
    return (flow * FLOW_STEPS + 0.5).floor() / FLOW_STEPS


def intra(residue: Tensor, gain: Tensor | float, offset: Tensor | float) -> Tensor:
    """Picture [1, 3, H, W] of an I frame. Raw 0 and 1 map to the frame's minimum and maximum."""
    return residue * gain + offset


def inter(raw: Tensor, predictions: Sequence[Tensor]) -> Tensor:
    """Picture [1, 3, H, W] of a P or B frame.

    raw [1, 4 or 5, H, W]: three planes of residue, then alpha, then beta if there are two predictions [1, 3, H, W].
    Picture = alpha * (beta * first + (1 - beta) * second) + residue.
    """
    prediction = predictions[0]
    if len(predictions) == 2:
        prediction = predictions[1] + trust(raw[:, 4:5]) * (predictions[0] - predictions[1])
    return raw[:, :3] + trust(raw[:, 3:4]) * prediction


def compose(
    raw: Tensor, predictions: Sequence[Tensor], gain: Tensor, offset: Tensor, pixel_format: PixelFormat
) -> DictTensorYUV | Tensor:
    """The picture in the pixel format of files: inter() with predictions, else intra(). The kernels fuse both steps."""
    planes = fused.compose(raw, predictions, gain, offset, pixel_format.is_subsampled)
    if planes is None:
        return from_dense(inter(raw, predictions) if predictions else intra(raw, gain, offset), pixel_format)
    if len(planes) == 1:
        return planes[0]
    return DictTensorYUV(y=planes[0], u=planes[1], v=planes[2])


def clamped(picture: DictTensorYUV | Tensor, is_straight: bool) -> DictTensorYUV | Tensor:
    """The picture clamped to [0, 1], after chroma averaging, as in the decoder.

    is_straight: pass derivatives straight through, so that a sample outside the range is pulled back to its target.
    """
    limit = _StraightClamp.apply if is_straight else _clamp
    if not isinstance(picture, dict):
        return limit(picture)
    return DictTensorYUV(y=limit(picture["y"]), u=limit(picture["u"]), v=limit(picture["v"]))


def _clamp(samples: Tensor) -> Tensor:
    return samples.clamp(0.0, 1.0)


class _StraightClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, samples: Tensor) -> Tensor:
        return _clamp(samples)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
