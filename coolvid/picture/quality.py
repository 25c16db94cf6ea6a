"""Quality and rate of decoded pictures: PSNR, SSIM, MS-SSIM, bits per pixel, Bjontegaard delta rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError

from .types import Frame, VideoFormat

Floats = NDArray[np.float64]

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = (SSIM_TAPS - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1
"""The smallest side, in pixels, whose coarsest scale still holds a whole window."""


@dataclass(frozen=True)
class SequenceQuality:
    """The quality of a decoded video.

    psnr_db: over all samples of all frames (the PSNR of the mean squared error, not the mean of PSNRs); psnr_planes_db:
    the same for each plane. ssim, ms_ssim: means over frames; ms_ssim is None for pictures below MS_SSIM_MIN_SIDE.
    """

    n_frames: int
    psnr_db: float
    psnr_planes_db: tuple[float, float, float]
    ssim: float
    ms_ssim: float | None


def mse(a: Frame, b: Frame) -> float:
    """Mean squared error on [0, 1] over all samples of all planes, each sample with the same weight."""
    _check_pair(a, b)
    return sum(_squared_errors(a, b)) / (a.format.n_samples * a.format.peak**2)


def psnr(a: Frame, b: Frame) -> float:
    """PSNR in dB over all samples of all planes; infinite when the frames are equal."""
    return _decibels(mse(a, b))


def psnr_planes(a: Frame, b: Frame) -> tuple[float, float, float]:
    """PSNR in dB of each plane, in the frame's order; infinite where equal."""
    _check_pair(a, b)
    errors = zip(_squared_errors(a, b), a.planes, strict=True)
    first, second, third = (_decibels(error / (plane.size * a.format.peak**2)) for error, plane in errors)
    return first, second, third


def ssim(a: Frame, b: Frame) -> float:
    """Mean structural similarity of the first plane (luma; red for RGB), 1 when equal.

    Gaussian window of 11 taps, sigma 1.5, whole windows only, K1 = 0.01, K2 = 0.03 (Wang et al., IEEE Transactions on
    Image Processing 13(4), 2004). The window shrinks to the size of a smaller picture.
    """
    luminance, contrast = _similarity(*_first_planes(a, b))
    return float(np.mean(luminance * contrast))


def ms_ssim(a: Frame, b: Frame) -> float:
    """Structural similarity of the first plane over five scales, 1 when equal, 0 at the least.

    Contrast and structure of every scale and luminance of the coarsest, each mean to the power of its published
    weight; each scale averages 2x2 samples of the one before, with the last column or row repeated where the size
    is odd; the windows are those of ssim() (Wang, Simoncelli and Bovik, Asilomar 2003). A negative mean counts as 0.
    Raises ConfigError below MS_SSIM_MIN_SIDE pixels: fewer scales would be another measure.
    """
    x, y = _first_planes(a, b)
    if min(x.shape) < MS_SSIM_MIN_SIDE:
        raise ConfigError(
            f"MS-SSIM of {a.width}x{a.height} pixels: five scales need {MS_SSIM_MIN_SIDE} pixels a side; use SSIM"
        )
    result = 1.0
    for weight in MS_SSIM_WEIGHTS[:-1]:
        result *= max(0.0, float(np.mean(_similarity(x, y)[1]))) ** weight
        x, y = _halve(x), _halve(y)
    luminance, contrast = _similarity(x, y)
    return float(result * max(0.0, float(np.mean(luminance * contrast))) ** MS_SSIM_WEIGHTS[-1])


def sequence_quality(pairs: Iterable[tuple[Frame, Frame]]) -> SequenceQuality:
    """Quality of a video given as (source, decoded) frame after frame. Raises ConfigError when there is no frame."""
    errors, similarities, multiscale = [], [], []
    for a, b in pairs:
        _check_pair(a, b)
        format = a.format
        errors.append(_squared_errors(a, b))
        similarities.append(ssim(a, b))
        if min(a.height, a.width) >= MS_SSIM_MIN_SIDE:
            multiscale.append(ms_ssim(a, b))
    if not errors:
        raise ConfigError("the quality of 0 frames; give at least 1")
    n, totals = len(errors), [sum(plane) for plane in zip(*errors, strict=True)]
    sizes = [height * width for height, width in format.plane_shapes]
    first, second, third = (_decibels(t / (n * size * format.peak**2)) for t, size in zip(totals, sizes, strict=True))
    pooled = _decibels(sum(totals) / (n * format.n_samples * format.peak**2))
    ms = sum(multiscale) / n if multiscale else None
    return SequenceQuality(n, pooled, (first, second, third), sum(similarities) / n, ms)


def bpp(n_bytes: int, format: VideoFormat, n_frames: int = 1) -> float:
    """Bits per pixel: per luma sample, over all frames."""
    if n_frames < 1:
        raise ConfigError(f"bits per pixel of {n_frames} frames; give at least 1")
    return 8 * n_bytes / (format.height * format.width * n_frames)


def bd_rate(
    rates_a: Sequence[float], psnrs_a: Sequence[float], rates_b: Sequence[float], psnrs_b: Sequence[float]
) -> float:
    """Average rate of b relative to a at equal quality, in percent; negative when b needs less.

    log10(rate) as a function of PSNR is interpolated by monotone cubics (Fritsch and Carlson; the PCHIP of JCT-VC
    common test conditions) and averaged over the PSNRs both curves reach (VCEG-M33). Points may come in any order.
    Raises ConfigError for fewer than two points, repeated PSNRs, rates not above 0, or curves without overlap.
    """
    curve_a, curve_b = _curve(rates_a, psnrs_a), _curve(rates_b, psnrs_b)
    low = max(curve_a[0][0], curve_b[0][0])
    high = min(curve_a[0][-1], curve_b[0][-1])
    if not low < high:
        ranges = " and ".join(f"{x[0]:.2f}..{x[-1]:.2f}" for x, _ in (curve_a, curve_b))
        raise ConfigError(f"the curves share no PSNR range: {ranges} dB; code both at overlapping qualities")
    difference = _integral(*curve_b, low, high) - _integral(*curve_a, low, high)
    return float(100 * (10 ** (difference / (high - low)) - 1))


def _check_pair(a: Frame, b: Frame) -> None:
    if a.format != b.format:
        raise ConfigError(f"frames of different formats cannot be compared: {a.format} and {b.format}")


def _squared_errors(a: Frame, b: Frame) -> tuple[int, ...]:
    """Sum of squared differences of code values per plane, exact."""
    differences = (x.astype(np.int64) - y for x, y in zip(a.planes, b.planes, strict=True))
    return tuple(int(np.square(d).sum()) for d in differences)


def _decibels(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def _first_planes(a: Frame, b: Frame) -> tuple[Floats, Floats]:
    """The first plane of both frames on [0, 1]."""
    _check_pair(a, b)
    x, y = (frame.planes[0].astype(np.float64) / frame.format.peak for frame in (a, b))
    return x, y


def _similarity(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(luminance, contrast times structure) of every window of two planes on [0, 1]."""
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x) - mean_x**2 + _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), (2 * covariance + c2) / (variances + c2)


def _halve(plane: Floats) -> Floats:
    """Means of the 2x2 blocks of [H, W], the last row or column repeated where the size is odd."""
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    means: Floats = (even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]) / 4
    return means


def _blur(plane: Floats) -> Floats:
    """Gaussian mean of every whole window of [H, W]."""
    for axis in (0, 1):
        plane = _blur_axis(plane, axis)
    return plane


def _blur_axis(plane: Floats, axis: int) -> Floats:
    n_taps = min(SSIM_TAPS, plane.shape[axis])
    position = np.arange(n_taps) - (n_taps - 1) / 2
    taps = np.exp(-(position**2) / (2 * SSIM_SIGMA**2))
    windows = np.lib.stride_tricks.sliding_window_view(plane, n_taps, axis=axis)
    blurred: Floats = windows @ (taps / taps.sum())
    return blurred


def _curve(rates: Sequence[float], psnrs: Sequence[float]) -> tuple[Floats, Floats]:
    """(PSNRs increasing, log10 of their rates), checked."""
    if len(rates) != len(psnrs) or len(rates) < 2:
        raise ConfigError(f"a rate curve needs two or more points: {len(rates)} rates and {len(psnrs)} PSNRs given")
    x, rate = np.asarray(psnrs, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(rate).all() and (rate > 0).all()):
        raise ConfigError(f"a rate curve needs positive rates and finite PSNRs: {list(rates)} at {list(psnrs)} dB")
    order = np.argsort(x)
    x, rate = x[order], rate[order]
    if not (np.diff(x) > 0).all():
        raise ConfigError(f"a rate curve needs a different PSNR at each point: {x.tolist()} dB")
    return x, np.log10(rate)


def _slopes(x: Floats, y: Floats) -> Floats:
    """Derivatives at the knots that keep a cubic Hermite spline monotone (Fritsch and Butland, 1984)."""
    h = np.diff(x)
    delta = np.diff(y) / h
    if len(delta) == 1:
        return np.repeat(delta, 2)
    slopes = np.zeros_like(x)
    agree = delta[1:] * delta[:-1] > 0
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (w1 + w2) / (w1 / delta[:-1] + w2 / delta[1:])
    slopes[1:-1][agree] = harmonic[agree]
    slopes[0] = _end_slope(h[0], h[1], delta[0], delta[1])
    slopes[-1] = _end_slope(h[-1], h[-2], delta[-1], delta[-2])
    return slopes


def _end_slope(h0: float, h1: float, delta0: float, delta1: float) -> float:
    """One-sided three-point derivative, limited so that the spline keeps the data's shape."""
    slope = ((2 * h0 + h1) * delta0 - h0 * delta1) / (h0 + h1)
    if slope * delta0 <= 0:
        return 0.0
    if delta0 * delta1 <= 0 and abs(slope) > 3 * abs(delta0):
        return float(3 * delta0)
    return float(slope)


def _integral(x: Floats, y: Floats, low: float, high: float) -> float:
    """Integral from low to high of the monotone cubic through (x, y), exact up to rounding."""
    slopes = _slopes(x, y)
    total = 0.0
    for i, h in enumerate(np.diff(x)):
        start, end = max(x[i], low) - x[i], min(x[i + 1], high) - x[i]
        if start >= end:
            continue
        delta = (y[i + 1] - y[i]) / h
        c2 = (3 * delta - 2 * slopes[i] - slopes[i + 1]) / h
        c3 = (slopes[i] + slopes[i + 1] - 2 * delta) / h**2
        primitive = np.polynomial.Polynomial([0, y[i], slopes[i] / 2, c2 / 3, c3 / 4])
        total += float(primitive(end) - primitive(start))
    return total
