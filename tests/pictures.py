"""Pictures that several test files share."""

import numpy as np

from coolvid.picture.types import Frame, VideoFormat


def noise(format: VideoFormat, n_frames: int = 3, seed: int = 1) -> list[Frame]:
    """Frames of which nothing can be predicted."""
    random = np.random.default_rng(seed)
    return [
        Frame(tuple(random.integers(0, format.peak + 1, s, dtype=np.uint16) for s in format.plane_shapes), format)
        for _ in range(n_frames)
    ]


def waves(format: VideoFormat, n_frames: int, grain: float = 0.0) -> list[Frame]:
    """A texture that moves by 1.5 pixels a frame, with noise of this standard deviation, samples in [0, 1]."""
    random, frames = np.random.default_rng(7), []
    for t in range(n_frames):
        planes = []
        for i, (height, width) in enumerate(format.plane_shapes):
            y, x = np.mgrid[:height, :width] * (format.height / height)
            wave = 0.5 + 0.3 * np.sin((x + 1.5 * t) / 4 + i) * np.cos((y - 0.5 * t) / 5)
            wave += random.normal(0, grain, (height, width))
            planes.append(np.clip(wave * format.peak, 0, format.peak).round().astype(np.uint16))
        frames.append(Frame(tuple(planes), format))
    return frames


def edge(format: VideoFormat, shift: int) -> Frame:
    """A smooth pattern of 8 bits with an edge, moved by `shift` pixels."""
    planes = []
    for height, width in format.plane_shapes:
        y, x = np.mgrid[:height, :width]
        x = x + shift * width / format.width
        planes.append(np.clip(110 + 60 * np.sin(x / 3.0) + 40 * np.cos(y / 4.0) + 30 * (x > 12), 0, 255))
    return Frame(tuple(p.astype(np.uint16) for p in planes), format)
