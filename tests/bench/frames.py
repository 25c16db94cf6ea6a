"""Frames to measure with: a texture of many scales that drifts, made here so that no file is needed."""

import numpy as np

from coolvid.picture.types import Frame, PixelFormat, VideoFormat

SPEED = 1.75  # pixels a frame


def moving_texture(n, width, height, seed=0):
    """n frames, 8 bit 4:2:0: noise of every octave, brighter the coarser, and a square that moves against it."""
    rng = np.random.default_rng(seed)
    size = 2 ** int(np.ceil(np.log2(max(width, height) + SPEED * n + 2)))
    texture = np.zeros((size, size), np.float32)
    for octave in range(1, int(np.log2(size))):
        cells = rng.standard_normal((size >> octave,) * 2).astype(np.float32) * 2.0**octave
        texture += _smooth(cells, octave)
    texture *= 38.0 / texture.std()
    return [_frame(texture, i, width, height) for i in range(n)]


def _smooth(cells, octaves):
    """Doubled `octaves` times, linearly, wrapping around."""
    for _ in range(octaves):
        for axis in (0, 1):
            between = (cells + np.roll(cells, -1, axis)) / 2
            cells = np.stack((cells, between), axis + 1).reshape(
                [n * (2 if i == axis else 1) for i, n in enumerate(cells.shape)]
            )
    return cells


def _frame(texture, i, width, height):
    shift = SPEED * i
    whole, part = int(shift), shift - int(shift)
    rows, columns = slice(0, height), slice(whole, whole + width + 1)
    wide = texture[rows, columns]
    luma = 120 + (1 - part) * wide[:, :-1] + part * wide[:, 1:]
    side, left = height // 4, (3 * i + width // 3) % (width // 2)
    luma[side : 2 * side, left : left + side] += 40
    chroma = [texture[shift : shift + height, shift : shift + width][::2, ::2] * 0.2 + 128 for shift in (3, 9)]
    planes = (luma, *chroma)
    return Frame(tuple(np.clip(np.rint(p), 16, 235).astype(np.uint16) for p in planes), _format(width, height))


def _format(width, height):
    return VideoFormat(height, width, PixelFormat.YUV420, 8)
