"""What there is to code in a picture, counted before anything is trained."""

import math

import numpy as np
import pytest

from coolvid.picture.detail import detail
from coolvid.picture.types import Frame, PixelFormat, VideoFormat
from pictures import noise

FORMATS = [VideoFormat(24, 40, pixels, depth) for pixels in PixelFormat for depth in (8, 10)]


def picture(format, *planes):
    """Planes [h, w] in [0, 1]; those that are missing are flat."""
    flat = [np.full(shape, 0.5) for shape in format.plane_shapes]
    values = [*planes, *flat[len(planes) :]]
    return Frame(tuple((each * format.peak).round().astype(np.uint16) for each in values), format)


def wave(shape, k, amplitude):
    """One DCT coefficient of every 8x8 block: the k-th along each row."""
    return 0.5 + amplitude * np.cos(np.pi * (2 * np.arange(shape[1]) + 1) * k / 16) * np.ones(shape)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_a_flat_picture_has_none_and_noise_is_nothing_else(format):
    assert detail(picture(format), 1e-7) == 0
    n_blocks = sum(math.ceil(height / 8) * math.ceil(width / 8) for height, width in format.plane_shapes)
    assert 0.95 < detail(noise(format, 1)[0], 1e-7) / (63 * n_blocks) <= 1


@pytest.mark.parametrize("format", [f for f in FORMATS if f.pixel_format is not PixelFormat.RGB], ids=str)
@pytest.mark.parametrize("k", [1, 4, 7])
def test_a_coefficient_counts_where_it_is_worth_six_bits(format, k):
    shape = format.plane_shapes[0]
    samples_per_pixel = sum(np.prod(each) for each in format.plane_shapes) / np.prod(shape)
    wanted = 0.1**2 * 32 / samples_per_pixel / 6  # a block of that wave has the energy 32 amplitude^2
    frame = picture(format, wave(shape, k, 0.1))
    assert [detail(frame, wanted * factor) for factor in (0.9, 1.1)] == [shape[0] * shape[1] // 64, 0]


def test_rgb_counts_what_all_colours_share_once():
    format = VideoFormat(16, 16, PixelFormat.RGB, 8)
    grey = wave((16, 16), 3, 0.2)
    assert detail(picture(format, grey, grey, grey), 1e-3) == 4
    assert detail(picture(format, grey, 1 - grey, np.full((16, 16), 0.5)), 1e-3) == 8  # two differences of colour


def test_incomplete_blocks_count():
    for width, n in ((16, 4), (17, 6), (24, 6)):
        format = VideoFormat(16, width, PixelFormat.YUV444, 8)
        assert detail(picture(format, wave((width, 16), 1, 0.1).T), 1e-4) == n
