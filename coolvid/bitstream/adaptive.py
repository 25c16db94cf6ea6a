"""Adaptive probabilities of bits, one per context: the model beside the range coder.

A probability is that of a one, in 1/65536. It starts from log odds, and each bit moves it towards the value seen, by
1 / (n + 1.5) of the distance after n bits in its context; n stops at LIMIT, so that old bits are forgotten. The rate is
that of the state maps of lpaq (Mahoney, 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

ONE = 1 << 16
HALF = ONE >> 1
LEAST = 64
LIMIT = 40
RATES = tuple(2 * ONE // (2 * n + 3) for n in range(LIMIT + 1))

# round(65536 / (1 + exp(-i / 8))); a table, so that every machine starts from the same integers.
_LOGISTIC = (
    *(32768, 34813, 36843, 38841, 40793, 42687, 44511, 46254, 47911, 49474, 50941, 52310, 53581, 54754, 55834),
    *(56822, 57724, 58544, 59287, 59959, 60565, 61109, 61598, 62036, 62428, 62778, 63090, 63368, 63615, 63835),
    *(64030, 64203, 64357, 64494, 64614, 64721, 64816, 64900, 64974, 65039, 65097),
)


def logistic(eighths: int) -> int:
    """The probability, in 1/65536, with natural log odds of eighths / 8, which are limited to -5..5."""
    x = min(abs(eighths), len(_LOGISTIC) - 1)
    return _LOGISTIC[x] if eighths >= 0 else ONE - _LOGISTIC[x]


class BinaryCoder(Protocol):
    """Codes bits: a range encoder, a range decoder, or a counter of their cost."""

    def code(self, probability: int, bit: int) -> int:
        """One bit, a one with this probability in 1/65536. Returns it; a decoder ignores the bit given."""
        ...


class AdaptiveProbabilities:
    """Probabilities by context. A bit may have two contexts: it has their mean probability, and both adapt.

    start: the first probabilities, in 1/65536; n_seen: how many bits each start counts as, 0..LIMIT.
    """

    def __init__(self, start: Sequence[int], n_seen: int) -> None:
        self.ones = list(start)
        self.seen = [n_seen] * len(self.ones)

    def code(self, coder: BinaryCoder, bit: int, a: int, b: int | None = None) -> int:
        """One bit in context a, or in contexts a and b: code it with its probability, then adapt. Returns the bit."""
        bit = coder.code(self.ones[a] if b is None else (self.ones[a] + self.ones[b]) >> 1, bit)
        self._adapt(a, bit)
        if b is not None:
            self._adapt(b, bit)
        return bit

    def _adapt(self, context: int, bit: int) -> None:
        probability, rate = self.ones[context], RATES[self.seen[context]]
        probability += (ONE - probability) * rate >> 16 if bit else -(probability * rate >> 16)
        self.ones[context] = min(max(probability, LEAST), ONE - LEAST)
        self.seen[context] = min(self.seen[context] + 1, LIMIT)
