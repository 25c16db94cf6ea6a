"""The parameters of one module and kind as bits: the syntax of numbers, over the model of parameter_model.py.

A tensor of zeros is one bit. Any other starts with how often all its numbers can be halved without a remainder (its
step is longer than the module's by that power of two); the numbers follow, halved so often. A row in ascending order,
such as sorted biases, is sent as rises: differences to the number before. A number is a zero flag, its sign, how often
its magnitude can be halved until it is 1, and the bits below the top one. The sign and all but the first of these bits
are raw, all others adaptive. A zero is likely where the predictor of a difference is 0, and where an input has no
weights of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.coded_frame import MAX_PARAMETER
from coolvid.codec.fixed_point import Integers
from coolvid.errors import StreamError

from .adaptive import HALF, BinaryCoder
from .parameter_model import IS_FALL, IS_RISING, NOT_ALL_ZERO, START, Block, ParameterModel, Surroundings
from .range_coder import COST_UNIT, COSTS, BitCounter, RangeDecoder, RangeEncoder, ended

# More halvings than this mean a damaged stream; a difference reaches 2 * MAX_PARAMETER.
MAX_HALVINGS = 24
# The fewest numbers of a row that may be sent as rises.
_LEAST_RISING = 8


def encode_numbers(coder: RangeEncoder, blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> None:
    """Append values [n]: parameters, or their differences to predictor [n] where there is one."""
    _NumberSyntax(coder, blocks, values.tolist(), None if predictor is None else predictor.tolist()).run()


def decode_numbers(coder: RangeDecoder, blocks: Sequence[Block], predictor: Integers | None) -> Integers:
    """Inverse of encode_numbers(), int32 [n]. Raises StreamError."""
    if kernels.decode is None:
        return plain_decode_numbers(coder, blocks, predictor)
    fault, coder.at, coder.value, coder.range, values = kernels.decode.parameters(
        coder.data, coder.at, coder.value, coder.range, table(tuple(blocks)), predictor, start_probabilities()
    )
    if fault:
        raise (ended(), out_of_range())[fault - 1]
    return np.asarray(values, dtype=np.int32)


def plain_decode_numbers(coder: RangeDecoder, blocks: Sequence[Block], predictor: Integers | None) -> Integers:
    """decode_numbers() in Python: the reference of the compiled kernel."""
    unknown = [0] * sum(block.size for block in blocks)
    numbers = _NumberSyntax(coder, blocks, unknown, None if predictor is None else predictor.tolist()).run()
    return np.array(numbers, dtype=np.int32)


def number_bits(blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> float:
    """Bits that encode_numbers() takes."""
    if kernels.decode is None:
        return plain_number_bits(blocks, values, predictor)
    cost = kernels.decode.parameter_cost(values, table(tuple(blocks)), predictor, start_probabilities(), COSTS)
    return float(cost) / COST_UNIT


def plain_number_bits(blocks: Sequence[Block], values: Integers, predictor: Integers | None) -> float:
    """number_bits() in Python: the reference of the compiled kernel."""
    counter = BitCounter()
    _NumberSyntax(counter, blocks, values.tolist(), None if predictor is None else predictor.tolist()).run()
    return counter.cost / COST_UNIT


class _NumberSyntax:
    """Codes the numbers of one kind with any coder. An encoder and a counter take the values given; a decoder ignores
    them. Every method returns what was coded."""

    def __init__(
        self, coder: BinaryCoder, blocks: Sequence[Block], values: list[int], predictor: Sequence[int] | None
    ) -> None:
        self.coder, self.blocks, self.predictor = coder, blocks, predictor
        self.model = ParameterModel(predictor is not None)
        # What is sent: a tensor's values until its turn comes, then halved, and as rises where that is shorter.
        self.sent = list(values)

    def run(self) -> list[int]:
        """All tensors in order; returns the values. Raises StreamError."""
        values, any_before = [0] * len(self.sent), 1
        for block in self.blocks:
            any_before = self._bit(int(any(self.sent[block.span])), NOT_ALL_ZERO + any_before)
            if any_before:
                values[block.span] = self._tensor(block)
        return values

    def _bit(self, bit: int, a: int, b: int | None = None) -> int:
        return self.model.probabilities.code(self.coder, bit, a, b)

    def _tensor(self, block: Block) -> list[int]:
        shift = self._common(halvings(self.sent[block.span]))
        self.sent[block.span] = [value >> shift for value in self.sent[block.span]]
        rises = self._is_rising(block)
        if rises:
            self.sent[block.span] = _rises(self.sent[block.span])
        self._rows(block, rises)
        return _restored(self.sent[block.span], shift, rises)

    def _common(self, wanted: int) -> int:
        """How often all numbers of a tensor can be halved."""
        n = 0
        while self._bit(int(n < wanted), self.model.common(n)):
            n += 1
            if n > MAX_HALVINGS:
                raise out_of_range()
        return n

    def _is_rising(self, block: Block) -> bool:
        """Whether a tensor is sent as rises: an encoder does so where they have less than half the magnitude."""
        if block.rows != 1 or block.columns < _LEAST_RISING or self.predictor is not None:
            return False
        numbers = self.sent[block.span]
        wanted = 2 * sum(map(abs, _rises(numbers))) < sum(map(abs, numbers))
        return bool(self._bit(int(wanted), IS_RISING))

    def _rows(self, block: Block, rises: bool) -> None:
        sent, dead, i = self.sent, self._dead_inputs(block), block.start
        for row in range(block.rows):
            for column in range(block.columns):
                left = abs(sent[i - 1]) if column else None
                left2 = abs(sent[i - 2]) if column > 1 else None
                quiet = dead[column // block.taps] if self.predictor is None else not self.predictor[i]
                around = self.model.surroundings(left, left2, self._above(block, row, i), quiet)
                sent[i] = self._number(sent[i], around, rises)
                self.model.observe(abs(sent[i]))
                i += 1

    def _dead_inputs(self, block: Block) -> list[bool]:
        """For each input, whether all weights that produce it are zero."""
        if block.feeder < 0:
            return [False] * (block.columns // block.taps)
        feeder = self.blocks[block.feeder]
        starts = range(feeder.start, feeder.start + feeder.size, feeder.columns)
        return [not any(self.sent[start : start + feeder.columns]) for start in starts]

    def _above(self, block: Block, row: int, i: int) -> int | None:
        """The magnitude above number i, if there is one."""
        if row:
            return abs(self.sent[i - block.columns])
        if block.above < 0:
            return None
        return abs(self.sent[self.blocks[block.above].start + i - block.start])

    def _number(self, value: int, around: Surroundings, rises: bool) -> int:
        if not self._bit(int(value != 0), *around.not_zero()):
            return 0
        negative = self._bit(int(value < 0), IS_FALL) if rises else self.coder.code(HALF, int(value < 0))
        wanted, n = abs(value).bit_length() - 1, 0
        while self._bit(int(n < wanted), *around.halve(n)):
            n += 1
            if n > MAX_HALVINGS:
                raise out_of_range()
        magnitude = self._below(abs(value), n)
        return -magnitude if negative else magnitude

    def _below(self, magnitude: int, n: int) -> int:
        """The magnitude with n bits below its top one: these bits, the highest of them adaptive."""
        out = 1
        for k in range(n - 1, -1, -1):
            bit = magnitude >> k & 1
            bit = self._bit(bit, self.model.below(n)) if k == n - 1 else self.coder.code(HALF, bit)
            out = out << 1 | bit
        return out


def halvings(values: Sequence[int]) -> int:
    """How often all of these integers can be halved without a remainder; 0 if all are zero."""
    together = 0
    for value in values:
        together |= value
    return max(0, (together & -together).bit_length() - 1)


def _rises(values: Sequence[int]) -> list[int]:
    """Differences to the number before; the first number as it is."""
    return [value - before for value, before in zip(values, [0, *values], strict=False)]


def _restored(sent: Sequence[int], shift: int, rises: bool) -> list[int]:
    """A tensor's values from the numbers sent: summed if they are rises, and doubled. Raises StreamError."""
    out = [value << shift for value in (accumulate(sent) if rises else sent)]
    if max(map(abs, out), default=0) >= 2 << MAX_HALVINGS:
        raise out_of_range()
    return out


def out_of_range() -> StreamError:
    """The error for a parameter of too great a magnitude."""
    return StreamError(f"a parameter is outside +-{MAX_PARAMETER}; the stream is damaged")


@cache
def table(blocks: tuple[Block, ...]) -> Integers:
    """The blocks as the kernel takes them: int32 [n, 6]."""
    rows = [(b.start, b.rows, b.columns, b.taps, b.feeder, b.above) for b in blocks]
    return np.array(rows, dtype=np.int32).reshape(len(blocks), 6)


@cache
def start_probabilities() -> NDArray[np.uint16]:
    """The starting probabilities as the kernel takes them: uint16 [N_CONTEXTS]."""
    return np.array(START, dtype=np.uint16)
