"""The amount of detail in a picture: an estimate of what there is to code, before training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .types import Frame, PixelFormat

Floats = NDArray[np.float64]

BLOCK = 8
_BITS = 6.0
_OF_RGB = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


def detail(frame: Frame, lmbda: float) -> int:
    """The number of DCT coefficients of 8×8 blocks, means excluded, that are worth coding at this lambda: those whose
    omission adds more to the loss than 6 bits do. RGB is first converted to luma and colour differences."""
    planes: list[Floats] = [plane / frame.format.peak for plane in frame.planes]
    n_samples = sum(plane.size for plane in planes)
    if frame.format.pixel_format is PixelFormat.RGB:
        planes = list(np.tensordot(_OF_RGB, np.stack(planes), 1))
    least = _BITS * lmbda * n_samples / (frame.height * frame.width)
    return sum(int((_coefficients(plane) ** 2 > least).sum()) for plane in planes)


def _coefficients(plane: Floats) -> Floats:
    """The orthonormal DCT-II of all blocks of [h, w], means set to 0; incomplete blocks repeat their last samples."""
    padded = np.pad(plane, [(0, -side % BLOCK) for side in plane.shape], mode="edge")
    rows, columns = (side // BLOCK for side in padded.shape)
    blocks = padded.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    k, x = np.indices((BLOCK, BLOCK))
    basis = np.cos(np.pi * (2 * x + 1) * k / (2 * BLOCK)) * np.sqrt(np.where(k, 2, 1) / BLOCK)
    out: Floats = basis @ blocks @ basis.T
    out[..., 0, 0] = 0
    return out
