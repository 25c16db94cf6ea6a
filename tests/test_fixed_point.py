"""Integer arithmetic of the decoder: tables of the extremes, and the bound that keeps accumulators in int32."""

import numpy as np
import pytest

from coolvid.codec.fixed_point import (
    INT16_MAX,
    INT16_MIN,
    ROW_BITS,
    FixedPoint,
    align_bias,
    choose_bits,
    fit_weights,
    matmul_exact,
    saturate16,
    shift_round,
    unit,
)

SHIFTS = [
    (5, 1, 3),
    (-5, 1, -2),
    (-3, 1, -1),
    (4, 3, 1),
    (3, 3, 0),
    (-4, 3, 0),
    (-5, 3, -1),
    (7, 0, 7),
    (7, -2, 28),
    (-7, -2, -28),
    (1, -62, 1 << 62),
    (1 << 40, -40, 1 << 62),
    (-(1 << 40), -40, -(1 << 62)),
    (1, -200, 1 << 62),
    ((1 << 31) - 1, 31, 1),
]


@pytest.mark.parametrize("x, shift, expected", SHIFTS)
def test_shift_round_halves_go_up_and_left_shifts_are_limited(x, shift, expected):
    assert shift_round(np.array([x]), shift).tolist() == [expected]


def test_saturate16_clamps_to_int16():
    x = np.array([-(1 << 40), INT16_MIN - 1, INT16_MIN, 0, INT16_MAX, INT16_MAX + 1, 1 << 40])
    assert saturate16(x).tolist() == [INT16_MIN] * 3 + [0] + [INT16_MAX] * 3
    assert saturate16(x).dtype == np.int32


@pytest.mark.parametrize("shift, expected", [(0, 1), (8, 256), (13, 8192), (-1, 1), (-2, 0), (-20, 0)])
def test_unit_is_one_at_the_weights_shift(shift, expected):
    assert unit(shift) == expected


def test_weights_that_fit_are_left_alone():
    weight = FixedPoint(np.array([[100, -200], [300, 16083]], np.int32), 9)
    fitted = fit_weights(weight)
    assert fitted.shift == 9
    assert np.array_equal(fitted.values, weight.values)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("magnitude", [1, 1000, (1 << 23) - 1])
@pytest.mark.parametrize("shape", [(2, 104), (5, 3, 3, 3), (1, 16), (8, 64, 7, 7)])
@pytest.mark.parametrize("shift", [0, 12, 31])
def test_no_accumulator_leaves_int32(shape, magnitude, extra, shift):
    """Largest weights times largest inputs, plus the residual's unit, plus the largest bias, plus the rounding half."""
    signs = np.random.default_rng(0).choice([-1, 1], shape)
    fitted = fit_weights(FixedPoint((magnitude * signs).astype(np.int32), shift), extra)
    rows = np.abs(fitted.values.reshape(shape[0], -1).astype(np.int64)).sum(axis=1) + extra * unit(fitted.shift)
    assert rows.max() <= (1 << ROW_BITS) + fitted.values[0].size // 2
    assert int(rows.max()) * -INT16_MIN + 2 * (1 << 29) < 1 << 31


@pytest.mark.parametrize(
    "row, shift, least, expected",
    [([1, -2], 0, 8, 8), ([1, -2], 10, 8, 10), ([4000, 0], 0, 8, 2), ([1 << 15, 0], 3, 8, 1), ([0, 0], 0, 8, 8)],
)
def test_coarse_weights_are_raised_as_far_as_rows_allow(row, shift, least, expected):
    fitted = fit_weights(FixedPoint(np.array([row], np.int32), shift), least=least)
    assert fitted.shift == expected
    assert np.array_equal(fitted.as_float(), np.ldexp([row], -shift))


def test_fitting_keeps_the_value_of_the_weight():
    weight = FixedPoint(np.array([[1 << 22, -(1 << 21), 12345]], np.int32), 12)
    fitted = fit_weights(weight)
    assert np.abs(fitted.as_float() - weight.as_float()).max() <= 0.5 * 2.0**-fitted.shift


@pytest.mark.parametrize(
    "value, shift, bits, expected",
    [(3, 1, 4, 24), (3, 4, 1, 0), (8, 4, 2, 2), ((1 << 23) - 1, 0, 46, 1 << 29), (1 - (1 << 23), 0, 46, -(1 << 29))],
)
def test_align_bias(value, shift, bits, expected):
    assert align_bias(FixedPoint(np.array([value], np.int32), shift), bits).tolist() == [expected]


def test_matmul_is_exact():
    rng = np.random.default_rng(1)
    weight = rng.integers(-(1 << 13), 1 << 13, (4, 64))
    x = rng.integers(INT16_MIN, INT16_MAX + 1, (64, 10))
    assert np.array_equal(matmul_exact(weight, x), weight @ x)


@pytest.mark.parametrize(
    "peak, bits, expected",
    [(0, 10, 15), (29490, 0, 0), (29491, 0, 0), (1 << 30, 0, 0), (1 << 10, 10, 14), (917, 10, 15), (1 << 20, 10, 4)],
)
def test_choose_bits_leaves_headroom(peak, bits, expected):
    assert choose_bits(np.array([peak, -peak]), bits) == expected
