"""Optical flow for the start of motion training.

BlockMatching, in numpy, finds one vector for each small block, as in a video encoder: it trades matching error against
smoothness. DenseInverseSearch is OpenCV's and needs the extra ``pip install coolvid[flow]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError, PluginError
from coolvid.plugin.interfaces import MotionPlugin, PluginOptions

Image = NDArray[np.float32]
Vectors = NDArray[np.int32]
"""[2, h, w]: x and y of each block, in steps of 1 / STEPS pixel."""

STEPS = 4
_SMALLEST_SIDE = 32
_LOCAL_REACH = 4
_ROUNDS = 3
_BEND = -0.75
"""The free parameter of bicubic interpolation (Keys, 1981)."""
_FARTHEST = 6
"""Limit of the smoothness price, in doublings of a step, so that independent motion pays only once."""
_DIS_PRESETS = ("ultrafast", "fast", "medium")


@dataclass(frozen=True)
class BlockMatchingOptions(PluginOptions):
    """block: side of the squares that share a vector, in pixels. reach: search range in each direction at the coarsest
    level, in pixels. smoothness: price of doubling the difference from a neighbour's vector, in squared error summed
    over a window of four blocks, samples in [0, 1]."""

    block: int = 4
    reach: int = 12
    smoothness: float = 3e-3

    def __post_init__(self) -> None:
        for name, low, high in (("block", 2, 64), ("reach", 1, 64), ("smoothness", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"block_matching: {name} is {getattr(self, name)}; choose {low}..{high}")


class BlockMatching(MotionPlugin):
    """Block matching over a pyramid, to a quarter pixel, with a penalty on differences between neighbours.

    At each level every block tries the coarser level's vector, the zero vector, the best whole-pixel vector nearby, its
    neighbours' vectors (3-D recursive search, de Haan et al., 1993) and small steps. It keeps the vector that minimizes
    squared error + smoothness * sum over four neighbours of log2(1 + steps apart).
    """

    name = "block_matching"
    Options = BlockMatchingOptions

    def flow(self, target: Image, reference: Image) -> Image:
        o: BlockMatchingOptions = self.options
        levels = _pyramid(target, reference)
        vectors = _Level(*levels[-1], o).searched(o.reach)
        for i, pair in enumerate(reversed(levels)):
            level = _Level(*pair, o)
            vectors = level.refined(_doubled(vectors, level.size) if i else vectors)
        return _spread(vectors, o.block, target.shape).astype(np.float32) / np.float32(STEPS)


class _Level:
    """Both pictures at one size, and the search on them."""

    def __init__(self, target: Image, reference: Image, options: BlockMatchingOptions) -> None:
        self.target, self.reference, self.options = target, reference, options
        self.size = tuple(-(-n // options.block) for n in target.shape)
        self.between = _interpolated(reference)
        self.room = np.zeros([n * options.block for n in self.size], dtype=np.float32)
        rows, columns = (np.arange(n, dtype=np.int32) * STEPS for n in target.shape)
        self.rows, self.columns = rows[:, None], columns[None, :]
        self.is_even = np.indices(self.size).sum(axis=0) % 2 == 0

    def searched(self, reach: int) -> Vectors:
        """The best whole-pixel vector of each block within reach; short vectors are preferred."""
        (height, width), padded = self.target.shape, np.pad(self.reference, reach, mode="edge")
        best = np.full(self.size, np.inf)
        vectors = np.zeros((2, *self.size), dtype=np.int32)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                moved = padded[reach + dy :, reach + dx :][:height, :width]
                cost = self._windowed(moved) + self.options.smoothness * math.log2(1 + abs(dy) + abs(dx))
                better = cost < best
                best = np.where(better, cost, best)
                vectors[0][better], vectors[1][better] = dx * STEPS, dy * STEPS
        return vectors

    def refined(self, vectors: Vectors) -> Vectors:
        """The vectors after all trials."""
        self.vectors, self.error = vectors, self._error(vectors)
        self._try(np.zeros_like(vectors))
        self._try(self.searched(_LOCAL_REACH))
        for _ in range(_ROUNDS):
            for far in (1, 2, 4, 8):
                for dy, dx in ((0, far), (0, -far), (far, 0), (-far, 0)):
                    self._try(_shifted(self.vectors, dy, dx))
            self._try(_median(self.vectors))
            for step in (2 * STEPS, STEPS, STEPS // 2, STEPS // 4):
                for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
                    self._try(self.vectors + np.array([dx, dy], dtype=np.int32)[:, None, None])
        return self.vectors

    def _try(self, rival: Vectors) -> None:
        """Take the rival's vectors where they are better, in checkerboard order."""
        error = self._error(rival)
        for chosen in (self.is_even, ~self.is_even):
            around = _neighbours(self.vectors)
            better = chosen & (
                error + self._roughness(rival, around) < self.error + self._roughness(self.vectors, around)
            )
            self.vectors = np.where(better, rival, self.vectors)
            self.error = np.where(better, error, self.error)

    def _roughness(self, vectors: Vectors, around: list[Vectors]) -> Image:
        """Smoothness price [h, w] of these vectors, given those around them."""
        apart = [np.abs(each - vectors) for each in around]
        doublings = np.add.reduce([_DOUBLINGS[np.minimum(x + y, len(_DOUBLINGS) - 1)] for x, y in apart])
        return np.asarray(np.float32(self.options.smoothness) * doublings)

    def _error(self, vectors: Vectors) -> Image:
        x, y = _spread(vectors, self.options.block, self.target.shape)
        height, width = self.between.shape
        rows = np.minimum(np.maximum(self.rows + y, 0), height - 1)
        columns = np.minimum(np.maximum(self.columns + x, 0), width - 1)
        return self._windowed(np.take(self.between, rows * width + columns))

    def _windowed(self, moved: Image) -> Image:
        """Squared difference to the target, summed over each block and half of its neighbours (corners: a quarter)."""
        (height, width), block = moved.shape, self.options.block
        np.subtract(moved, self.target, out=self.room[:height, :width])
        squared = np.square(self.room)
        columns = np.add.reduce([squared[:, k::block] for k in range(block)])
        padded = _framed(np.add.reduce([columns[k::block] for k in range(block)]))
        padded = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        return np.asarray((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4, dtype=np.float32)


_DOUBLINGS = np.log2(1 + np.arange(2**_FARTHEST, dtype=np.float32))


def _pyramid(target: Image, reference: Image) -> list[tuple[Image, Image]]:
    """Both pictures, full size first, halved until the sides would be too short."""
    levels = [(target.astype(np.float32), reference.astype(np.float32))]
    while min(levels[-1][0].shape) >= 2 * _SMALLEST_SIDE:
        levels.append((_halve(levels[-1][0]), _halve(levels[-1][1])))
    return levels


def _halve(x: Image) -> Image:
    """Half the size, rounded up: mean of 2x2 samples after a light blur."""
    out = np.pad(x, ((1, 2), (1, 2)), mode="edge")
    for axis in (0, 1):
        starts = np.arange(-(-x.shape[axis] // 2)) * 2
        a, b, c, d = (np.take(out, starts + k, axis=axis) for k in range(4))
        out = np.asarray((a + 3 * b + 3 * c + d) / 8, dtype=np.float32)
    return out


def _doubled(vectors: Vectors, size: tuple[int, ...]) -> Vectors:
    """The coarser level's vectors, resampled and scaled to this level."""
    return 2 * vectors.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def _spread(vectors: Vectors, block: int, shape: tuple[int, ...]) -> Vectors:
    """[2, H, W]: each pixel's vector."""
    return vectors.repeat(block, axis=1).repeat(block, axis=2)[:, : shape[0], : shape[1]]


def _framed(x: Any) -> Any:
    """[..., h + 2, w + 2]: with a replicated border of one sample."""
    x = np.concatenate((x[..., :1, :], x, x[..., -1:, :]), axis=-2)
    return np.concatenate((x[..., :1], x, x[..., -1:]), axis=-1)


def _neighbours(vectors: Vectors) -> list[Vectors]:
    """The vectors to the right, left, below and above."""
    framed = _framed(vectors)
    return [framed[:, 1:-1, 2:], framed[:, 1:-1, :-2], framed[:, 2:, 1:-1], framed[:, :-2, 1:-1]]


def _shifted(vectors: Vectors, dy: int, dx: int) -> Vectors:
    """The vectors of the blocks at (i + dy, j + dx), border replicated."""
    rows = np.clip(np.arange(vectors.shape[1]) + dy, 0, vectors.shape[1] - 1)
    columns = np.clip(np.arange(vectors.shape[2]) + dx, 0, vectors.shape[2] - 1)
    return vectors[:, rows][:, :, columns]


def _median(vectors: Vectors) -> Vectors:
    """x and y, each the median of 3x3 blocks, border replicated."""
    nine = [_shifted(vectors, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    middle: Vectors = np.sort(np.stack(nine), axis=0)[4]
    return middle


def _interpolated(x: Image) -> Image:
    """Bicubic upsampling by STEPS, without samples beyond the last: out[STEPS * i, STEPS * j] = x[i, j]."""
    for axis in (0, 1):
        n = x.shape[axis]
        padded = np.pad(x, [(1, 2) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        taps = [np.take(padded, np.arange(n) + k, axis=axis) for k in range(4)]
        phases = [sum(w * t for w, t in zip(_cubic(p / STEPS), taps, strict=True)) for p in range(STEPS)]
        shape = (n * STEPS, x.shape[1]) if axis == 0 else (x.shape[0], n * STEPS)
        x = np.stack(phases, axis=axis + 1).reshape(shape).astype(np.float32)
    return np.ascontiguousarray(x[: -STEPS + 1, : -STEPS + 1])


def _cubic(at: float) -> list[np.float32]:
    """Weights of the four samples around a point at fraction `at` between the second and the third."""

    def weight(d: float) -> float:
        a = _BEND
        return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)

    return [np.float32(weight(abs(at - k))) for k in (-1, 0, 1, 2)]


@dataclass(frozen=True)
class DenseInverseSearchOptions(PluginOptions):
    """preset: ultrafast, fast or medium, as OpenCV names them."""

    preset: str = "medium"

    def __post_init__(self) -> None:
        if self.preset not in _DIS_PRESETS:
            raise ConfigError(f"dis: preset '{self.preset}'; choose one of: {', '.join(_DIS_PRESETS)}")


class DenseInverseSearch(MotionPlugin):
    """OpenCV's dense inverse search (Kroeger et al., arXiv 1603.03590). Raises PluginError without OpenCV."""

    name = "dis"
    Options = DenseInverseSearchOptions

    def flow(self, target: Image, reference: Image) -> Image:
        cv2 = _opencv()
        preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.options.preset.upper()}")
        a, b = (np.round(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in (target, reference))
        flow = cv2.DISOpticalFlow_create(preset).calc(a, b, None)
        return np.ascontiguousarray(np.moveaxis(np.asarray(flow, dtype=np.float32), -1, 0))


def _opencv() -> Any:
    try:
        import cv2  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise PluginError("motion 'dis' needs OpenCV; pip install coolvid[flow], or choose block_matching") from error
    return cv2
