"""Common randomness: noise planes that encoder and decoder draw from the same fixed generator; nothing is sent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import Architecture, Grid
from coolvid.codec.fixed_point import Integers

from .resize import enlarge

NOISE_BITS = 12
_UNIFORMS = 8
_MEAN = _UNIFORMS * 0xFFFF // 2
# 2**NOISE_BITS over the standard deviation 2**16 * sqrt(8 / 12) of the sum, with 16 fractional bits.
_SCALE = 5017


def common_noise(architecture: Architecture, height: int, width: int) -> tuple[Integers, int]:
    """(int32 [n, h, w] within int16, fractional bits): a plane per normal grid, at the finest normal grid's size.

    Nearly Gaussian with standard deviation 1 on every grid, then bicubic enlargement; the same on every machine.
    """
    grids = [grid for grid in architecture.grids(height, width) if not grid.is_hyper]
    finest = grids[0]
    planes = [enlarge(_gaussian(g)[None], g.log2 - finest.log2, "bicubic", *finest.shape)[0] for g in grids]
    return np.stack(planes), NOISE_BITS


def _gaussian(grid: Grid) -> Integers:
    """Sum of eight 16-bit uniforms per position, from two hashes of (level, row, column)."""
    row = np.arange(grid.height, dtype=np.uint64)[:, None] << np.uint64(24)
    counter = (np.arange(grid.width, dtype=np.uint64) + row) * np.uint64(2) + (np.uint64(grid.log2) << np.uint64(56))
    total = _parts(_hash(counter)) + _parts(_hash(counter + np.uint64(1)))
    return (((total - _MEAN) * _SCALE + (1 << 15)) >> 16).astype(np.int32)


def _parts(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sum of the four 16-bit words of each value."""
    out = np.zeros(bits.shape, np.int64)
    for i in range(4):
        out += ((bits >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.int64)
    return out


def _hash(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014) of each counter."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
