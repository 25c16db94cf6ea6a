"""Global translation between two frames: search and application."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.picture.types import Frame, PixelFormat

COARSE_SIDE = 32
"""The exhaustive search runs on pictures averaged down until no side exceeds this."""
KEPT = 3
"""Number of shifts that each refinement starts from."""
GAIN_NEEDED = 0.97
"""A shift must bring the mean absolute difference below this fraction of the difference without a shift."""

Shift = tuple[int, int]
Picture = NDArray[np.float32]


def global_translation(target: Frame, reference: Frame) -> Shift:
    """(dy, dx) such that target[i, j] ~ reference[i + dy, j + dx], coarse to fine.

    The search tries all shifts of small averaged pictures, then the neighbours of the best at every doubling of the
    resolution. Shifts stay within half the frame; pictures are compared where they overlap. Returns (0, 0) unless a
    shift clearly pays.
    """
    a, b = _luma(target), _luma(reference)
    block = 1
    while max(a.shape) > COARSE_SIDE * block and 2 * block <= min(a.shape):
        block *= 2
    reach = tuple(n // 2 // block for n in a.shape)
    trials = {(dy * block, dx * block) for dy in _around(0, reach[0]) for dx in _around(0, reach[1])}
    shifts = _best(a, b, trials, block)
    while block > 1:
        block //= 2
        trials = {(y + dy * block, x + dx * block) for y, x in shifts for dy in _around(0, 1) for dx in _around(0, 1)}
        shifts = _best(a, b, trials, block)
    return shifts[0] if _difference(a, b, shifts[0]) < GAIN_NEEDED * _difference(a, b, (0, 0)) else (0, 0)


def translate(picture: Tensor, shift: Shift) -> Tensor:
    """out[i, j] = picture[i + dy, j + dx], border replicated. [1, C, H, W]."""
    if shift == (0, 0):
        return picture
    height, width = picture.shape[-2:]
    rows = (torch.arange(height, device=picture.device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=picture.device) + shift[1]).clamp(0, width - 1)
    return picture[:, :, rows][:, :, :, columns]


def _luma(frame: Frame) -> Picture:
    planes = frame.planes if frame.format.pixel_format is PixelFormat.RGB else frame.planes[:1]
    return np.asarray(np.mean(planes, axis=0, dtype=np.float32))


def _around(middle: int, reach: int) -> range:
    return range(middle - reach, middle + reach + 1)


def _best(a: Picture, b: Picture, trials: set[Shift], block: int) -> list[Shift]:
    """The KEPT trials with the least difference on pictures averaged over block x block; ties go to the shortest."""
    small_a, small_b = _averaged(a, block), _averaged(b, block)
    inside = [(dy, dx) for dy, dx in trials if 2 * abs(dy) <= a.shape[0] and 2 * abs(dx) <= a.shape[1]]
    scored = [
        (_difference(small_a, small_b, (dy // block, dx // block)), abs(dy) + abs(dx), dy, dx) for dy, dx in inside
    ]
    return [(dy, dx) for _, _, dy, dx in sorted(scored)[:KEPT]]


def _averaged(picture: Picture, block: int) -> Picture:
    """Means of whole block x block squares; incomplete blocks at the right and bottom are dropped."""
    h, w = picture.shape[0] // block, picture.shape[1] // block
    out: Picture = picture[: h * block, : w * block].reshape(h, block, w, block).mean(axis=(1, 3))
    return out


def _difference(a: Picture, b: Picture, shift: Shift) -> float:
    """Mean absolute difference where a and the shifted b overlap."""
    (a_rows, b_rows), (a_columns, b_columns) = (_overlap(n, d) for n, d in zip(a.shape, shift, strict=True))
    if a_rows.start >= a_rows.stop or a_columns.start >= a_columns.stop:
        return float("inf")
    return float(np.abs(a[a_rows, a_columns] - b[b_rows, b_columns]).mean())


def _overlap(n: int, d: int) -> tuple[slice, slice]:
    """Slices of target and reference for target[i] ~ reference[i + d]."""
    return slice(max(0, -d), min(n, n - d)), slice(max(0, d), min(n, n + d))
