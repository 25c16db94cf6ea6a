"""The syntax of network parameters: round trips, real lengths, compiled twins, damage."""

from __future__ import annotations

import numpy as np
import pytest

from coolvid import kernels
from coolvid.bitstream import parameters
from coolvid.bitstream.parameter_model import IS_RISING, NOT_ALL_ZERO, blocks_of
from coolvid.bitstream.parameters import (
    decode_numbers,
    encode_numbers,
    halvings,
    number_bits,
    plain_decode_numbers,
    plain_number_bits,
)
from coolvid.bitstream.range_coder import COSTS, RangeDecoder, RangeEncoder
from coolvid.codec.coded_frame import MAX_PARAMETER, TensorSpec
from coolvid.errors import StreamError

ARM = (
    TensorSpec("hidden.weight", (6, 6)),
    TensorSpec("hidden.bias", (6,), "bias"),
    TensorSpec("output.weight", (2, 6)),
    TensorSpec("output.bias", (2,), "bias"),
)
CONV = (
    TensorSpec("layers.0.weight", (5, 3, 1, 1)),
    TensorSpec("layers.1.weight", (2, 5, 3, 3)),
    TensorSpec("stabiliser.weight", (2, 3, 1, 1)),
)
FILTERS = tuple(TensorSpec(f"{name}.{i}", (n,)) for i in range(3) for name, n in (("up", 4), ("pre", 3)))
ODD = (
    TensorSpec("scalar", ()),
    TensorSpec("empty", (0, 3)),
    TensorSpec("row", (7,)),
    TensorSpec("volume", (2, 3, 4, 5)),
)


def as_bytes(encoder: RangeEncoder) -> tuple[bytes, int]:
    value, n = encoder.finish()
    return (value << -n % 8).to_bytes(-(-n // 8), "big"), n


def drawn(specs, scale, seed=0):
    rng = np.random.default_rng(seed)
    values = np.rint(rng.laplace(scale=scale, size=sum(b.size for b in blocks_of(specs, "weight"))))
    values[rng.random(values.size) < 0.3] = 0
    return np.clip(values, -2 * MAX_PARAMETER, 2 * MAX_PARAMETER).astype(np.int32)


def written(specs, values, predictor=None):
    encoder = RangeEncoder()
    encode_numbers(encoder, blocks_of(specs, "weight"), values, predictor)
    return as_bytes(encoder)


CASES = [(specs, scale) for specs in (ARM, CONV, FILTERS, ODD) for scale in (0.0, 0.2, 3.0, 200.0, 1e6)]


@pytest.mark.parametrize("specs, scale", CASES)
@pytest.mark.parametrize("predicted", [False, True])
def test_numbers_there_and_back_and_their_price(specs, scale, predicted):
    values, blocks = drawn(specs, scale), blocks_of(specs, "weight")
    predictor = drawn(specs, scale, seed=1) if predicted else None
    data, n_bits = written(specs, values, predictor)
    for decode in (plain_decode_numbers, decode_numbers):
        decoder = RangeDecoder(data)
        assert np.array_equal(decode(decoder, blocks, predictor), values)
        decoder.finish(n_bits)
    bits = plain_number_bits(blocks, values, predictor)
    assert number_bits(blocks, values, predictor) == bits
    assert bits - 8 <= n_bits <= bits * 1.001 + 8 or n_bits < bits


def test_zeros_of_the_predictor_and_dead_inputs_make_zeros_cheap():
    blocks, zero = blocks_of(ARM, "weight"), np.zeros(48, np.int32)
    values = zero.copy()
    values[0] = values[40] = 1
    busy = np.ones(48, np.int32)
    assert plain_number_bits(blocks, values, zero) < plain_number_bits(blocks, values, busy)
    prices = []
    for column in (0, 3):  # an output's weight for a unit that has weights, and for one that has none
        values = zero.copy()
        values[:6] = values[36 + column] = 1
        prices.append(plain_number_bits(blocks, values, None))
    assert prices[0] < prices[1] - 2


@pytest.mark.parametrize("specs", [ARM, CONV, FILTERS, ODD])
@pytest.mark.parametrize("predicted", [False, True])
def test_longer_steps_of_a_tensor_cost_a_few_bits(specs, predicted):
    values, blocks = drawn(specs, 3.0), blocks_of(specs, "weight")
    predictor = drawn(specs, 3.0, seed=1) if predicted else None
    for block in blocks:
        values[block.start : block.start + min(1, block.size)] = 1  # odd, so that a tensor's own step is the shortest
    longer = values.copy()
    for shift, block in zip((3, 0, 1, 2, 5, 4), blocks, strict=False):
        longer[block.start : block.start + block.size] <<= shift
    data, n_bits = written(specs, longer, predictor)
    for decode in (plain_decode_numbers, decode_numbers):
        decoder = RangeDecoder(data)
        assert np.array_equal(decode(decoder, blocks, predictor), longer)
        decoder.finish(n_bits)
    assert number_bits(blocks, longer, predictor) == plain_number_bits(blocks, longer, predictor)
    extra = plain_number_bits(blocks, longer, predictor) - plain_number_bits(blocks, values, predictor)
    assert 0 < extra < 8 * len(blocks)


RISING = (TensorSpec("row", (48,)), TensorSpec("short", (7,)))


@pytest.mark.parametrize("shift", [0, 3])
def test_a_row_in_order_costs_less(shift):
    rng, blocks = np.random.default_rng(0), blocks_of(RISING, "weight")
    mixed = np.rint(rng.laplace(scale=20.0, size=55)).astype(np.int32) << shift
    mixed[0] |= 1 << shift
    ordered = np.concatenate([np.sort(mixed[:48]), mixed[48:]])
    nearly = ordered.copy()
    nearly[[0, 1]] = nearly[[1, 0]]
    bits = {}
    for name, values in (("mixed", mixed), ("ordered", ordered), ("nearly", nearly)):
        data, n_bits = written(RISING, values)
        for decode in (plain_decode_numbers, decode_numbers):
            decoder = RangeDecoder(data)
            assert np.array_equal(decode(decoder, blocks, None), values)
            decoder.finish(n_bits)
        bits[name] = plain_number_bits(blocks, values, None)
        assert number_bits(blocks, values, None) == bits[name]
    assert bits["ordered"] < bits["mixed"] - 100
    assert bits["ordered"] < bits["nearly"] < bits["ordered"] + 20
    assert (
        abs(plain_number_bits(blocks, ordered, mixed) - plain_number_bits(blocks, mixed, mixed)) < 60
    )  # differences are no rises


@pytest.mark.parametrize("rise", [1 << 24, (1 << 25) - 1])
def test_rises_out_of_range_are_damage(rise):
    """Sent as rises, each of them in range, their sum not."""
    row, encoder = blocks_of(RISING, "weight"), RangeEncoder()
    _Steep(encoder, row, [rise] * 48 + [0] * 7, None).run()
    data, _ = as_bytes(encoder)
    for decode in (plain_decode_numbers, decode_numbers):
        with pytest.raises(StreamError, match="outside"):
            decode(RangeDecoder(data), row, None)


class _Steep(parameters._NumberSyntax):
    """Sends its values as rises, without their sum."""

    def run(self) -> list[int]:
        self._bit(1, NOT_ALL_ZERO + 1)
        self._common(0)
        self._rows(self.blocks[0], bool(self._bit(1, IS_RISING)))
        self._bit(0, NOT_ALL_ZERO + 1)
        return self.sent


@pytest.mark.parametrize(
    "values, times", [([], 0), ([0, 0], 0), ([1, 0], 0), ([-4, 12], 2), ([0, 8], 3), ([-(2**24)], 24)]
)
def test_halvings_of_integers(values, times):
    assert halvings(values) == times


def test_numbers_that_are_doubled_out_of_range_are_damage():
    row, encoder = blocks_of((TensorSpec("row", (7,)),), "weight"), RangeEncoder()
    _Loud(encoder, row, [31 << 20, *[0] * 6], None).run()
    data, _ = as_bytes(encoder)
    for decode in (plain_decode_numbers, decode_numbers):
        with pytest.raises(StreamError, match="outside"):
            decode(RangeDecoder(data), row, None)


class _Loud(parameters._NumberSyntax):
    """Writes that numbers can be halved once more than they can."""

    def _common(self, wanted: int) -> int:
        super()._common(wanted + 1)
        return wanted


def test_golden_numbers():
    """Format: these bytes, must not change."""
    values = np.array([[3, 0, 0, -1, 0, 12], *[[0] * 6] * 4, [1, 0, 0, 0, 0, -5]], np.int32).ravel()
    values = np.concatenate([values, np.array([0, 0, 0, 0, 0, -200, 7, 0, 0, 0, 0, 1], np.int32)])
    assert written(ARM, values)[0].hex() == GOLDEN
    assert written(ARM, values, values)[0].hex() == GOLDEN_DIFFERENCES
    assert np.array_equal(decode_numbers(RangeDecoder(bytes.fromhex(GOLDEN)), blocks_of(ARM, "weight"), None), values)
    rising = np.array([*range(-30, 18), 4, 0, -8, 0, 0, 16, 0], np.int32)
    assert written(RISING, rising)[0].hex() == GOLDEN_RISING
    assert np.array_equal(
        decode_numbers(RangeDecoder(bytes.fromhex(GOLDEN_RISING)), blocks_of(RISING, "weight"), None), rising
    )


@pytest.mark.skipif(kernels.decode is None, reason="no compiled kernels here")
@pytest.mark.parametrize("predicted", [False, True])
def test_damaged_bytes_give_the_same_in_both_forms(predicted):
    predictor = drawn(CONV, 3.0, seed=1) if predicted else None
    data, _ = written(CONV, drawn(CONV, 4.0), predictor)
    blocks, rng = blocks_of(CONV, "weight"), np.random.default_rng(0)
    for trial in range(80):
        damaged = bytearray(data[: len(data) - trial % 7 * 9] if trial % 2 else rng.bytes(trial))
        if damaged:
            damaged[trial % len(damaged)] ^= 1 << trial % 8
        plain, compiled = RangeDecoder(bytes(damaged)), RangeDecoder(bytes(damaged))
        try:
            expected = plain_decode_numbers(plain, blocks, predictor)
        except StreamError:
            with pytest.raises(StreamError):
                decode_numbers(compiled, blocks, predictor)
        else:
            assert np.array_equal(decode_numbers(compiled, blocks, predictor), expected)
            assert (plain.at, plain.value, plain.range) == (compiled.at, compiled.value, compiled.range)


def test_endless_halvings_are_damage():
    with pytest.raises(StreamError, match="outside"):
        plain_decode_numbers(RangeDecoder(b"\xff" * 200), blocks_of(ARM, "weight"), None)
    if kernels.decode is not None:
        with pytest.raises(StreamError, match="outside"):
            decode_numbers(RangeDecoder(b"\xff" * 200), blocks_of(ARM, "weight"), None)


@pytest.mark.skipif(kernels.decode is None, reason="no compiled kernels here")
@pytest.mark.parametrize("row", [(1, 2, 2, 1, -1, -1), (0, 2, 3, 2, -1, -1), (0, 2, 2, 1, 0, -1), (0, 1, 2, 1, -1, 0)])
def test_blocks_that_cannot_be_are_refused(row):
    table = np.array([row], np.int32)
    with pytest.raises(ValueError):
        kernels.decode.parameter_cost(np.zeros(4, np.int32), table, None, parameters.start_probabilities(), COSTS)


GOLDEN = "70370bdec197d772ded040"
GOLDEN_RISING = "b6d6bb13c30b6ff5ca0d"
GOLDEN_DIFFERENCES = "a32fc3295cfc4913"
