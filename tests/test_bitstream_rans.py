"""One sub-stream of latents: round trips of values and escapes, and damage."""

import numpy as np
import pytest

from coolvid.bitstream.rans import RansDecoder, RansEncoder
from coolvid.codec import laplace
from coolvid.errors import StreamError


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 10, 40, 200])
@pytest.mark.parametrize("row", [16, 24 * 32 + 6, 40 * 32 + 16, 60 * 32, 80 * 32 + 31])
def test_rans_round_trip(n: int, row: int) -> None:
    rng = np.random.default_rng(n)
    values = np.round(rng.laplace(0, np.exp((row // 32 - 40) / 8), n)).astype(np.int32)
    centres, rows = np.zeros(n, np.int32), np.full(n, row, np.int32)
    encoder = RansEncoder()
    encoder.put_latents(values, centres, rows)
    encoder.put_bits(5, 3)
    decoder = RansDecoder(encoder.finish())
    assert decoder.get_latents(centres.tolist(), rows.tolist()) == values.tolist()
    assert decoder.get_bits(3) == 5
    decoder.finish()


@pytest.mark.parametrize("row", [16, 40 * 32, 70 * 32 + 14])
@pytest.mark.parametrize("value", [1, -1, 31, -31, 32, 255, -256, 257, 5000, -32767, 32767])
def test_escapes(row: int, value: int) -> None:
    encoder = RansEncoder()
    for centre in (0, 16383, -16383):
        encoder.put_latents(*(np.array([x], np.int32) for x in (value, centre, row)))
    decoder = RansDecoder(encoder.finish())
    assert [decoder.get_latents([centre], [row])[0] for centre in (0, 16383, -16383)] == [value] * 3
    decoder.finish()


def test_a_value_beyond_the_range_is_damage() -> None:
    encoder = RansEncoder()
    encoder.put_latents(*(np.array([x], np.int32) for x in (40000, 16000, 8)))
    with pytest.raises(StreamError, match="40000"):
        RansDecoder(encoder.finish()).get_latents([16000], [8])


def test_the_longest_escape_prefix_is_bounded() -> None:
    encoder = RansEncoder()
    start = int(laplace.tables().starts[8, laplace.ESCAPE])
    encoder.put_bits(start, 16)
    for _ in range(40):
        encoder.put_bits(0, 1)
    encoder.put_bits(1, 16)
    with pytest.raises(StreamError, match="escape"):
        RansDecoder(encoder.finish()).get_latents([0], [8])
