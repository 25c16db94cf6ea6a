"""Falling leaves: pictures of overlapping textured shapes, in moving layers.

Shapes of all sizes that occlude one another share many statistics with photographs (Lee, Mumford and Huang, "Occlusion
models for natural images", 2001). They are drawn at SCALE times the size, for soft edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolvid import Frame, PixelFormat, VideoFormat

SCALE = 4
MARGIN = 24
N_LAYERS = 4
Image = NDArray[np.float32]
Vector = NDArray[np.float64]
_TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclass(frozen=True)
class Layer:
    """color [H, W, 3], multiplied by alpha [H, W]; velocity in pixels per frame (y, x)."""

    color: Image
    alpha: Image
    velocity: Vector


def scene(height: int, width: int, seed: int, times: Sequence[int]) -> list[Frame]:
    """The scene of this seed at these times, 4:2:0, 8 bit, limited range. Sides must be even."""
    rng = np.random.default_rng(seed)
    layers = _layers(height, width, rng)
    noise = rng.choice([0, 0.004, 0.01])
    pictures = (_seen(layers, height, width, t) for t in times)
    return [_frame(np.clip(p + noise * rng.normal(size=p.shape), 0, 1)) for p in pictures]


def _layers(height: int, width: int, rng: np.random.Generator) -> list[Layer]:
    h, w = height + 2 * MARGIN, width + 2 * MARGIN
    pan = rng.uniform(-1.5, 1.5, 2)
    covering = rng.uniform(0.3, 1, 80) * height / 2
    layers = [_layer(h, w, np.concatenate((covering, _radii(900, height / 2, rng))), pan, rng, grey=0.5)]
    for _ in range(1, N_LAYERS):
        velocity = pan * rng.uniform(0.6, 1.6) + rng.normal(0, 0.8, 2)
        layers.append(_layer(h, w, _radii(int(rng.integers(4, 25)), height / 5, rng), velocity, rng))
    return layers


def _radii(n: int, largest: float, rng: np.random.Generator, least: float = 2.0) -> NDArray[np.float64]:
    """Radii whose density falls with their cube, which makes the scene scale invariant."""
    u = rng.random(n)
    return np.asarray(1 / np.sqrt(1 / least**2 - u * (1 / least**2 - 1 / largest**2)))


def _layer(
    height: int, width: int, radii: NDArray[np.float64], velocity: Vector, rng: np.random.Generator, grey: float = 0.0
) -> Layer:
    color = np.full((height * SCALE, width * SCALE, 3), grey, np.float32)
    alpha = np.full(color.shape[:2], float(grey > 0), np.float32)
    for radius in radii * SCALE:
        _draw(color, alpha, radius, rng)
    return Layer(color, alpha, velocity)


def _draw(color: Image, alpha: Image, radius: float, rng: np.random.Generator) -> None:
    """One ellipse or rectangle at a random position and angle."""
    height, width = alpha.shape
    cx, cy, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, np.pi)
    left, right = int(max(0, cx - radius - 2)), int(min(width, cx + radius + 3))
    top, bottom = int(max(0, cy - radius - 2)), int(min(height, cy + radius + 3))
    if left >= right or top >= bottom:
        return
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    y, x = y - np.float32(cy), x - np.float32(cx)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    flat = rng.uniform(0.3, 1)
    if rng.random() < 0.5:
        outside = np.hypot(u, v / flat) - radius
    else:
        outside = np.maximum(np.abs(u) - 0.7 * radius, np.abs(v) - 0.7 * radius * flat)
    cover = np.clip(0.5 - outside / (SCALE * rng.choice([0.5, 0.7, 1, 2.5])), 0, 1).astype(np.float32)
    paint = (rng.normal(0.5, 0.2) + rng.normal(0, 0.06, 3) + _texture(u, v, radius, rng)[..., None]).astype(np.float32)
    area = slice(top, bottom), slice(left, right)
    color[area] = color[area] * (1 - cover[..., None]) + paint * cover[..., None]
    alpha[area] = alpha[area] * (1 - cover) + cover


def _texture(u: Image, v: Image, radius: float, rng: np.random.Generator) -> Image:
    """A gradient, plus stripes or smooth noise on most shapes."""
    out = rng.normal(0, 0.15) / max(radius, 8) * u
    kind = rng.random()
    if kind < 0.3:
        out = out + rng.uniform(0.02, 0.12) * np.sin(2 * np.pi * (u / (SCALE * rng.uniform(2.5, 14)) + rng.random()))
    elif kind < 0.65:
        out = out + rng.uniform(0.02, 0.12) * _smooth_noise(u / radius, v / radius, radius, rng)
    return np.asarray(out, dtype=np.float32)


def _smooth_noise(u: Image, v: Image, radius: float, rng: np.random.Generator) -> Image:
    """Bilinear noise over the square [-1, 1] x [-1, 1]."""
    n = max(2, int(radius // (SCALE * rng.choice([0.5, 1, 2]))) + 2)
    grid = rng.normal(size=(n, n)).astype(np.float32)
    row, column = (np.clip((each + 1) / 2 * (n - 1), 0, n - 1.001) for each in (v, u))
    i, j = row.astype(np.int64), column.astype(np.int64)
    down, across = row - i, column - j
    above = grid[i, j] * (1 - across) + grid[i, j + 1] * across
    below = grid[i + 1, j] * (1 - across) + grid[i + 1, j + 1] * across
    return np.asarray(above * (1 - down) + below * down)


def _seen(layers: Sequence[Layer], height: int, width: int, time: int) -> Image:
    """RGB [H, W, 3] of the layers on top of one another."""
    picture = np.zeros((height * SCALE, width * SCALE, 3), np.float32)
    for layer in layers:
        moved = np.clip(layer.velocity * time, 1 - MARGIN, MARGIN - 1)
        top, left = (round((MARGIN - each) * SCALE) for each in moved)
        area = slice(top, top + height * SCALE), slice(left, left + width * SCALE)
        picture = picture * (1 - layer.alpha[area][..., None]) + layer.color[area]
    return np.asarray(picture.reshape(height, SCALE, width, SCALE, 3).mean((1, 3)))


def _frame(rgb: NDArray[np.floating]) -> Frame:
    """BT.601, limited range, chroma the mean of 2x2 pixels."""
    height, width = rgb.shape[:2]
    yuv = rgb @ _TO_YUV.T
    chroma = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    planes = 16 + 219 * yuv[..., 0], 128 + 224 * chroma[..., 0], 128 + 224 * chroma[..., 1]
    rounded = tuple(np.clip(np.rint(plane), 0, 255).astype(np.uint16) for plane in planes)
    return Frame(rounded, VideoFormat(height, width, PixelFormat.YUV420, 8))
