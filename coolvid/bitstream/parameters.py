"""The parameters of one module and kind as bits: which bits say a number, and in which contexts.

A tensor of zeros is one bit. Any other says how often all its numbers can be halved without a remainder, by which its
step is longer than the module's, and then sends them halved so often; a row that hardly ever falls, such as biases in
order, sends how much it rises. Each number says whether it is zero, then its sign, how often its magnitude can be
halved, and the bits below the top one. All but the sign and the lowest of those bits are adaptive; their contexts are
the magnitudes of the numbers to the left and above (the same column of the row before), and a running mean. Where
numbers are differences, a zero of the predictor makes zero likely; else, an input that nothing feeds does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.coded_frame import MAX_PARAMETER, TensorSpec
from coolvid.codec.fixed_point import Integers
from coolvid.errors import StreamError

from .range_coder import COST_UNIT, COSTS, HALF, BinaryCoder, Chances, Decoder, Encoder, Tally, ended

# Magnitudes beyond this many halvings are a damaged stream; a difference reaches 2 * MAX_PARAMETER.
MAX_HALVINGS = 24
# Energies have 4 fractional bits; E levels of energy, two an octave; 5 levels of a neighbour, the last for none.
_FRACTION = 4
_LEVELS = 24
_NEAR = 5
_STEPS = 10
_MEAN_RATE = 4
_START_COUNT = 4
_START_MEAN = {False: 32, True: 8}

# How often all numbers of a tensor can be halved: contexts, and odds that they can, of plain numbers and differences.
_COMMON_STEPS = 4
_COMMON_ODDS = {False: (-5, 3, -4, 0), True: (-16, 0, 0, 0)}

# The least size of a row that may be sent as rises, and odds: that it is, and that one of them is negative.
_LEAST_RISING = 8
_RISING_ODDS = (-8, -12)

# Where the contexts of each bit start in a set.
_ANY = 0
_COMMON = _ANY + 2
_RISING = _COMMON + 2 * _COMMON_STEPS
_FALL = _RISING + 1
_ZERO = _FALL + 1
_NEAR_ZERO = _ZERO + 2 * _LEVELS
_HALVE = _NEAR_ZERO + 2 * _NEAR * _NEAR
_NEAR_HALVE = _HALVE + _STEPS * _LEVELS
_BELOW = _NEAR_HALVE + _STEPS * _NEAR * _NEAR
N_CONTEXTS = _BELOW + 8

# round(65536 / (1 + exp(-i / 8)))
_LOGISTIC = (
    *(32768, 34813, 36843, 38841, 40793, 42687, 44511, 46254, 47911, 49474, 50941, 52310, 53581, 54754, 55834),
    *(56822, 57724, 58544, 59287, 59959, 60565, 61109, 61598, 62036, 62428, 62778, 63090, 63368, 63615, 63835),
    *(64030, 64203, 64357, 64494, 64614, 64721, 64816, 64900, 64974, 65039, 65097),
)


def logistic(eighths: int) -> int:
    """The chance with log odds of eighths / 8."""
    x = min(abs(eighths), len(_LOGISTIC) - 1)
    return _LOGISTIC[x] if eighths >= 0 else (1 << 16) - _LOGISTIC[x]


def _near_odds(near: int) -> tuple[int, int]:
    """(sum of the levels of both neighbours, how many are none)."""
    levels = divmod(near, _NEAR)
    return sum(level for level in levels if level < _NEAR - 1), levels.count(_NEAR - 1)


def _starting_chances() -> list[int]:
    """What a set of contexts starts from: straight lines fitted to many networks."""
    odds = [-5, 12, *_COMMON_ODDS[False], *_COMMON_ODDS[True], *_RISING_ODDS]
    odds += [-26 + q if quiet else -18 + 2 * q for quiet in (0, 1) for q in range(_LEVELS)]
    near = [_near_odds(i) for i in range(_NEAR * _NEAR)]
    odds += [-27 + 6 * (n + none) if quiet else -13 + 6 * n + 10 * none for quiet in (0, 1) for n, none in near]
    odds += [2 - 2 * q + 4 * max(0, q - 5) - 5 * i - max(0, i - 4) for i in range(_STEPS) for q in range(_LEVELS)]
    odds += [3 * n + 7 * none - 3 * i for i in range(_STEPS) for n, none in near]
    odds += [-3] * (N_CONTEXTS - _BELOW)
    return [logistic(each) for each in odds]


START = _starting_chances()


@dataclass(frozen=True)
class Block:
    """One tensor as rows of numbers. start: index of its first one among all of its kind. taps: columns that belong to
    one input. feeder: the tensor whose rows are these inputs, above: the one whose numbers stand above the first
    row; by their index, -1 for none."""

    start: int
    rows: int
    columns: int
    taps: int
    feeder: int
    above: int

    @property
    def size(self) -> int:
        return self.rows * self.columns


@cache
def blocks_of(specs: tuple[TensorSpec, ...], kind: str) -> tuple[Block, ...]:
    """The tensors of one kind.

    A tensor of one dimension is a row; below the last but one of its kind, if that has the same size (filters
    come in pairs). A tensor of more has a row for each output, and is fed by the one before if that has as many rows as
    this one has inputs.
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


class _Kind:
    """Codes the numbers of one kind: values [n] are read, or written by a decoder."""

    def __init__(
        self, coder: BinaryCoder, blocks: Sequence[Block], values: list[int], predictor: Sequence[int] | None
    ) -> None:
        self.coder, self.blocks, self.values, self.predictor = coder, blocks, values, predictor
        self.chances = Chances(START, _START_COUNT)
        self.mean = _START_MEAN[predictor is not None]
        self.rises = False

    def run(self) -> None:
        last = 1
        sent: list[tuple[slice, int, bool]] = []
        for block in self.blocks:
            own = slice(block.start, block.start + block.size)
            last = self.chances.code(self.coder, int(any(self.values[own])), _ANY + last)
            if last:
                shift = self._common(halvings(self.values[own]))
                self.values[own] = [value >> shift for value in self.values[own]]
                self.rises = self._rising(block)
                if self.rises:
                    self.values[own] = _rises(self.values[own])
                self._block(block)
                sent.append((own, shift, self.rises))
        for own, shift, rises in sent:
            self.values[own] = _restored(self.values[own], shift, rises)

    def _rising(self, block: Block) -> bool:
        """Whether a tensor is sent as rises."""
        if block.rows != 1 or block.columns < _LEAST_RISING or self.predictor is not None:
            return False
        values = self.values[block.start : block.start + block.size]
        wanted = 2 * sum(map(abs, _rises(values))) < sum(map(abs, values))
        return bool(self.chances.code(self.coder, int(wanted), _RISING))

    def _common(self, wanted: int) -> int:
        """How often all numbers of a tensor can be halved."""
        first = _COMMON + _COMMON_STEPS * (self.predictor is not None)
        n = 0
        while self.chances.code(self.coder, int(n < wanted), first + min(n, _COMMON_STEPS - 1)):
            n += 1
            if n > MAX_HALVINGS:
                raise out_of_range()
        return n

    def _block(self, block: Block) -> None:
        dead = self._dead(block)
        i = block.start
        for row in range(block.rows):
            for column in range(block.columns):
                quiet = dead[column // block.taps] if self.predictor is None else not self.predictor[i]
                self._value(i, column, self._above(block, row, i), quiet)
                i += 1

    def _dead(self, block: Block) -> list[bool]:
        """For each input whether all that feeds it is zero."""
        if block.feeder < 0:
            return [False] * (block.columns // block.taps)
        feeder = self.blocks[block.feeder]
        starts = range(feeder.start, feeder.start + feeder.size, feeder.columns)
        return [not any(self.values[start : start + feeder.columns]) for start in starts]

    def _above(self, block: Block, row: int, i: int) -> int | None:
        if row:
            return abs(self.values[i - block.columns])
        if block.above < 0:
            return None
        return abs(self.values[self.blocks[block.above].start + i - block.start])

    def _value(self, i: int, column: int, above: int | None, quiet: bool) -> None:
        values, mean = self.values, self.mean
        left = abs(values[i - 1]) if column else None
        left2 = abs(values[i - 2]) if column > 1 else None
        near = _NEAR * _near(left) + _near(above)
        energy = 2 * _fixed(left, mean) + _fixed(left2, mean) + _fixed(above, mean) + 4 * mean
        values[i] = self._number(values[i], _level(energy >> 3), near, int(quiet))
        self.mean += ((abs(values[i]) << _FRACTION) - mean) >> _MEAN_RATE

    def _number(self, value: int, level: int, near: int, quiet: int) -> int:
        code, coder = self.chances.code, self.coder
        zero, near_zero = _ZERO + quiet * _LEVELS + level, _NEAR_ZERO + quiet * _NEAR * _NEAR + near
        if not code(coder, int(value != 0), zero, near_zero):
            return 0
        negative = code(coder, int(value < 0), _FALL) if self.rises else coder.code(HALF, int(value < 0))
        wanted = abs(value).bit_length() - 1
        n = 0
        while True:
            step = min(n, _STEPS - 1)
            at, near_at = _HALVE + step * _LEVELS + level, _NEAR_HALVE + step * _NEAR * _NEAR + near
            if not code(coder, int(n < wanted), at, near_at):
                break
            n += 1
            if n > MAX_HALVINGS:
                raise out_of_range()
        size = self._below(abs(value), n)
        return -size if negative else size

    def _below(self, size: int, n: int) -> int:
        """The magnitude of n bits below the top one."""
        out = 1
        for k in range(n - 1, -1, -1):
            bit = size >> k & 1
            if k == n - 1:
                bit = self.chances.code(self.coder, bit, _BELOW + min(n, N_CONTEXTS - _BELOW) - 1)
            else:
                bit = self.coder.code(HALF, bit)
            out = out << 1 | bit
        return out


def halvings(values: Sequence[int]) -> int:
    """How often all of these integers can be halved without a remainder; 0 for zeros alone."""
    together = 0
    for value in values:
        together |= value
    return max(0, (together & -together).bit_length() - 1)


def _rises(values: Sequence[int]) -> list[int]:
    """Differences to the number before; of the first, itself."""
    return [value - before for value, before in zip(values, [0, *values], strict=False)]


def _restored(values: Sequence[int], shift: int, rises: bool) -> list[int]:
    """A tensor's numbers from those sent: added up, doubled. Raises StreamError."""
    out = [value << shift for value in (accumulate(values) if rises else values)]
    if max(map(abs, out), default=0) >= 2 << MAX_HALVINGS:
        raise out_of_range()
    return out


def _near(magnitude: int | None) -> int:
    return _NEAR - 1 if magnitude is None else min(magnitude.bit_length(), _NEAR - 2)


def _fixed(magnitude: int | None, mean: int) -> int:
    return mean if magnitude is None else magnitude << _FRACTION


def _level(energy: int) -> int:
    length = energy.bit_length()
    half = energy >> (length - 2) & 1 if length > 1 else 0
    return min(max(2 * length + half - 1, 0), _LEVELS - 1)


def out_of_range() -> StreamError:
    """The error of a parameter that is too large."""
    return StreamError(f"a parameter is outside +-{MAX_PARAMETER}; the stream is damaged")


def encode_kind(coder: Encoder, blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> None:
    """Append numbers [n]: parameters, or their differences to predictor [n] where there is one."""
    _Kind(coder, blocks, values.tolist(), None if predictor is None else predictor.tolist()).run()


def decode_kind(coder: Decoder, blocks: Sequence[Block], predictor: Integers | None) -> Integers:
    """Inverse of encode_kind(). Raises StreamError."""
    if kernels.decode is not None:
        fault, coder.at, coder.value, coder.range, values = kernels.decode.parameters(
            coder.data, coder.at, coder.value, coder.range, table(tuple(blocks)), predictor, start_chances()
        )
        if fault:
            raise (ended(), out_of_range())[fault - 1]
        return np.asarray(values, dtype=np.int32)
    return decode_plain(coder, blocks, predictor)


def decode_plain(coder: Decoder, blocks: Sequence[Block], predictor: Integers | None) -> Integers:
    """decode_kind() in Python."""
    values = [0] * sum(block.size for block in blocks)
    _Kind(coder, blocks, values, None if predictor is None else predictor.tolist()).run()
    return np.array(values, dtype=np.int32)


def kind_bits(blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> float:
    """Bits that encode_kind() spends."""
    if kernels.decode is not None:
        cost = kernels.decode.parameter_cost(values, table(tuple(blocks)), predictor, start_chances(), COSTS)
        return float(cost) / COST_UNIT
    return plain_bits(blocks, values, predictor)


def plain_bits(blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> float:
    """kind_bits() in Python."""
    tally = Tally()
    _Kind(tally, blocks, values.tolist(), None if predictor is None else predictor.tolist()).run()
    return tally.cost / COST_UNIT


@cache
def table(blocks: tuple[Block, ...]) -> Integers:
    """The blocks as the kernel takes them: int32 [n, 6]."""
    rows = [(b.start, b.rows, b.columns, b.taps, b.feeder, b.above) for b in blocks]
    return np.array(rows, dtype=np.int32).reshape(len(blocks), 6)


@cache
def start_chances() -> NDArray[np.uint16]:
    """START for the kernel."""
    return np.array(START, dtype=np.uint16)
