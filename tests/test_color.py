"""The door between files' planes and dense pictures."""

import numpy as np
import pytest
import torch

from coolvid.errors import ConfigError
from coolvid.picture.color import DENSE_BITS, dense_planes, finish, from_dense, to_dense
from coolvid.picture.types import Frame, PixelFormat, VideoFormat

FORMATS = [
    VideoFormat(height, width, pixel_format, depth)
    for height, width in ((16, 18), (17, 18), (16, 19), (17, 19))
    for pixel_format in PixelFormat
    for depth in (8, 10)
]


def noise(format: VideoFormat) -> Frame:
    random = np.random.default_rng(format.n_samples)
    planes = tuple(random.integers(0, format.peak + 1, s, dtype=np.uint16) for s in format.plane_shapes)
    return Frame(planes, format)


def dense_noise(format: VideoFormat, dtype=np.int32) -> np.ndarray:
    random = np.random.default_rng(format.n_samples)
    return random.integers(
        -(30 << DENSE_BITS), (format.peak + 30) << DENSE_BITS, (3, format.height, format.width), dtype
    )


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_files_to_dense_and_back_is_exact(format):
    frame = noise(format)
    dense = dense_planes(frame)
    assert dense.dtype == np.int32 and dense.shape == (3, format.height, format.width)
    assert finish(dense << DENSE_BITS, format) == frame


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_float_way_to_dense_and_back_is_exact(format):
    frame = noise(format)
    dense = to_dense(frame.as_tensor())
    assert dense.shape == (1, 3, format.height, format.width)
    np.testing.assert_array_equal((dense[0].double() * format.peak).round().numpy(), dense_planes(frame))
    assert Frame.from_tensor(from_dense(dense, format.pixel_format), format) == frame


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_finish_agrees_with_exact_means_rounded_once(format, dtype):
    dense = dense_noise(format, dtype)
    picture = from_dense(torch.from_numpy(dense[None] / 2.0**DENSE_BITS), format.pixel_format)
    parts = [picture[k] for k in "yuv"] if format.pixel_format.is_subsampled else list(picture.split(1, dim=1))
    for plane, exact in zip(finish(dense, format).planes, parts, strict=True):
        rounded = np.floor(exact[0, 0].numpy() + 0.5).clip(0, format.peak)
        np.testing.assert_array_equal(plane, rounded)


def test_chroma_is_averaged_before_it_is_rounded():
    format = VideoFormat(16, 16, PixelFormat.YUV420, 8)
    dense = np.zeros((3, 16, 16), dtype=np.int32)
    dense[1, :2, :2] = [[10 << 6, 31], [31, 31]]  # mean 2.863...; rounded first it would be 2.5 -> 3 or 2
    dense[2, :2, :2] = [[31, 31], [31, 35]]  # mean exactly one half: up
    frame = finish(dense, format)
    assert frame.planes[1][0, 0] == (640 + 93 + 128) >> 8 == 3
    assert frame.planes[2][0, 0] == 1


@pytest.mark.parametrize(
    "value, code", [(31, 0), (32, 1), (-33, 0), (255 << 6, 255), ((255 << 6) + 32, 255), (1 << 28, 255)]
)
def test_rounding_and_clamp(value, code):
    format = VideoFormat(16, 16, PixelFormat.RGB, 8)
    frame = finish(np.full((3, 16, 16), value, dtype=np.int32), format)
    assert all((plane == code).all() for plane in frame.planes)


def test_odd_edges_count_their_last_samples_twice():
    format = VideoFormat(17, 17, PixelFormat.YUV420, 8)
    dense = np.zeros((3, 17, 17), dtype=np.int32)
    dense[1, 15, 16], dense[1, 16, 16] = 0, 200 << DENSE_BITS
    dense[1, 14, 16] = 100 << DENSE_BITS
    assert finish(dense, format).planes[1][8, 8] == 200
    assert finish(dense, format).planes[1][7, 8] == 50


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"\(3, 16, 17\)"):
        finish(np.zeros((3, 16, 17), dtype=np.int32), VideoFormat(16, 16, PixelFormat.RGB, 8))


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_from_dense_has_the_right_gradient(size):
    dense = torch.rand(1, 3, *size, dtype=torch.float64, requires_grad=True)

    def parts(x):
        return tuple(from_dense(x, PixelFormat.YUV420)[k] for k in "yuv")

    assert torch.autograd.gradcheck(parts, dense)


def test_to_dense_leaves_dense_pictures_alone():
    picture = torch.rand(1, 3, 4, 4)
    assert to_dense(picture) is picture
    assert from_dense(picture, PixelFormat.RGB) is picture
