"""Latents <-> bytes: exact round trips, sizes near the tables' own, and damage that never escapes as anything else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from coolvid.bitstream import latents as coder
from coolvid.bitstream.latents import choose_substreams, decode_latents, encode_latents, latent_bits
from coolvid.codec.architecture import NEIGHBOURS, Grid, wave_delay
from coolvid.codec.fixed_point import Integers
from coolvid.errors import ConfigError, StreamError

N_FEATURES = 2


class FakeModel:
    """An entropy model that depends on every context, coarser grids included."""

    def __init__(self, n_context: int = 6) -> None:
        self.n_context = n_context
        self.seen: list[Integers] = []

    def features(self, index: int, latents: Sequence[Integers]) -> Integers:
        height, width = latents[index].shape
        sums = sum(int(np.abs(values).sum()) for values in latents[index + 1 :])
        return np.full((N_FEATURES, height, width), sums % 50, np.int32)

    def folded(self) -> None:
        """Only by calls."""

    def laplace(self, contexts: Integers) -> Integers:
        assert contexts.shape[1] == self.n_context + N_FEATURES and contexts.dtype == np.int32
        wide = contexts.astype(np.int64)
        mu = wide[:, 0] * 512 - wide[:, self.n_context - 1] * 128
        raw = np.abs(wide[:, : self.n_context]).sum(axis=1) * 225 + wide[:, -1] * 700
        return np.stack((np.clip(mu, -(1 << 30), 1 << 30), np.clip(raw, 0, 9 << 16)), axis=1).astype(np.int32)


def pyramid(height: int, width: int) -> list[Grid]:
    """Four normal grids and one hyper grid, finest first."""
    shapes = [(i, -(-height >> i), -(-width >> i), False) for i in range(4)]
    return [*(Grid(*shape) for shape in shapes), Grid(3, shapes[3][1], shapes[3][2], True)]


def draw(grids: Sequence[Grid], scale: float, seed: int = 0) -> tuple[Integers, ...]:
    rng = np.random.default_rng(seed)
    return tuple(np.round(rng.laplace(0, scale, grid.shape)).astype(np.int32) for grid in grids)


def assert_same(a: Sequence[Integers], b: Sequence[Integers]) -> None:
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("n_context", [1, 6, 14, 20, 40])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 19)])
def test_round_trip(size: tuple[int, int], n_context: int) -> None:
    grids, model = pyramid(*size), FakeModel(n_context)
    values = draw(grids, 0.7)
    assert_same(decode_latents(encode_latents(values, grids, model), grids, model), values)


@pytest.mark.parametrize("scale", [0.05, 1, 20, 300, 9000])
def test_round_trip_at_every_scale_and_near_the_ideal(scale: float) -> None:
    grids, model = pyramid(40, 48), FakeModel()
    values = tuple(np.clip(v, -32767, 32767) for v in draw(grids, scale))
    data = encode_latents(values, grids, model)
    assert_same(decode_latents(data, grids, model), values)
    bits = latent_bits(values, grids, model)
    assert [each.shape for each in bits] == [grid.shape for grid in grids]
    n_substreams = choose_substreams(len(data))
    assert -2 <= len(data) - sum(each.sum() for each in bits) / 8 <= 4 * n_substreams


def test_extreme_values() -> None:
    grids, model = pyramid(16, 16), FakeModel()
    values = tuple(np.full(grid.shape, 32767 * (-1) ** i, np.int32) for i, grid in enumerate(grids))
    assert_same(decode_latents(encode_latents(values, grids, model), grids, model), values)


def test_zeros_are_free() -> None:
    grids, model = pyramid(64, 64), FakeModel()
    zeros = tuple(np.zeros(grid.shape, np.int32) for grid in grids)
    assert encode_latents(zeros, grids, model) == b""
    assert not any(each.any() for each in latent_bits(zeros, grids, model))
    one = [z.copy() for z in zeros]
    one[2][3, 4] = 1
    data = encode_latents(one, grids, model)
    assert len(data) < 15
    assert_same(decode_latents(data, grids, model), one)


def test_golden_payload() -> None:
    grids, model = pyramid(16, 16), FakeModel()
    values = tuple((np.indices(grid.shape).sum(axis=0) % 7 == 3).astype(np.int32) for grid in grids)
    golden = bytes.fromhex(GOLDEN)
    assert encode_latents(values, grids, model).hex() == GOLDEN
    assert_same(decode_latents(golden, grids, model), values)


@pytest.mark.parametrize("n_substreams", [2, 4, 8])
def test_substreams(n_substreams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coder, "choose_substreams", lambda n: n_substreams)
    grids, model = pyramid(24, 26), FakeModel()
    values = draw(grids, 1.0)
    data = encode_latents(values, grids, model)
    assert 1 << (data[0] >> 6) == n_substreams
    assert_same(decode_latents(data, grids, model), values)
    for n in range(1, len(data), 37):
        with pytest.raises(StreamError):
            decode_latents(data[:n], grids, model)


def test_substreams_grow_with_the_payload() -> None:
    assert [choose_substreams(n) for n in (0, 8191, 8192, 16384, 32768, 1 << 30)] == [1, 1, 2, 4, 8, 8]


@pytest.mark.parametrize("n_context", range(1, 41))
def test_waves_follow_their_contexts(n_context: int) -> None:
    grid = Grid(0, 5, 9, False)
    grid_coder = coder._GridCoder(grid, 0, FakeModel(n_context), [np.zeros(grid.shape, np.int32)])
    order: dict[tuple[int, int], int] = {}
    for t, (row, column) in enumerate(grid_coder.waves()):
        assert (np.diff(row) > 0).all()
        order.update(dict.fromkeys(zip(row.tolist(), column.tolist(), strict=True), t))
    assert len(order) == 45
    assert list(order) == list(zip(*(a.tolist() for a in grid_coder.order()), strict=True))
    for (r, c), t in order.items():
        for dy, dx in NEIGHBOURS[:n_context]:
            assert order.get((r + dy, c + dx), -1) < t, (wave_delay(n_context), dy, dx)


def test_values_that_do_not_fit() -> None:
    grids, model = pyramid(16, 16), FakeModel()
    values = list(draw(grids, 1))
    values[0][0, 0] = 32768
    with pytest.raises(ConfigError, match="32767"):
        encode_latents(values, grids, model)
    with pytest.raises(ConfigError, match="shape"):
        encode_latents([v.T[:-1] for v in values], grids, model)


def refused(data: bytes, grids: Sequence[Grid], model: FakeModel) -> bool:
    """Whether decoding raises StreamError; any other error fails the test."""
    try:
        decode_latents(data, grids, model)
    except StreamError:
        return True
    return False


def test_damage_is_a_stream_error_or_unlikely() -> None:
    """A payload has no checksum of its own (its packet has): damage must be found nearly always, and never crash."""
    grids, model = pyramid(16, 20), FakeModel()
    data = encode_latents(draw(grids, 1.5), grids, model)
    rng = np.random.default_rng(3)
    flipped = [bytearray(data) for _ in range(60)]
    for damaged in flipped:
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
    assert sum(refused(bytes(damaged), grids, model) for damaged in flipped) >= 55
    cut = [data[:n] for n in range(1, len(data), 3)]
    assert sum(refused(each, grids, model) for each in cut) >= 0.95 * len(cut)
    assert refused(data + b"\x00\x00", grids, model)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100])
def test_garbage(n: int) -> None:
    grids, model = pyramid(16, 16), FakeModel()
    rng = np.random.default_rng(n)
    assert sum(refused(rng.bytes(n), grids, model) for _ in range(20)) >= 19


GOLDEN = (
    "0e04fd155487ccdc14486282a827cc78431cddbe5e05a717c534714ec5c7614299229f7522d92e1ce04eda876a81141d"
    "1a4afff904534e71dc3bbe5759acf0a6fff91c8f5e0ee3b84936a16b766b7fe774bfe6727d1bfff9b3ed83800ab7fff9"
    "72a2662e6caa9672047e"
)
