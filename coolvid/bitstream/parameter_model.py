"""The adaptive model of network parameters: the contexts of every bit, and the probabilities they start from.

The numbers are the weights, or the biases, of one module: plain, or differences to a predictor. Their contexts come
from magnitudes that are already coded: of the two numbers to the left, of the one above (the same column of the row
before), and a running mean. parameters.py defines which bits describe a number; nothing here reads or writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from coolvid.codec.coded_frame import TensorSpec

from .adaptive import AdaptiveProbabilities, logistic

# Energies have 4 fractional bits and 24 levels, two an octave. The weights of the energy, its resolution and the rate
# of the mean are worth less than 0.2 % of the bits each (docs/experiments/parameter-coding.md).
_FRACTION = 4
_LEVELS = 24
_MEAN_RATE = 4
_START_MEAN = {False: 32, True: 8}

# Levels of a single neighbour: magnitude 0, 1, 2..3, 4 and more, or no neighbour.
_NEAR = 5
_NONE = _NEAR - 1

# How many halvings of a magnitude, and of a whole tensor, have contexts of their own; the last serves all others.
_HALVINGS = 10
_COMMON_HALVINGS = 4
_BITS_BELOW = 8

# Bits that the starting probabilities count as.
_START_COUNT = 4

# Where the contexts of each sort of bit start.
NOT_ALL_ZERO = 0
_COMMON = NOT_ALL_ZERO + 2
IS_RISING = _COMMON + 2 * _COMMON_HALVINGS
IS_FALL = IS_RISING + 1
_NOT_ZERO = IS_FALL + 1
_NOT_ZERO_NEAR = _NOT_ZERO + 2 * _LEVELS
_HALVE = _NOT_ZERO_NEAR + 2 * _NEAR * _NEAR
_HALVE_NEAR = _HALVE + _HALVINGS * _LEVELS
_BELOW = _HALVE_NEAR + _HALVINGS * _NEAR * _NEAR
N_CONTEXTS = _BELOW + _BITS_BELOW

# Log odds, in eighths, of bits that come once or a few times a tensor, so that their start matters more than their
# adaptation (stream format 4, docs/decisions/0009). The plain numbers of a tensor share a factor of 2 with 35 %,
# differences with 12 %; a row is sent as rises with 27 %, and one of its rises is negative with 18 %.
_COMMON_ODDS = {False: (-5, 3, -4, 0), True: (-16, 0, 0, 0)}
_RISING_ODDS, _FALL_ODDS = -8, -12


def _near_odds(near: int) -> tuple[int, int]:
    """(sum of the levels of both neighbours, how many neighbours are absent)."""
    levels = divmod(near, _NEAR)
    return sum(level for level in levels if level != _NONE), levels.count(_NONE)


def _starting_probabilities() -> list[int]:
    """By context, in 1/65536.

    Straight lines in the log odds, in eighths, fitted to one half of the 474 modules in 22 streams (I, P and B frames,
    224x128 to 768x512 pixels, presets fast to slow) and checked on the other half. Fitted starts save 4 % of the bits
    that even odds take; a table in place of the lines, 480 numbers, would save 0.5 % more
    (docs/experiments/parameter-coding.md).
    """
    levels, near = range(_LEVELS), [_near_odds(i) for i in range(_NEAR * _NEAR)]
    odds = [-5, 12, *_COMMON_ODDS[False], *_COMMON_ODDS[True], _RISING_ODDS, _FALL_ODDS]
    odds += [-18 + 2 * level for level in levels]
    odds += [-26 + level for level in levels]
    odds += [-13 + 6 * n + 10 * absent for n, absent in near]
    odds += [-27 + 6 * (n + absent) for n, absent in near]
    for i in range(_HALVINGS):
        odds += [2 - 2 * level + 4 * max(0, level - 5) - 5 * i - max(0, i - 4) for level in levels]
    for i in range(_HALVINGS):
        odds += [3 * n + 7 * absent - 3 * i for n, absent in near]
    odds += [-3] * _BITS_BELOW
    return [logistic(each) for each in odds]


START = _starting_probabilities()


@dataclass(frozen=True)
class Block:
    """One tensor as rows of numbers.

    start: index of its first number among all of the module's numbers of its kind. taps: columns that belong to one
    input. feeder: the tensor whose rows are these inputs. above: the tensor whose numbers are above the first row. Both
    are indices of tensors, -1 for none.
    """

    start: int
    rows: int
    columns: int
    taps: int
    feeder: int
    above: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    @property
    def span(self) -> slice:
        """Its numbers among all of the kind."""
        return slice(self.start, self.start + self.size)


@cache
def blocks_of(specs: tuple[TensorSpec, ...], kind: str) -> tuple[Block, ...]:
    """The tensors of one kind, "weight" or "bias", in order.

    A tensor of one dimension is a single row; above it is the last tensor but one, if that has the same size (filters
    come in pairs). Any other tensor has a row for each output; the tensor before it is its feeder if it has as many
    rows as this one has inputs.
    """
    own = [spec.shape for spec in specs if spec.kind == kind]
    out: list[Block] = []
    for i, shape in enumerate(own):
        size, is_flat = math.prod(shape), len(shape) < 2
        rows = 1 if is_flat else shape[0]
        fed = not is_flat and i > 0 and len(own[i - 1]) > 1 and own[i - 1][0] == shape[1]
        paired = is_flat and i > 1 and own[i - 2] == shape
        start = out[-1].start + out[-1].size if out else 0
        columns = size // rows if rows else 0
        taps = math.prod(shape[2:])
        out.append(Block(start, rows, columns, taps, i - 1 if fed else -1, i - 2 if paired else -1))
    return tuple(out)


class Surroundings(NamedTuple):
    """What the contexts of a number depend on: the level 0..23 of the energy around it, the levels of both neighbours
    (5 left + above), and whether a zero is likely (1) for another reason."""

    level: int
    near: int
    quiet: int

    def not_zero(self) -> tuple[int, int]:
        """The contexts of whether the number is not zero."""
        return _NOT_ZERO + self.quiet * _LEVELS + self.level, _NOT_ZERO_NEAR + self.quiet * _NEAR * _NEAR + self.near

    def halve(self, n: int) -> tuple[int, int]:
        """The contexts of whether its magnitude can be halved again after n halvings."""
        n = min(n, _HALVINGS - 1)
        return _HALVE + n * _LEVELS + self.level, _HALVE_NEAR + n * _NEAR * _NEAR + self.near


class ParameterModel:
    """Probabilities for the numbers of one kind of one module, and the running mean of their magnitudes."""

    def __init__(self, is_difference: bool) -> None:
        self.probabilities = AdaptiveProbabilities(START, _START_COUNT)
        self._is_difference = is_difference
        self._mean = _START_MEAN[is_difference]

    def common(self, n: int) -> int:
        """The context of whether all numbers of a tensor can be halved again after n halvings."""
        return _COMMON + _COMMON_HALVINGS * self._is_difference + min(n, _COMMON_HALVINGS - 1)

    def below(self, n: int) -> int:
        """The context of the bit below the top one in a magnitude with n bits below it."""
        return _BELOW + min(n, _BITS_BELOW) - 1

    def surroundings(self, left: int | None, left2: int | None, above: int | None, quiet: bool) -> Surroundings:
        """From the magnitudes of the two numbers to the left and of the one above; None where there is no number."""
        mean = self._mean
        energy = 2 * _fixed(left, mean) + _fixed(left2, mean) + _fixed(above, mean) + 4 * mean
        return Surroundings(_level(energy >> 3), _NEAR * _near(left) + _near(above), int(quiet))

    def observe(self, magnitude: int) -> None:
        """Move the running mean towards the magnitude just coded."""
        self._mean += ((magnitude << _FRACTION) - self._mean) >> _MEAN_RATE


def _near(magnitude: int | None) -> int:
    return _NONE if magnitude is None else min(magnitude.bit_length(), _NONE - 1)


def _fixed(magnitude: int | None, mean: int) -> int:
    return mean if magnitude is None else magnitude << _FRACTION


def _level(energy: int) -> int:
    """Twice the number of bits, plus the second highest bit, less 1, limited to the levels."""
    length = energy.bit_length()
    half = energy >> (length - 2) & 1 if length > 1 else 0
    return min(max(2 * length + half - 1, 0), _LEVELS - 1)
