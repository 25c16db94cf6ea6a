"""What is known about a file before its first frame: pixel formats, frame rates, names of raw files."""

from fractions import Fraction

import pytest

from coolvid.errors import InputError
from coolvid.media.layout import parse_name
from coolvid.media.pixels import nearest_format
from coolvid.media.timing import constant_rate
from coolvid.picture.types import PixelFormat

YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
MS, NTSC = Fraction(1, 1000), Fraction(30000, 1001)


@pytest.mark.parametrize(
    "name, taken",
    [
        ("yuv420p", "yuv420p"),
        ("yuvj444p", "yuvj444p"),
        ("gbrp10le", "gbrp10le"),
        ("yuv422p", "yuv444p"),
        ("yuvj422p", "yuvj444p"),
        ("yuv422p10le", "yuv444p10le"),
        ("yuv420p10be", "yuv420p10le"),
        ("yuv420p9le", "yuv420p10le"),
        ("yuv411p", "yuv444p"),
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p10le"),
        ("yuva420p", "yuv420p"),
        ("rgba", "rgb24"),
        ("bgr24", "rgb24"),
        ("pal8", "rgb24"),
        ("gray", "gray"),
        ("ya8", "gray"),
        ("monob", "gray"),
    ],
)
def test_nearest_format(name, taken):
    assert nearest_format(name) == taken


@pytest.mark.parametrize("name", ["yuv420p12le", "rgb48be", "gray16le", "gbrpf32le", "p016le"])
def test_more_than_ten_bits_are_refused(name):
    with pytest.raises(InputError, match=f"{name}.*convert"):
        nearest_format(name)


@pytest.mark.parametrize(
    "stamps, base, candidates, rate",
    [
        ([0, 33, 67, 100, 133], MS, (NTSC,), NTSC),
        ([0, 33, 67, 100, 133], MS, (Fraction(25), None, Fraction(30)), Fraction(30)),
        ([7, 8, 9, 10], Fraction(1, 25), (), Fraction(25)),
        ([0, 1001, 2002, 3003], Fraction(1, 30000), (), NTSC),
        ([0, 40, 80, 160], MS, (Fraction(25),), None),
        ([0, 1, 3], Fraction(1, 25), (Fraction(25),), None),
        ([5, 5, 5, 5], MS, (), None),
        ([0, 133], MS, (NTSC,), None),
        ([0, 8, 17, 25, 33], MS, (Fraction(29011, 242),), Fraction(120000, 1001)),
        ([0, 4, 8, 13, 17], MS, (Fraction(240),), Fraction(240)),
        ([0, 1, 2, 3], Fraction(1001, 120000), (Fraction(120), Fraction(120000, 1001)), Fraction(120000, 1001)),
    ],
)
def test_constant_rate(stamps, base, candidates, rate):
    if rate is None:
        with pytest.raises(InputError, match="variable"):
            constant_rate(stamps, base, candidates)
    else:
        assert constant_rate(stamps, base, candidates) == rate


def test_long_files_do_not_drift_into_a_wrong_rate():
    stamps = [round(i * 1001 / 30) for i in range(3000)]
    assert constant_rate(stamps, MS, (Fraction(30), NTSC)) == NTSC


@pytest.mark.parametrize(
    "stem, size, fps, pixel_format, depth",
    [
        ("city_352x288_30p_yuv420_8b", (352, 288), Fraction(30), YUV420, 8),
        ("a_b_c_67x45_29.97p_yuv444_10b", (67, 45), NTSC, YUV444, 10),
        ("x_64x48_23.976p_rgb_8b", (64, 48), Fraction(24000, 1001), RGB, 8),
        ("x_64x48_12.5p_yuv420p10le", (64, 48), Fraction(25, 2), YUV420, 10),
        ("x_64x48", (64, 48), None, None, None),
        ("64x48_30p", None, Fraction(30), None, None),
        ("holiday", None, None, None, None),
    ],
)
def test_names(stem, size, fps, pixel_format, depth):
    name = parse_name(stem)
    assert (name.size, name.fps, name.pixel_format, name.bit_depth) == (size, fps, pixel_format, depth)
