"""Metrics against values worked out by hand, and against their own definitions written differently."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from coolvid.errors import ConfigError, CoolvidError, InputError, MissingExtra
from coolvid.picture.quality import (
    MS_SSIM_MIN_SIDE,
    bd_rate,
    bpp,
    ms_ssim,
    mse,
    psnr,
    psnr_planes,
    sequence_quality,
    ssim,
)
from coolvid.picture.types import Frame, PixelFormat, VideoFormat
from coolvid.study.vmaf import find_ffmpeg, vmaf

FORMAT = VideoFormat(16, 32, PixelFormat.YUV420, 8)
RATES = [100.0, 200.0, 400.0, 800.0]
PSNRS = [30.0, 33.0, 36.5, 39.0]


def flat(*values: int, format: VideoFormat = FORMAT) -> Frame:
    planes = tuple(np.full(s, v, np.uint16) for s, v in zip(format.plane_shapes, values, strict=True))
    return Frame(planes, format)


def noise(seed: int, format: VideoFormat = FORMAT) -> Frame:
    random = np.random.default_rng(seed)
    return Frame(tuple(random.integers(0, format.peak + 1, s, dtype=np.uint16) for s in format.plane_shapes), format)


def test_equal_frames():
    a = noise(0)
    assert (mse(a, a), psnr(a, a), psnr_planes(a, a)) == (0.0, math.inf, (math.inf,) * 3)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_every_sample_of_420_weighs_the_same():
    a, b = flat(100, 100, 100), flat(102, 104, 100)
    pooled = (4 * 512 + 16 * 128) / (512 + 2 * 128) / 255**2
    assert mse(a, b) == pytest.approx(pooled, rel=1e-12)
    assert psnr(a, b) == pytest.approx(-10 * math.log10(pooled), rel=1e-12)
    expected = (20 * math.log10(255 / 2), 20 * math.log10(255 / 4), math.inf)
    assert psnr_planes(a, b) == pytest.approx(expected)


def test_ten_bits_have_their_own_peak():
    format = VideoFormat(16, 32, PixelFormat.YUV444, 10)
    assert psnr(flat(0, 0, 0, format=format), flat(1023, 1023, 1023, format=format)) == pytest.approx(0.0)


def test_ssim_is_its_definition():
    a, b = noise(1), noise(2)
    x, y = (f.planes[0] / 255 for f in (a, b))
    position = np.arange(11) - 5
    window = np.exp(-(position[:, None] ** 2 + position**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(16 - 10):
        for j in range(32 - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            c = (window * (p - mp) * (q - mq)).sum()
            luminance, structure = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4), (2 * c + 9e-4) / (vp + vq + 9e-4)
            values.append(luminance * structure)
    assert ssim(a, b) == pytest.approx(np.mean(values), rel=1e-9)


def test_ssim_sees_structure_more_than_brightness():
    a = noise(3)
    brighter = Frame((np.minimum(a.planes[0] + 10, 255).astype(np.uint16), *a.planes[1:]), FORMAT)
    assert ssim(a, noise(4)) < 0.1 < 0.9 < ssim(a, brighter) < 1


def test_bpp():
    assert bpp(64, FORMAT) == 1.0
    assert bpp(64, FORMAT, n_frames=4) == 0.25
    with pytest.raises(ConfigError, match="0 frames"):
        bpp(64, FORMAT, n_frames=0)


@pytest.mark.parametrize("compare", [mse, psnr, psnr_planes, ssim, ms_ssim])
def test_frames_of_different_formats_are_not_compared(compare):
    with pytest.raises(ConfigError, match="different formats"):
        compare(noise(0), noise(0, VideoFormat(16, 32, PixelFormat.YUV444, 8)))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3])
def test_bd_rate_of_a_scaled_curve_is_the_scale(factor):
    scaled = [rate * factor for rate in RATES]
    assert bd_rate(RATES, PSNRS, scaled, PSNRS) == pytest.approx(100 * (factor - 1), abs=1e-9)


def test_bd_rate_takes_points_in_any_order():
    assert bd_rate(RATES[::-1], PSNRS[::-1], RATES, PSNRS) == pytest.approx(0, abs=1e-9)


def test_bd_rate_there_and_back_cancels():
    other = [95.0, 170.0, 390.0, 700.0], [30.5, 33.1, 36.0, 39.5]
    there, back = bd_rate(RATES, PSNRS, *other), bd_rate(*other, RATES, PSNRS)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1, rel=1e-9)


def test_bd_rate_of_straight_lines():
    """Straight lines stay straight between their points: 10 ** (mean difference of log10 rates) over 31..39 dB."""
    a, b = ([10, 1000], [30, 40]), ([100, 1000], [31, 39])
    mean_a, mean_b = 1 + 2 * (35 - 30) / 10, 2.5
    assert bd_rate(*a, *b) == pytest.approx(100 * (10 ** (mean_b - mean_a) - 1))


def test_bd_rate_of_a_curve_worked_out_by_hand():
    """Knots (0, 0), (1, 1), (2, 4) have the slopes 0, 3/2 and 4 by the rules of PCHIP."""
    a, b = ([1, 1, 1], [0, 1, 2]), ([1, 10, 10**4], [0, 1, 2])
    first = 1 / 2 + (0 - 1.5) / 12  # Hermite: h (y0 + y1) / 2 + h^2 (d0 - d1) / 12
    second = (1 + 4) / 2 + (1.5 - 4) / 12
    assert bd_rate(*a, *b) == pytest.approx(100 * (10 ** ((first + second) / 2) - 1))


@pytest.mark.parametrize(
    "rates, psnrs, word",
    [
        ([1.0], [30.0], "two or more"),
        ([1.0, 2.0], [30.0, 31.0, 32.0], "two or more"),
        ([0.0, 2.0], [30.0, 39.0], "positive"),
        ([1.0, 2.0], [30.0, math.inf], "finite"),
        ([1.0, 2.0], [33.0, 33.0], "different"),
        ([1.0, 2.0], [40.0, 45.0], "share no PSNR"),
    ],
)
def test_curves_that_cannot_be_compared(rates, psnrs, word):
    with pytest.raises(ConfigError, match=word):
        bd_rate(RATES, PSNRS, rates, psnrs)


LARGE = VideoFormat(176, 192, PixelFormat.YUV420, 8)


def checkerboard(high: int, low: int, format: VideoFormat = LARGE) -> Frame:
    y = np.where(np.indices(format.plane_shapes[0]).sum(axis=0) % 2, high, low).astype(np.uint16)
    chroma = np.full(format.plane_shapes[1], 128, np.uint16)
    return Frame((y, chroma, chroma), format)


def test_ms_ssim_of_flat_pictures_is_the_luminance_of_the_coarsest_scale():
    a, b = flat(100, 0, 0, format=LARGE), flat(150, 0, 0, format=LARGE)
    x, y = 100 / 255, 150 / 255
    assert ms_ssim(a, b) == pytest.approx(((2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)) ** 0.1333, rel=1e-12)


def test_ms_ssim_of_checkerboards_is_the_contrast_of_the_finest_scale():
    """Means of 2x2 are flat and equal, so all other scales are 1; a whole window sees amplitudes and no phase."""
    a, b = checkerboard(160, 100), checkerboard(150, 110)
    assert ms_ssim(a, a) == pytest.approx(1, rel=1e-12)
    p, q = 30 / 255, 20 / 255
    expected = (2 * p * q + 9e-4) / (p**2 + q**2 + 9e-4)
    assert ms_ssim(a, b) == pytest.approx(expected**0.0448, rel=1e-6)
    assert ms_ssim(a, checkerboard(100, 160)) == 0.0


def test_ms_ssim_of_noise():
    """The figure of pytorch-msssim 1.0.0 for the same pictures."""
    a = noise(5, LARGE)
    step = np.random.default_rng(6).integers(-40, 41, a.planes[0].shape)
    b = Frame((np.clip(a.planes[0] + step, 0, 255).astype(np.uint16), *a.planes[1:]), LARGE)
    assert ms_ssim(a, b) == pytest.approx(0.9635975, abs=1e-6)


def test_ms_ssim_needs_five_scales():
    small = VideoFormat(MS_SSIM_MIN_SIDE - 1, 400, PixelFormat.YUV444, 8)
    enough = VideoFormat(MS_SSIM_MIN_SIDE, 400, PixelFormat.YUV444, 8)
    assert ms_ssim(noise(0, enough), noise(0, enough)) == pytest.approx(1)
    with pytest.raises(ConfigError, match="161 pixels"):
        ms_ssim(noise(0, small), noise(0, small))


def test_quality_of_a_sequence_pools_errors_and_averages_similarities():
    a, b, c = noise(1), noise(2), noise(3)
    found = sequence_quality([(a, b), (a, a), (a, c)])
    assert found.n_frames == 3
    assert found.psnr_db == pytest.approx(-10 * math.log10((mse(a, b) + mse(a, c)) / 3))
    assert found.psnr_planes_db == pytest.approx(
        tuple(-10 * math.log10((10 ** (-p / 10) + 10 ** (-q / 10)) / 3)
              for p, q in zip(psnr_planes(a, b), psnr_planes(a, c), strict=True))
    )  # fmt: skip
    assert found.ssim == pytest.approx((ssim(a, b) + 1 + ssim(a, c)) / 3)
    assert found.ms_ssim is None
    assert sequence_quality([(noise(1, LARGE),) * 2]).ms_ssim == pytest.approx(1)
    with pytest.raises(ConfigError, match="0 frames"):
        sequence_quality([])


def fake_ffmpeg(path, filters, body="exit 1"):
    path.write_text(f'#!/bin/sh\ncase "$*" in *-filters*) echo "{filters}"; exit 0;; esac\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def no_packaged_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    find_ffmpeg.cache_clear()
    yield tmp_path
    find_ffmpeg.cache_clear()


def test_vmaf_says_what_to_install(no_packaged_ffmpeg):
    fake_ffmpeg(no_packaged_ffmpeg / "ffmpeg", " .. scale  V->V ")
    with pytest.raises(MissingExtra, match=r"coolvid\[vmaf\].*ffmpeg lacks it"):
        find_ffmpeg()
    (no_packaged_ffmpeg / "ffmpeg").unlink()
    with pytest.raises(MissingExtra, match="cannot run"):
        vmaf([noise(0)], [noise(0)], Fraction(25), str(no_packaged_ffmpeg / "ffmpeg"))


def test_vmaf_reads_the_log_of_ffmpeg_and_passes_on_its_complaints(no_packaged_ffmpeg):
    """Both files must be there, whole, when the program runs."""
    program = no_packaged_ffmpeg / "ffmpeg"
    log = '{"pooled_metrics": {"vmaf": {"mean": 81.25}}}'
    check = "cmp -s source.y4m decoded.y4m && exit 1; test $(wc -c < source.y4m) -gt 1536 || exit 1"
    fake_ffmpeg(program, " .. libvmaf  VV->V ", f"{check}; echo '{log}' > vmaf.json")
    assert find_ffmpeg() == str(program)
    assert vmaf([noise(0), noise(1)], [noise(2), noise(3)], Fraction(25)) == 81.25
    fake_ffmpeg(program, " .. libvmaf  VV->V ", "echo no model here >&2; exit 1")
    with pytest.raises(CoolvidError, match="no model here"):
        vmaf([noise(0)], [noise(1)], Fraction(25))


def test_vmaf_is_for_luma_and_for_frames():
    rgb = VideoFormat(16, 32, PixelFormat.RGB, 8)
    with pytest.raises(InputError, match="RGB"):
        vmaf([noise(0, rgb)], [noise(0, rgb)], Fraction(25), "/bin/false")
    with pytest.raises(InputError, match="at least 1 frame"):
        vmaf([], [], Fraction(25), "/bin/false")


def test_vmaf_of_a_real_ffmpeg():
    try:
        find_ffmpeg()
    except MissingExtra as error:
        pytest.skip(str(error))
    a, b = noise(5, LARGE), flat(128, 128, 128, format=LARGE)
    same, other = (vmaf([a, a], [x, x], Fraction(25)) for x in (a, b))
    assert same > 90 > 20 > other
