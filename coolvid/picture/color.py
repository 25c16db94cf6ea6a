"""Conversion between the planes of files and the dense pictures that the codec computes with.

Files hold 4:2:0, 4:4:4 or RGB planes; a *dense* picture has three planes of the frame's size. 4:2:0 chroma is repeated
2x2 on the way in and averaged 2x2 on the way out. Each direction has two forms, which agree before rounding: integers
in numpy for decoding, and floating point in torch for training. No other file converts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError

from .types import DictTensorYUV, Frame, PixelFormat, VideoFormat

if TYPE_CHECKING:
    from torch import Tensor

DENSE_BITS = 6
"""Fractional bits of the dense code values that `finish` takes."""


def dense_planes(frame: Frame) -> NDArray[np.int32]:
    """Code values int32 [3, H, W]; chroma of 4:2:0 is repeated 2x2 and cropped to the frame."""
    height, width = frame.height, frame.width
    dense = np.empty((3, height, width), dtype=np.int32)
    for channel, plane in enumerate(frame.planes):
        dense[channel] = plane if plane.shape == (height, width) else _repeat(plane)[:height, :width]
    return dense


def finish(dense: NDArray[Any], format: VideoFormat) -> Frame:
    """Dense code values (integers [3, H, W], DENSE_BITS fractional bits) to the Frame of the given format.

    One rounding for each sample, halves up, then the clamp to 0..peak. Chroma of 4:2:0 is the mean of its 2x2 block,
    taken from the unrounded values; at an odd right or bottom edge the last column or row counts twice.
    Raises ConfigError for a picture of another size than the format's.
    """
    if dense.shape != (3, format.height, format.width):
        raise ConfigError(f"dense picture {dense.shape} is not (3, {format.height}, {format.width})")
    wide = dense.astype(np.int64)
    if not format.pixel_format.is_subsampled:
        y, u, v = (_to_codes(plane, DENSE_BITS, format.peak) for plane in wide)
        return Frame((y, u, v), format)
    u, v = (_to_codes(_sum_of_blocks(plane), DENSE_BITS + 2, format.peak) for plane in wide[1:])
    return Frame((_to_codes(wide[0], DENSE_BITS, format.peak), u, v), format)


def to_dense(picture: DictTensorYUV | Tensor) -> Tensor:
    """Picture as a tensor [1, 3, H, W] in the same units; chroma of 4:2:0 is repeated 2x2 and cropped."""
    if not isinstance(picture, dict):
        return picture
    import torch

    y = picture["y"]
    height, width = y.shape[-2:]
    u, v = (_repeat_tensor(plane, height, width) for plane in (picture["u"], picture["v"]))
    return torch.cat((y, u, v), dim=1)


def from_dense(dense: Tensor, pixel_format: PixelFormat) -> DictTensorYUV | Tensor:
    """Inverse of `to_dense`, differentiable.

    A DictTensorYUV for 4:2:0 (2x2 means, odd edges replicated), the tensor itself for the other formats.
    """
    if not pixel_format.is_subsampled:
        return dense
    from torch.nn.functional import avg_pool2d, pad

    height, width = dense.shape[-2:]
    even = pad(dense[:, 1:], (0, width % 2, 0, height % 2), mode="replicate")
    chroma = avg_pool2d(even, 2)
    return DictTensorYUV(y=dense[:, :1], u=chroma[:, :1], v=chroma[:, 1:])


def _repeat(plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return plane.repeat(2, axis=0).repeat(2, axis=1)


def _repeat_tensor(plane: Tensor, height: int, width: int) -> Tensor:
    """Plane [1, 1, h, w] repeated 2x2 and cropped; unchanged if it has the full size."""
    if plane.shape[-2:] == (height, width):
        return plane
    return plane.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :height, :width]


def _sum_of_blocks(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of each 2x2 block of [H, W], the last row and column repeated where the size is odd."""
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    total: NDArray[np.int64] = even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]
    return total


def _to_codes(plane: NDArray[np.int64], bits: int, peak: int) -> NDArray[np.uint16]:
    codes: NDArray[np.uint16] = np.clip((plane + (1 << (bits - 1))) >> bits, 0, peak).astype(np.uint16)
    return codes
