"""The range coder of single bits: encoder, decoder, and a counter of what they would spend.

Martin (1979), with the carry propagated as in LZMA: a range of 32 bits is divided in proportion to the probabilities of
the two values, 0 below 1 (adaptive.py has the probabilities). At the end any number inside the range will do: the
encoder takes the one with the most trailing zeros and omits these, the decoder reads zeros after the end. All three
have the method code() of adaptive.BinaryCoder, so that one description of a syntax writes, reads and counts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import StreamError

from .adaptive import ONE

# Bytes of trailing zeros that an encoder may omit, and that a decoder may read after the end.
SLACK = 16
_BITS = 32
_TOP = 1 << _BITS
_BOTTOM = 1 << 24
# A bit of probability p / 65536 costs COSTS[p >> 4] / COST_UNIT bits.
COST_UNIT = 1 << 12
COSTS: NDArray[np.int32] = np.array(
    [round(-COST_UNIT * math.log2((i + 0.5) / 4096)) for i in range(4096)], dtype=np.int32
)


class RangeEncoder:
    """Codes bits; finish() returns the code."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._low = 0
        self._range = _TOP - 1

    def code(self, probability: int, bit: int) -> int:
        bound = (self._range >> 16) * (ONE - probability)
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
        """Bits written so far, to within one."""
        return 8 * len(self._out) + _BITS - self._range.bit_length()

    def finish(self) -> tuple[int, int]:
        """(value, n): the code as a number of n bits, most significant first, without trailing zeros."""
        n_zeros = next(k for k in range(_BITS, -1, -1) if -(-self._low >> k) << k < self._low + self._range)
        self._low = -(-self._low >> n_zeros) << n_zeros
        for _ in range(4):
            self._shift()
        value, n_bits = int.from_bytes(self._out, "big"), 8 * len(self._out)
        n_zeros = (value & -value).bit_length() - 1 if value else n_bits
        n_zeros = min(n_zeros, 8 * SLACK)
        return value >> n_zeros, n_bits - n_zeros


class RangeDecoder:
    """Decodes bits in the order in which they were encoded; zeros follow the data."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 4
        self.value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
        self.range = _TOP - 1

    def code(self, probability: int, bit: int = 0) -> int:
        """The next bit. Raises StreamError more than SLACK bytes after the end of the data."""
        bound = (self.range >> 16) * (ONE - probability)
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
        """The position that the encoder had at the same bit."""
        return 8 * (self.at - 4) + _BITS - self.range.bit_length()

    def finish(self, n_bits: int) -> None:
        """Check that the encoder can have written all n_bits, padding to a byte included. Raises StreamError."""
        if n_bits >= 8 * self.at + 8:
            raise StreamError("the networks of a packet do not end where its latents start; the stream is damaged")


def ended() -> StreamError:
    """The error for data that end too early."""
    return StreamError("the networks of a packet end too early; the stream is truncated or damaged")


class BitCounter:
    """Adds up what bits cost, in 1/COST_UNIT bit, without coding them."""

    def __init__(self) -> None:
        self.cost = 0

    @property
    def position(self) -> int:
        """The cost of all bits so far."""
        return self.cost

    def code(self, probability: int, bit: int) -> int:
        self.cost += int(COSTS[(probability if bit else ONE - probability) >> 4])
        return bit
