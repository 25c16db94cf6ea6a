"""Frames, formats and their limits."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from coolvid.errors import ConfigError
from coolvid.picture.types import ColorInfo, Frame, FrameType, PixelFormat, VideoFormat

FORMATS = [
    VideoFormat(16, 18, PixelFormat.YUV420, 8),
    VideoFormat(17, 19, PixelFormat.YUV420, 10),
    VideoFormat(17, 19, PixelFormat.YUV444, 8),
    VideoFormat(17, 16, PixelFormat.YUV444, 10),
    VideoFormat(16, 17, PixelFormat.RGB, 8),
]


def noise(format: VideoFormat, seed: int = 0) -> Frame:
    random = np.random.default_rng(seed)
    planes = tuple(random.integers(0, format.peak + 1, s, dtype=np.uint16) for s in format.plane_shapes)
    return Frame(planes, format)


@pytest.mark.parametrize(
    "frame_type, n_references, n_residue, n_motion",
    [(FrameType.I, 0, 3, 0), (FrameType.P, 1, 4, 2), (FrameType.B, 2, 5, 4)],
)
def test_frame_types_know_their_outputs(frame_type, n_references, n_residue, n_motion):
    found = (frame_type.n_references, frame_type.n_residue, frame_type.n_motion)
    assert found == (n_references, n_residue, n_motion)


@pytest.mark.parametrize(
    "pixel_format, chroma",
    [(PixelFormat.YUV420, (9, 10)), (PixelFormat.YUV444, (17, 19)), (PixelFormat.RGB, (17, 19))],
)
def test_plane_shapes(pixel_format, chroma):
    assert pixel_format.plane_shapes(17, 19) == ((17, 19), chroma, chroma)


@pytest.mark.parametrize(
    "height, width, depth, word",
    [
        (15, 64, 8, "64x15"),
        (64, 20000, 8, "20000x64"),
        (16384, 16384, 8, "pixels"),
        (64, 64, 12, "12"),
        (64, 64, 9, "9"),
    ],
)
def test_formats_out_of_bounds_are_refused(height, width, depth, word):
    with pytest.raises(ConfigError, match=word):
        VideoFormat(height, width, PixelFormat.YUV420, depth)


def test_format_counts():
    format = FORMATS[1]
    assert (format.peak, format.n_samples) == (1023, 17 * 19 + 2 * 9 * 10)
    assert VideoFormat(16, 16, PixelFormat.RGB, 8).peak == 255


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_tensor_round_trip_is_exact(format):
    frame = noise(format)
    picture = frame.as_tensor()
    assert Frame.from_tensor(picture, format) == frame
    if format.pixel_format.is_subsampled:
        assert set(picture) == {"y", "u", "v"}
        assert picture["u"].shape == (1, 1, *format.plane_shapes[1])
    else:
        assert picture.shape == (1, 3, format.height, format.width)


def test_from_tensor_rounds_and_clamps():
    format = VideoFormat(16, 16, PixelFormat.RGB, 8)
    picture = torch.full((1, 3, 16, 16), 0.5)
    picture[0, 1], picture[0, 2] = -1.0, 2.0
    planes = Frame.from_tensor(picture, format).planes
    assert [int(plane[0, 0]) for plane in planes] == [128, 0, 255]


def test_frames_are_equal_by_content():
    first, second = noise(FORMATS[0]), noise(FORMATS[0])
    assert first == second and first != noise(FORMATS[0], seed=1) and first != "frame"
    second.planes[2][3, 4] ^= 1
    assert first != second


def test_a_frame_of_the_wrong_shape_is_refused():
    planes = noise(FORMATS[0]).planes
    with pytest.raises(ConfigError, match=r"planes are uint16 \[8, 9\], .*; give arrays uint16 \[16, 18\], "):
        Frame((planes[1], planes[1], planes[2]), FORMATS[0])
    with pytest.raises(ConfigError, match="planes are int32"):
        Frame(tuple(plane.astype(np.int32) for plane in planes), FORMATS[0])


def test_color_defaults_to_unspecified():
    assert ColorInfo() == ColorInfo(primaries=2, transfer=2, matrix=2, range=0)


def test_pictures_and_files_need_no_torch():
    code = (
        "import sys, coolvid.picture.types, coolvid.picture.color, coolvid.picture.quality, coolvid.media, "
        "coolvid.media.container, coolvid.media.encoder; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
