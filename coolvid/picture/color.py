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

from .types import ColorInfo, DictTensorYUV, Frame, PixelFormat, VideoFormat

if TYPE_CHECKING:
    from torch import Tensor

FULL_RANGE = 2
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


RGB_MATRIX = 0
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Shares of red and blue in luma, by matrix (ITU-T H.273)."""
_HD_LINES = 720


def _luma_shares(color: ColorInfo, height: int) -> tuple[float, float]:
    """Of the given matrix, else of BT.709 from 720 lines on, of BT.601 below."""
    return _LUMA.get(color.matrix, _LUMA[1 if height >= _HD_LINES else 6])


def to_rgb(picture: DictTensorYUV | Tensor, color: ColorInfo) -> Tensor:
    """RGB [1, 3, H, W], 0 black and 1 white, of a picture in [0, 1] as in files; differentiable and not clamped."""
    dense = to_dense(picture)
    if color.matrix == RGB_MATRIX:
        return dense
    y, u, v = dense[:, :1], dense[:, 1:2], dense[:, 2:]
    if color.range != FULL_RANGE:
        y, u, v = (y * 255 - 16) / 219, (u * 255 - 16) / 224, (v * 255 - 16) / 224
    red, blue = _luma_shares(color, dense.shape[-2])
    r = y + 2 * (1 - red) * (v - 0.5)
    b = y + 2 * (1 - blue) * (u - 0.5)
    g = (y - red * r - blue * b) / (1 - red - blue)
    import torch

    return torch.cat((r, g, b), dim=1)


def to_yuv(picture: DictTensorYUV | Tensor, color: ColorInfo) -> tuple[Tensor, Tensor, Tensor]:
    """Luma and chroma planes [1, 1, h, w] in [0, 1]: those of a YUV picture, or of RGB by BT.709; differentiable."""
    if isinstance(picture, dict):
        return picture["y"], picture["u"], picture["v"]
    first, second, third = picture[:, :1], picture[:, 1:2], picture[:, 2:]
    if color.matrix != RGB_MATRIX:
        return first, second, third
    red, blue = _LUMA[1]
    y = red * first + (1 - red - blue) * second + blue * third
    return y, (third - y) / (2 - 2 * blue) + 0.5, (first - y) / (2 - 2 * red) + 0.5


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
