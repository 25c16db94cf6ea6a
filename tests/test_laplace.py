"""The probability model: floats against the plain formula, integers against their generator and the floats."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from coolvid.codec import laplace
from coolvid.errors import PluginError


@pytest.fixture(scope="module")
def table() -> laplace.Tables:
    return laplace.tables()


def test_the_shipped_table_is_what_the_generator_makes(table: laplace.Tables) -> None:
    assert np.array_equal(laplace.build_table(), table.frequencies)


def test_a_damaged_table_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "laplace.bin").write_bytes(laplace.TABLE_FILE.read_bytes()[:-1])
    monkeypatch.setattr(laplace, "TABLE_FILE", tmp_path / "laplace.bin")
    with pytest.raises(PluginError, match="install coolvid again"):
        laplace.tables.__wrapped__()


def test_rows_are_distributions(table: laplace.Tables) -> None:
    assert table.frequencies.shape == (laplace.N_SCALES * laplace.N_FRACTIONS, laplace.N_SYMBOLS)
    assert (table.frequencies.sum(axis=1) == 1 << laplace.PROBABILITY_BITS).all()
    assert table.frequencies.min() >= 0
    assert table.frequencies[:, laplace.ESCAPE].min() == 1
    assert unpacked_equal(table)


def test_middle_cells_cost_16_bits_at_most_except_where_values_are_sure(table: laplace.Tables) -> None:
    by_scale = table.frequencies.reshape(laplace.N_SCALES, laplace.N_FRACTIONS, laplace.N_SYMBOLS)
    middle = by_scale[:, :, laplace.REACH - 6 : laplace.REACH + 7]
    assert middle[8:].min() == 1
    assert (middle[:8].min(axis=(1, 2)) == 0).all()
    assert (by_scale[8, 16, [laplace.REACH - 7, laplace.REACH + 7]] == 0).all()


def unpacked_equal(table: laplace.Tables) -> bool:
    again = laplace.unpack_table(laplace.pack_table(table.frequencies))
    return np.array_equal(again.starts, table.starts) and again.shift_list == table.shift_list


def test_a_sure_zero_is_almost_free(table: laplace.Tables) -> None:
    row = laplace.rows(np.array([[0, -(9 << 16)]], np.int32))[1][0]
    assert -math.log2(table.frequencies[row, laplace.REACH] / 65536) < 1e-4


@pytest.mark.parametrize("scale", [10, 24, 40, 48])
@pytest.mark.parametrize("fraction", [0, 11, 16, 31])
def test_frequencies_are_the_laplace_masses(table: laplace.Tables, scale: int, fraction: int) -> None:
    b, mu = math.exp((scale - 40) / 8), (fraction - 16) / 32
    row = table.frequencies[32 * scale + fraction, laplace.REACH - 6 : laplace.REACH + 7]
    edges = np.arange(-6.5, 7) - mu
    masses = 65536 * np.diff(0.5 - np.copysign(0.5, edges) * np.expm1(-np.abs(edges) / b))
    lifted = np.maximum(masses, 1)
    largest = np.isclose(masses, masses.max()).argmax()  # the first of equals takes what is left over
    assert (np.abs(row - lifted)[np.arange(13) != largest] < 1).all()
    assert abs(row[largest] - masses[largest] + (masses < 0.5).sum()) < 8


@pytest.mark.parametrize(("scale", "limit"), [(0, 1e-4), (24, 0.002), (40, 0.002), (56, 0.01), (68, 0.03), (80, 0.03)])
def test_the_tables_cost_little_more_than_the_entropy(table: laplace.Tables, scale: int, limit: float) -> None:
    b, row = math.exp((scale - 40) / 8), 32 * scale + 16
    y = np.arange(-3000, 3001)
    cumulative = 0.5 - 0.5 * np.sign(y + 0.5) * np.expm1(-np.abs(y + 0.5) / b)
    mass = np.diff(cumulative, prepend=0)
    shift = table.shift_list[row]
    symbols = np.where(np.abs(y >> shift) <= laplace.REACH, (y >> shift) + laplace.REACH, laplace.ESCAPE)
    symbols = np.where(table.frequencies[row, symbols] > 0, symbols, laplace.ESCAPE)
    escape = np.where(symbols == laplace.ESCAPE, 2 * np.log2(2.0 * np.abs(y >> shift) + 1) + 1, 0)
    cost = 16 - np.log2(table.frequencies[row, symbols]) + shift + escape
    entropy = -(mass[mass > 0] * np.log2(mass[mass > 0])).sum()
    assert (mass * cost).sum() - entropy < limit


ROWS = [
    ((0, 4 << 16), (0, 40 * 32 + 16)),
    ((1 << 15, 4 << 16), (1, 40 * 32 + 0)),
    (((1 << 15) - (1 << 10) - 1, 4 << 16), (0, 40 * 32 + 31)),
    ((-(1 << 15), 4 << 16), (0, 40 * 32 + 0)),
    ((-(1 << 16) - (1 << 11), -(1 << 30)), (-1, 15)),
    ((1 << 30, 1 << 30), (1 << 14, 80 * 32 + 16)),
    ((-(1 << 31), -(1 << 31)), (-(1 << 15), 16)),
    (((1 << 31) - 1, (1 << 31) - 1), (1 << 15, 80 * 32 + 16)),
]


@pytest.mark.parametrize(("raw", "expected"), ROWS)
def test_rows_of_raw_outputs(raw: tuple[int, int], expected: tuple[int, int]) -> None:
    centre, row = laplace.rows(np.array([raw], np.int32))
    assert (int(centre[0]), int(row[0])) == expected
    assert centre.dtype == row.dtype == np.int32


def test_rows_against_exact_fractions() -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(-(1 << 20), 1 << 20, (300, 2)).astype(np.int32)
    centre, row = laplace.rows(raw)
    for i, (mu, log_scale) in enumerate(raw.tolist()):
        fine = math.floor(Fraction(mu, 1 << 11) + Fraction(1, 2))
        assert centre[i] == math.floor(Fraction(fine, 32) + Fraction(1, 2))
        k = math.floor(8 * (max(-5, min(5, Fraction(log_scale, 1 << 16) - 4)) + 5) + Fraction(1, 2))
        assert row[i] == 32 * k + fine - 32 * centre[i] + 16


def test_bits_of_the_plain_formula() -> None:
    y = torch.tensor([0.0, 1.0, -2.0, 7.0], dtype=torch.float64)
    mu = torch.tensor([0.1, 0.0, -1.3, 6.0], dtype=torch.float64)
    b = torch.tensor([0.5, 1.0, 2.0, 0.3], dtype=torch.float64)
    law = torch.distributions.Laplace(mu, b)
    expected = -(law.cdf(y + 0.5) - law.cdf(y - 0.5)).log2()
    assert torch.allclose(laplace.laplace_bits(y, mu, b), expected, rtol=1e-9)


def test_bits_are_bounded_and_finite_with_gradients() -> None:
    y = torch.tensor([0.0, 30000.0, -5.0, 0.5], requires_grad=True)
    mu = torch.tensor([0.0, -30000.0, 5.0, 0.0], requires_grad=True)
    b = torch.tensor([math.exp(-5), math.exp(-5), math.exp(5), 1.0], requires_grad=True)
    bits = laplace.laplace_bits(y, mu, b)
    assert bits.min() >= 0 and bits.max() <= 16
    bits.sum().backward()
    assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in (y, mu, b))


def test_gradients_of_bits() -> None:
    y = torch.tensor([0.3, -1.7, 2.2], dtype=torch.float64, requires_grad=True)
    mu = torch.tensor([0.1, 0.4, 2.1], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 1.1, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(laplace.laplace_bits, (y, mu, b))
