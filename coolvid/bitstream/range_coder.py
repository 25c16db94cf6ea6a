"""Adaptive binary arithmetic coding: a range coder of single bits, and the chances that it learns as it goes.

The coder (Martin 1979, with the carry propagated as in LZMA) divides a range of 32 bits in proportion to the chances
of the two values, 0 below 1. A chance is the probability of a one in 1/65536; every bit moves it towards the value
seen, by a share that falls from one half, at the first bits, to 1/(LIMIT + 1.5). What was left of the range at
the end holds many numbers: the encoder takes one whose low bits are 0 and leaves those out, the decoder reads zeros
behind the end. Encoder, decoder and Tally have one method in common, code(): whoever describes data by it describes
writing, reading and counting at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import StreamError

ONE = 1 << 16
HALF = ONE >> 1
LEAST = 64
LIMIT = 40
RATES = tuple(2 * ONE // (2 * n + 3) for n in range(LIMIT + 1))
# How many bytes an encoder may leave out, and a decoder read behind the end.
SLACK = 16
_BITS = 32
_TOP = 1 << _BITS
_BOTTOM = 1 << 24
# A bit of chance c / 65536 costs COSTS[c >> 4] / COST_UNIT bits.
COST_UNIT = 1 << 12
COSTS: NDArray[np.int32] = np.array(
    [round(-COST_UNIT * math.log2((i + 0.5) / 4096)) for i in range(4096)], dtype=np.int32
)


class BinaryCoder(Protocol):
    """Codes bits; a decoder takes no notice of the bit given. Returns the bit."""

    def code(self, chance: int, bit: int) -> int: ...


class Chances:
    """Chances by context. A bit may have two contexts: then the mean of their chances counts, and both learn."""

    def __init__(self, start: Sequence[int], n_seen: int) -> None:
        self.ones = list(start)
        self.seen = [n_seen] * len(self.ones)

    def code(self, coder: BinaryCoder, bit: int, a: int, b: int | None = None) -> int:
        """One bit in context a, or in a and b."""
        chance = self.ones[a] if b is None else (self.ones[a] + self.ones[b]) >> 1
        bit = coder.code(chance, bit)
        self._learn(a, bit)
        if b is not None:
            self._learn(b, bit)
        return bit

    def _learn(self, context: int, bit: int) -> None:
        chance, rate = self.ones[context], RATES[self.seen[context]]
        chance += (ONE - chance) * rate >> 16 if bit else -(chance * rate >> 16)
        self.ones[context] = min(max(chance, LEAST), ONE - LEAST)
        self.seen[context] = min(self.seen[context] + 1, LIMIT)


class Encoder:
    """Collects bits; finish() gives them coded."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._low = 0
        self._range = _TOP - 1

    def code(self, chance: int, bit: int) -> int:
        bound = (self._range >> 16) * (ONE - chance)
        if bit:
            self._low += bound
            self._range -= bound
        else:
            self._range = bound
        while self._range < _BOTTOM:
            self._range <<= 8
            self._shift()
        return bit

    def _shift(self) -> None:
        if self._low >= _TOP:
            self._carry()
        self._out.append(self._low >> 24)
        self._low = (self._low << 8) & (_TOP - 1)

    def _carry(self) -> None:
        self._low -= _TOP
        i = len(self._out) - 1
        while self._out[i] == 0xFF:
            self._out[i] = 0
            i -= 1
        self._out[i] += 1

    @property
    def position(self) -> int:
        """Bits so far, roughly."""
        return 8 * len(self._out) + _BITS - self._range.bit_length()

    def finish(self) -> tuple[int, int]:
        """(value, n): all bits as one number of n bits, the first the most significant; trailing zeros are left out."""
        n_zeros = next(k for k in range(_BITS, -1, -1) if -(-self._low >> k) << k < self._low + self._range)
        self._low = -(-self._low >> n_zeros) << n_zeros
        for _ in range(4):
            self._shift()
        value, n_bits = int.from_bytes(self._out, "big"), 8 * len(self._out)
        n_zeros = (value & -value).bit_length() - 1 if value else n_bits
        n_zeros = min(n_zeros, 8 * SLACK)
        return value >> n_zeros, n_bits - n_zeros


class Decoder:
    """Takes bits out of bytes in the order in which they went in; behind the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 4
        self.value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
        self.range = _TOP - 1

    def code(self, chance: int, bit: int = 0) -> int:
        """The next bit. Raises StreamError where the data cannot have been written for so many bits."""
        bound = (self.range >> 16) * (ONE - chance)
        bit = int(self.value >= bound)
        if bit:
            self.value -= bound
            self.range -= bound
        else:
            self.range = bound
        while self.range < _BOTTOM:
            self.range <<= 8
            self.value = self.value << 8 | (self.data[self.at] if self.at < len(self.data) else 0)
            self.at += 1
        if self.at > len(self.data) + SLACK:
            raise ended()
        return bit

    @property
    def position(self) -> int:
        """As that of the encoder at the same bit."""
        return 8 * (self.at - 4) + _BITS - self.range.bit_length()

    def finish(self, n_bits: int) -> None:
        """Check that n_bits, padding to a byte included, are not more than the encoder can have written. Raises
        StreamError."""
        if n_bits >= 8 * self.at + 8:
            raise StreamError("the networks of a packet do not end where its latents start; the stream is damaged")


def ended() -> StreamError:
    """The error of data that end too early."""
    return StreamError("the networks of a packet end too early; the stream is truncated or damaged")


class Tally:
    """Counts what bits cost, in 1/COST_UNIT bit."""

    def __init__(self) -> None:
        self.cost = 0

    @property
    def position(self) -> int:
        """What all so far costs."""
        return self.cost

    def code(self, chance: int, bit: int) -> int:
        self.cost += int(COSTS[(chance if bit else ONE - chance) >> 4])
        return bit
