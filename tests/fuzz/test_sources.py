"""Damaged videos, pictures, raw samples and settings: frames, or a CoolvidError in one line."""

import random
from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest

from coolvid.errors import CoolvidError
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.picture.types import ColorInfo, PixelFormat, VideoFormat
from coolvid.settings.config import EncodeConfig
from coolvid.settings.toml import make_config, read_config, write_config
from coolvid.study.report.points import read_points
from fuzz.mutate import flipped, noise
from pictures import waves

RATE = Fraction(25)
NAMES = ("a.y4m", "a.png", "a.mp4", "a.mkv", "a.avi", "a_32x16_25p_yuv420_8b.yuv")
N_CASES, N_SLOW_CASES = 12, 400


def made(path) -> bytes:
    """A small file of this kind."""
    is_picture = path.suffix == ".png"
    format = VideoFormat(16, 32, PixelFormat.RGB if is_picture else PixelFormat.YUV420, 8)
    frames = waves(format, 1 if is_picture else 3)
    if path.suffix == ".avi":
        save_avi(path, frames)
        return path.read_bytes()
    with open_sink(path, format, RATE, ColorInfo(), len(frames)) as sink:
        for frame in frames:
            sink.write(frame)
    return path.read_bytes()


def save_avi(path, frames) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            samples = np.concatenate([plane.ravel() for plane in frame.planes]).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(samples.reshape(-1, frame.width), format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def damaged(rng, data: bytes) -> bytes:
    """Bits turned over at the start or anywhere, a piece lost, repeated or replaced, or the end cut off."""
    at, n = rng.randrange(len(data)), rng.randrange(1, 40)
    return rng.choice(
        (
            lambda: flipped(rng, data, 0, 8 * min(len(data), 100)),
            lambda: flipped(rng, data, most=30),
            lambda: data[:at] + data[at + n :],
            lambda: data[: at + n] + data[at:],
            lambda: data[:at] + noise(rng, n) + data[at + n :],
            lambda: data[:at],
        )
    )()


def frames_of(path, spec=SourceSpec()):
    with open_source(path, spec) as source:
        return list(islice(source, 5))


def examine(call, path, data: bytes, seed: int) -> bool:
    """Whether the call accepts the file; it must not fail in any other way than by a CoolvidError in one line."""
    path.write_bytes(data)
    try:
        call(path)
        return True
    except CoolvidError as error:
        assert str(error).isprintable()
        return False
    except Exception as error:
        pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


def fuzz(call, path, good: bytes, n_cases: int) -> None:
    assert examine(call, path, good, -1)
    for seed in range(n_cases):
        examine(call, path, damaged(random.Random(seed), good), seed)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_sources(tmp_path, name):
    fuzz(frames_of, tmp_path / name, made(tmp_path / name), N_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_damaged_sources(tmp_path, name):
    fuzz(frames_of, tmp_path / name, made(tmp_path / name), N_SLOW_CASES)


def test_damaged_settings(tmp_path):
    path = tmp_path / "a.toml"
    write_config(EncodeConfig(), path)
    fuzz(lambda name: make_config([read_config(name)]), path, path.read_bytes(), 60)


def test_damaged_comparisons(tmp_path):
    good = b'{"source": {"name": "a.mp4"}, "points": [{"codec": "x", "bpp": 0.25, "quality": {"psnr_db": 30}}]}'
    fuzz(read_points, tmp_path / "a.json", good, 60)
