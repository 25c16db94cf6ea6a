"""rANS: one sub-stream of latents (Duda, arXiv 1311.2540). 48-bit state, 16-bit words, 16-bit probabilities.

The state stays at 2**32 or more, twice the bits of a probability (a 32-bit state would cost 0.7 % of the rate). The
encoder works backwards from state 1, so the decoder must arrive at 1 after the last word. The encoder writes no word
until the state first reaches 2**32; there the decoder has none left to read. The bytes are the final state without
leading zeros (all bytes if there are at most 6; else 5 if their number is odd, 6 if it is even), then the words in the
order of decoding.

A symbol is coded with a row of laplace.tables(): cell -31..31 or the escape. An escape is followed by the cell's zigzag
number + 1 (as many zeros as it has bits but one, a one, its bits below the top one). Wide scales add low bits. All raw
bits pass through the state.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.coded_frame import MAX_LATENT
from coolvid.codec.laplace import ESCAPE, PROBABILITY_BITS, REACH, tables
from coolvid.errors import StreamError

from .records import unzigzag, zigzag

_LOW = (1 << PROBABILITY_BITS) - 1
_FLOOR_BITS = 32
_START = 1
_HEAD_BYTES = 6
_MAX_LENGTH = 18
Integers = NDArray[np.int32]


class RansEncoder:
    """Collects symbols in decoding order; finish() codes them."""

    def __init__(self) -> None:
        self._starts, self._frequencies = array("I"), array("I")

    def put_bits(self, value: int, n_bits: int) -> None:
        """n_bits (0..16) raw bits."""
        if n_bits:
            self._starts.append(value << (PROBABILITY_BITS - n_bits))
            self._frequencies.append(1 << (PROBABILITY_BITS - n_bits))

    def put_latents(self, values: Integers, centres: Integers, rows: Integers) -> None:
        """Latents values [N], with centres [N] and table rows [N] from laplace.rows()."""
        table = tables()
        shifts = table.shifts[rows]
        cells, low = split(values, centres, shifts)
        symbols = cell_symbols(cells, table.frequencies, rows)
        starts, frequencies = table.starts[rows, symbols], table.frequencies[rows, symbols]
        is_escape = symbols == ESCAPE
        special = np.flatnonzero(is_escape | (shifts > 0))
        done = 0
        for i in special.tolist():
            self._extend(starts[done : i + 1], frequencies[done : i + 1])
            if is_escape[i]:
                self._put_escape(int(cells[i]))
            self.put_bits(int(low[i]), int(shifts[i]))
            done = i + 1
        self._extend(starts[done:], frequencies[done:])

    def _extend(self, starts: Integers, frequencies: Integers) -> None:
        self._starts.frombytes(starts.astype(np.uintc).tobytes())
        self._frequencies.frombytes(frequencies.astype(np.uintc).tobytes())

    def _put_escape(self, cell: int) -> None:
        code = zigzag(cell) + 1
        n = code.bit_length() - 1
        for _ in range(n):
            self.put_bits(0, 1)
        self.put_bits(1, 1)
        rest = code - (1 << n)
        self.put_bits(rest >> 8, max(0, n - 8))
        self.put_bits(rest & 0xFF & ((1 << n) - 1), min(n, 8))

    def finish(self) -> bytes:
        """The bytes of the sub-stream."""
        if kernels.compiled is None:
            return self._finish()
        out: bytes = kernels.compiled.rans(*(np.array(part, np.uint32) for part in (self._starts, self._frequencies)))
        return out

    def _finish(self) -> bytes:
        """finish() in Python: the reference of the compiled kernel."""
        state = _START
        words: list[int] = []
        for start, frequency in zip(reversed(self._starts), reversed(self._frequencies), strict=True):
            if state >= frequency << _FLOOR_BITS:
                words.append(state & _LOW)
                state >>= 16
            cell, within = divmod(state, frequency)
            state = (cell << 16) + within + start
        head = state.to_bytes((state.bit_length() + 7) // 8, "big")
        return head + np.array(words[::-1], dtype=">u2").tobytes()


class RansDecoder:
    """Decodes what RansEncoder coded, in the same order."""

    def __init__(self, data: bytes) -> None:
        n_head = len(data) if len(data) <= _HEAD_BYTES else _HEAD_BYTES - len(data) % 2
        self._state = int.from_bytes(check_head(data)[:n_head], "big")
        self._words: list[int] = np.frombuffer(data, dtype=">u2", offset=n_head).tolist()
        self._next = 0

    def get_bits(self, n_bits: int) -> int:
        """n_bits (0..16) raw bits."""
        drop = PROBABILITY_BITS - n_bits
        slot = self._state & _LOW
        value = slot >> drop
        self._state = (self._state >> 16 << drop) + slot - (value << drop)
        self._refill()
        return value

    def _refill(self) -> None:
        if self._state < 1 << _FLOOR_BITS and self._next < len(self._words):
            self._state = self._state << 16 | self._words[self._next]
            self._next += 1

    def get_latents(self, centres: list[int], rows: list[int]) -> list[int]:
        """The next len(rows) latents. Raises StreamError for one outside +-MAX_LATENT."""
        table = tables()
        cumulative, frequencies, shifts = table.cumulative, table.frequency_lists, table.shift_list
        words, at, state = self._words, self._next, self._state
        n_words = len(words)
        values: list[int] = []
        append = values.append
        for centre, row in zip(centres, rows, strict=True):
            slot = state & _LOW
            starts = cumulative[row]
            symbol = bisect_right(starts, slot) - 1
            state = frequencies[row][symbol] * (state >> 16) + slot - starts[symbol]
            if state < 0x100000000 and at < n_words:
                state = state << 16 | words[at]
                at += 1
            shift = shifts[row]
            if shift or symbol == ESCAPE:
                self._state, self._next = state, at
                append(self._get_special(centre, symbol, shift))
                state, at = self._state, self._next
            else:
                append(centre + symbol - REACH)
        self._state, self._next = state, at
        return values

    def _get_special(self, centre: int, symbol: int, shift: int) -> int:
        cell = self._get_escape() if symbol == ESCAPE else symbol - REACH
        value = centre + (cell << shift) + self.get_bits(shift)
        if abs(value) > MAX_LATENT:
            raise out_of_range(value)
        return value

    def _get_escape(self) -> int:
        n = 0
        while not self.get_bits(1):
            n += 1
            if n > _MAX_LENGTH:
                raise no_escape()
        rest = self.get_bits(max(0, n - 8)) << min(n, 8)
        return unzigzag((1 << n) + rest + self.get_bits(min(n, 8)) - 1)

    def finish(self) -> None:
        """Check that all words are read and the state is 1 again. Raises StreamError."""
        if self._state != _START or self._next < len(self._words):
            raise wrong_end()


def check_head(data: bytes) -> bytes:
    """The bytes of a sub-stream, unchanged. Raises StreamError if they start with a zero."""
    if data and not data[0]:
        raise StreamError("a latent sub-stream starts with a zero byte; the stream is damaged")
    return data


def out_of_range(value: int) -> StreamError:
    return StreamError(f"latent {value} is outside +-{MAX_LATENT}; the stream is damaged")


def no_escape() -> StreamError:
    return StreamError("an escape code is too long; the stream is damaged")


def wrong_end() -> StreamError:
    return StreamError("a latent sub-stream ends in the wrong state; the stream is damaged")


def split(values: Integers, centres: Integers, shifts: Integers) -> tuple[Integers, Integers]:
    """(cells, low bits) of latents [N]."""
    distances = values.astype(np.int32) - centres
    cells = distances >> shifts
    return cells, distances - (cells << shifts)


def cell_symbols(cells: Integers, frequencies: Integers, rows: Integers) -> Integers:
    """The symbol 0..63 of each cell [N]: the escape where the row has frequency 0 for the cell."""
    symbols = np.where(np.abs(cells) <= REACH, cells + REACH, ESCAPE)
    return np.where(frequencies[rows, symbols] > 0, symbols, ESCAPE).astype(np.int32)
