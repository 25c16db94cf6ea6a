"""Optical flow for the start of motion training.

LucasKanade is our own, in numpy: dense, pyramidal, robust enough for a start. DenseInverseSearch is OpenCV's, better on
fine structure, and needs the extra ``pip install coolvid[flow]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError, PluginError
from coolvid.interfaces import MotionPlugin, PluginOptions

Image = NDArray[np.float32]

_SMALLEST_SIDE = 12
_DIS_PRESETS = ("ultrafast", "fast", "medium")
# A sorting network that leaves the median of nine values at place 4 (Smith, 1996).
_MEDIAN_OF_NINE = (
    (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3),
    (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)  # fmt: skip


@dataclass(frozen=True)
class LucasKanadeOptions(PluginOptions):
    """radius: half side of the window in pixels. iterations: Gauss-Newton steps per level. levels: halvings of the
    picture, 0 for as many as it bears. smoothing: strength of the pull towards the current flow,
    in grey levels of 255."""

    radius: int = 4
    iterations: int = 4
    levels: int = 0
    smoothing: float = 2.0

    def __post_init__(self) -> None:
        for name, low, high in (("radius", 1, 32), ("iterations", 1, 100), ("levels", 0, 12), ("smoothing", 0.01, 100)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"lucas_kanade: {name} is {getattr(self, name)}; choose {low}..{high}")


class LucasKanade(MotionPlugin):
    """Iterated Lucas-Kanade over a pyramid (Lucas & Kanade, 1981; Bouguet, 2001), dense, with median filtering.

    At every level, each pixel may instead take a neighbour's vector, or none, where that explains its window better.
    """

    name = "lucas_kanade"
    Options = LucasKanadeOptions

    def flow(self, target: Image, reference: Image) -> Image:
        o: LucasKanadeOptions = self.options
        levels = _pyramid(target, reference, o.levels or 12)
        flow = np.zeros((2, *levels[-1][0].shape), dtype=np.float32)
        for a, b in reversed(levels):
            flow = _enlarge(flow, a.shape)
            for shift in _spread(o.radius, a.shape):
                flow = _choose(a, b, flow, (_shifted(flow, *shift),), o.radius)
            refined = _refine(a, b, flow, o)
            flow = _choose(a, b, refined, (flow, np.zeros_like(flow)), o.radius)
            flow = np.stack([_median(f) for f in flow])
        return flow


def _pyramid(target: Image, reference: Image, depth: int) -> list[tuple[Image, Image]]:
    """Both pictures, full size first, halved while the sides stay long enough."""
    levels = [(target.astype(np.float32), reference.astype(np.float32))]
    while len(levels) <= depth and min(levels[-1][0].shape) >= 2 * _SMALLEST_SIDE:
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


def _enlarge(flow: Image, shape: tuple[int, ...]) -> Image:
    """The flow of the coarser level at this level's size, with doubled vectors (unchanged if it has that size)."""
    if flow.shape[1:] == shape:
        return flow
    rows, columns = (
        np.clip((np.arange(n, dtype=np.float32) - 0.5) / 2, 0, last - 1).astype(np.float32)
        for n, last in zip(shape, flow.shape[1:], strict=True)
    )
    return np.stack([_bilinear(f, rows[:, None], columns[None, :]) for f in flow]) * np.float32(2)


def _bilinear(x: Image, rows: Image, columns: Image) -> Image:
    """x at fractional positions inside it (broadcast)."""
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    bottom, right = np.minimum(top + 1, x.shape[0] - 1), np.minimum(left + 1, x.shape[1] - 1)
    down, across = rows - top, columns - left
    above = x[top, left] * (1 - across) + x[top, right] * across
    below = x[bottom, left] * (1 - across) + x[bottom, right] * across
    return np.asarray(above * (1 - down) + below * down, dtype=np.float32)


def _warp(reference: Image, flow: Image) -> Image:
    """out[i, j] = reference[i + y, j + x], border replicated."""
    h, w = reference.shape
    rows = np.clip(np.arange(h, dtype=np.float32)[:, None] + flow[1], 0, h - 1)
    columns = np.clip(np.arange(w, dtype=np.float32)[None, :] + flow[0], 0, w - 1)
    return _bilinear(reference, rows, columns)


def _box(x: Image, radius: int) -> Image:
    """Mean over the (2 radius + 1)**2 window, border replicated; [..., H, W]."""
    size = 2 * radius + 1
    for axis in (-2, -1):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(x, pad, mode="edge"), axis=axis, dtype=np.float64)
        n = sums.shape[axis]
        total = np.take(sums, np.arange(size, n), axis=axis) - np.take(sums, np.arange(n - size), axis=axis)
        x = np.asarray(total / size, dtype=np.float32)
    return x


def _refine(target: Image, reference: Image, flow: Image, o: LucasKanadeOptions) -> Image:
    """Gauss-Newton steps of at most one pixel on the windowed squared difference."""
    damping = np.float32((o.smoothing / 255) ** 2)
    for _ in range(o.iterations):
        warped = _warp(reference, flow)
        gy, gx = np.gradient((warped + target) / 2)
        difference = warped - target
        products = np.stack((gx * gx, gx * gy, gy * gy, gx * difference, gy * difference))
        xx, xy, yy, xt, yt = _box(products, o.radius)
        xx, yy = xx + damping, yy + damping
        determinant = xx * yy - xy * xy
        step = np.stack((xy * yt - yy * xt, xy * xt - xx * yt)) / determinant
        flow = np.asarray(flow + np.clip(step, -1, 1), dtype=np.float32)
    return _box(flow, 1)


def _spread(radius: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Where a pixel looks for a better vector: (dy, dx) of eight neighbours, a window away."""
    far = min(radius + 1, min(shape) - 1)
    return [(dy, dx) for dy in (-far, 0, far) for dx in (-far, 0, far) if (dy, dx) != (0, 0)]


def _shifted(flow: Image, dy: int, dx: int) -> Image:
    """The flow of the pixel at (i + dy, j + dx), border replicated."""
    rows = np.clip(np.arange(flow.shape[1]) + dy, 0, flow.shape[1] - 1)
    columns = np.clip(np.arange(flow.shape[2]) + dx, 0, flow.shape[2] - 1)
    return np.asarray(flow[:, rows[:, None], columns[None, :]], dtype=np.float32)


def _choose(target: Image, reference: Image, flow: Image, others: tuple[Image, ...], radius: int) -> Image:
    """Per pixel, the vector whose window differs least (absolute differences); the first of equals."""
    best = flow
    cost = _box(np.abs(_warp(reference, flow) - target), radius)
    for other in others:
        rival = _box(np.abs(_warp(reference, other) - target), radius)
        better = rival < cost
        best = np.where(better, other, best)
        cost = np.where(better, rival, cost)
    return best


def _median(x: Image) -> Image:
    """Median of 3x3, border replicated."""
    padded = np.pad(x, 1, mode="edge")
    h, w = x.shape
    nine = [padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]
    for a, b in _MEDIAN_OF_NINE:
        nine[a], nine[b] = np.minimum(nine[a], nine[b]), np.maximum(nine[a], nine[b])
    return nine[4]


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
        raise PluginError("motion 'dis' needs OpenCV; pip install coolvid[flow], or choose lucas_kanade") from error
    return cv2
