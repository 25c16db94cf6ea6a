"""Adaptive probabilities: the logistic of their starts, and how fast they adapt."""

import numpy as np

from coolvid.bitstream.adaptive import HALF, LEAST, ONE, AdaptiveProbabilities, logistic
from coolvid.bitstream.range_coder import BitCounter


def test_logistic_is_its_definition():
    expected = [65536 / (1 + np.exp(-i / 8)) for i in range(-60, 61)]
    assert all(abs(logistic(i) - e) <= 0.5 for i, e in zip(range(-40, 41), expected[20:101], strict=True))
    assert logistic(60) == logistic(40) and logistic(-60) == logistic(-40)


def test_probabilities_adapt_fast_at_first_and_never_reach_certainty():
    probabilities = AdaptiveProbabilities([HALF, HALF], 0)
    counter = BitCounter()
    seen = []
    for _ in range(300):
        probabilities.code(counter, 1, 0, 1)
        seen.append(probabilities.ones[0])
    assert seen[0] == HALF + (HALF * (2 * ONE // 3) >> 16) and seen == sorted(seen)
    assert seen[-1] == ONE - LEAST == probabilities.ones[1]
