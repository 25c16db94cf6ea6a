"""Binary arithmetic coding: round trips, real lengths and data that end too early."""

import numpy as np
import pytest

from coolvid.bitstream.adaptive import HALF, LEAST, ONE
from coolvid.bitstream.range_coder import BitCounter, RangeDecoder, RangeEncoder
from coolvid.errors import StreamError


def as_bytes(encoder: RangeEncoder) -> tuple[bytes, int]:
    value, n = encoder.finish()
    return (value << -n % 8).to_bytes(-(-n // 8), "big"), n


@pytest.mark.parametrize("seed", range(6))
def test_bits_of_any_probability_there_and_back(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 3000))
    probabilities = np.clip(rng.integers(0, ONE, n), LEAST, ONE - LEAST).tolist()
    bits = (rng.random(n) * ONE < probabilities if seed % 2 else rng.random(n) < 0.5).astype(int).tolist()
    encoder, counter = RangeEncoder(), BitCounter()
    for probability, bit in zip(probabilities, bits, strict=True):
        assert encoder.code(probability, bit) == counter.code(probability, bit) == bit
    position = encoder.position
    data, n_bits = as_bytes(encoder)
    decoder = RangeDecoder(data)
    assert [decoder.code(probability) for probability in probabilities] == bits
    assert decoder.position == position and abs(position - counter.cost / 4096) < 8 + n / 400
    decoder.finish(n_bits)


def test_what_is_likely_costs_nothing_and_carries_go_all_the_way():
    encoder = RangeEncoder()
    for _ in range(20):
        encoder.code(LEAST, 0)
    assert encoder.finish() == (0, 0)
    encoder = RangeEncoder()
    for i in range(400):
        encoder.code(HALF if i < 399 else ONE - LEAST, i < 399)
    data, _ = as_bytes(encoder)
    decoder = RangeDecoder(data)
    assert [decoder.code(HALF) for _ in range(399)] == [1] * 399 and decoder.code(ONE - LEAST) == 0


def test_a_decoder_stops_soon_after_the_end():
    decoder = RangeDecoder(b"\x12\x34")
    with pytest.raises(StreamError, match="too early"):
        for _ in range(200):
            decoder.code(HALF)
    decoder = RangeDecoder(b"")
    with pytest.raises(StreamError, match="too early"):
        for _ in range(200_000):
            decoder.code(LEAST)
    with pytest.raises(StreamError, match="do not end where"):
        RangeDecoder(bytes(9)).finish(72)
