"""Latent grids <-> bytes, coarsest grid first, each in waves that follow the causal contexts.

Wave t of a grid holds the positions (row r, column c) with c + D r = t, D = wave_delay(n_context): all their
contexts are in earlier waves, so one call of the model covers a wave. Row r of every grid is in sub-stream r mod S.

Payload: two bits log2 S, one bit per grid (coarsest first) that is set if any of its latents is not zero, padding to
whole bytes, the sizes of all sub-streams but the last (varints), the sub-streams. A grid of zeros takes no further
bits; a payload of zeros is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import NEIGHBOURS, Grid, wave_delay
from coolvid.codec.coded_frame import MAX_LATENT
from coolvid.codec.fixed_point import CONTEXT_BITS, INT16_MAX, INT16_MIN, Integers
from coolvid.codec.laplace import ESCAPE, PROBABILITY_BITS, rows, tables
from coolvid.errors import ConfigError, StreamError

from . import compiled
from .rans import RansDecoder, RansEncoder, cell_symbols, check_head, split
from .records import BitReader, BitWriter
from .values import read_varint, write_varint

SUBSTREAMS = (1, 2, 4, 8)
BYTES_PER_SUBSTREAM = 4096
MAX_CENTRE = MAX_LATENT // 2
_PAD = 4
_CHUNK = 1 << 15


class ContextModel(compiled.Foldable, Protocol):
    """The entropy model of one Cool-chic, as the coder sees it."""

    @property
    def n_context(self) -> int:
        """Spatial neighbours in the context."""
        ...

    def features(self, index: int, latents: Sequence[Integers]) -> Integers:
        """Inter-feature contexts int32 [n, h, w] of grid `index`, from the coarser grids of latents (finest first)."""
        ...

    def laplace(self, contexts: Integers) -> Integers:
        """int32 [N, n_context + n], CONTEXT_BITS fractional bits -> (mu, raw log scale) int32 [N, 2], 16 bits."""
        ...


class _GridCoder:
    """The padded plane of one grid, and the contexts that it gives."""

    def __init__(self, grid: Grid, index: int, model: ContextModel, latents: Sequence[Integers]) -> None:
        self.grid = grid
        self.model = model
        self.delay = wave_delay(model.n_context)
        self.stride = grid.width + 2 * _PAD
        self.plane = np.zeros((grid.height + _PAD) * self.stride, dtype=np.int32)
        features = model.features(index, latents)
        self.features = np.ascontiguousarray(features.reshape(len(features), grid.height * grid.width).T)
        steps = [dy * self.stride + dx for dy, dx in NEIGHBOURS[: model.n_context]]
        self.steps = np.array(steps, dtype=np.intp)

    def fill(self, values: Integers) -> None:
        """Set the whole plane to latents [h, w]."""
        inner = self.plane.reshape(-1, self.stride)[_PAD:, _PAD:-_PAD]
        inner[:] = _as_contexts(values)

    def put(self, row: Integers, column: Integers, values: Integers) -> None:
        """Set some positions to their latents [N]."""
        self.plane[(row + _PAD) * self.stride + column + _PAD] = _as_contexts(values)

    def lookup(self, row: Integers, column: Integers) -> tuple[Integers, Integers]:
        """(centre [N], table row [N]) of positions (row [N], column [N]), whose contexts must be in the plane."""
        at = (row + _PAD) * self.stride + column + _PAD
        spatial = self.plane[at[:, None] + self.steps]
        contexts = np.concatenate((spatial, self.features[row * self.grid.width + column]), axis=1)
        return _rows(self.model, contexts)

    def waves(self) -> Iterator[tuple[Integers, Integers]]:
        """(row [N], column [N]) of each wave in turn, rows increasing."""
        height, width = self.grid.shape
        every_row = np.arange(height, dtype=np.int32)
        for t in range(width + self.delay * (height - 1)):
            first = max(0, -(-(t - width + 1) // self.delay))
            row = every_row[first : min(height, t // self.delay + 1)]
            if row.size:
                yield row, t - self.delay * row

    def order(self) -> tuple[Integers, Integers]:
        """(row, column) of all positions in wave order."""
        height, width = self.grid.shape
        row, column = (a.ravel().astype(np.int32) for a in np.indices((height, width)))
        order = np.lexsort((row, column + self.delay * row))
        return row[order], column[order]

    def lookup_all(self, row: Integers, column: Integers) -> tuple[Integers, Integers]:
        """lookup() in chunks, for a complete plane."""
        spans = (slice(i, i + _CHUNK) for i in range(0, row.size, _CHUNK))
        parts = [self.lookup(row[span], column[span]) for span in spans]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _as_contexts(values: Integers) -> Integers:
    """Latents, within +-MAX_LATENT, with CONTEXT_BITS fractional bits, clamped to int16."""
    limited: Integers = np.minimum(np.maximum(values << CONTEXT_BITS, INT16_MIN), INT16_MAX)
    return limited


def _rows(model: ContextModel, contexts: Integers) -> tuple[Integers, Integers]:
    """(centre [N], table row [N]) of contexts [N, n]; centres are clamped to +-MAX_CENTRE."""
    centre, row = rows(model.laplace(contexts))
    return np.minimum(np.maximum(centre, -MAX_CENTRE), MAX_CENTRE), row


def _known(latents: Sequence[Integers], grids: Sequence[Grid]) -> list[tuple[int, Grid, Integers]]:
    """(index, grid, latents) of the grids that are not all zero, coarsest first."""
    out = []
    for index in reversed(range(len(grids))):
        values = latents[index]
        if values.shape != grids[index].shape:
            raise ConfigError(f"latents of shape {values.shape} for a grid of {grids[index].shape}")
        if values.any():
            if np.abs(values.astype(np.int64)).max() > MAX_LATENT:
                raise ConfigError(f"a latent is outside +-{MAX_LATENT}; lower encoder_gain")
            out.append((index, grids[index], values))
    return out


def encode_latents(latents: Sequence[Integers], grids: Sequence[Grid], model: ContextModel) -> bytes:
    """The payload of latents int32 [h, w] (finest first, as grids). Raises ConfigError for values that do not fit."""
    known = _known(latents, grids)
    if not known:
        return b""
    coded = [_coded(_GridCoder(grid, index, model, latents), values) for index, grid, values in known]
    parts = _substreams(coded, 1)
    n_substreams = choose_substreams(len(parts[0]))
    if n_substreams > 1:
        parts = _substreams(coded, n_substreams)
    present = {index for index, _, _ in known}
    return _join([i in present for i in range(len(grids))], parts)


class _Coded(NamedTuple):
    """A grid's latents in wave order, int32 [N] each."""

    row: Integers
    values: Integers
    centre: Integers
    table_row: Integers


def _coded(coder: _GridCoder, values: Integers) -> _Coded:
    coder.fill(values)
    row, column = coder.order()
    return _Coded(row, values[row, column], *coder.lookup_all(row, column))


def _substreams(grids: Sequence[_Coded], n: int) -> list[bytes]:
    encoders = [RansEncoder() for _ in range(n)]
    for grid in grids:
        for s, encoder in enumerate(encoders):
            own = grid.row % n == s
            encoder.put_latents(grid.values[own], grid.centre[own], grid.table_row[own])
    return [encoder.finish() for encoder in encoders]


def choose_substreams(n_bytes: int) -> int:
    """The number of sub-streams for latents of n_bytes; each costs 3 to 4 bytes."""
    return max(s for s in SUBSTREAMS if s == 1 or n_bytes >= s * BYTES_PER_SUBSTREAM)


def _join(present: Sequence[bool], parts: Sequence[bytes]) -> bytes:
    writer = BitWriter()
    writer.write(SUBSTREAMS.index(len(parts)), 2)
    for flag in reversed(present):
        writer.write(int(flag), 1)
    sizes = b"".join(write_varint(len(part)) for part in parts[:-1])
    return writer.getvalue() + sizes + b"".join(parts)


def _split(data: bytes, n_grids: int) -> tuple[list[bool], list[bytes]]:
    """(whether each grid is present, finest first, sub-streams). Raises StreamError."""
    reader = BitReader(data)
    n_substreams = SUBSTREAMS[reader.read(2)]
    present = [bool(reader.read(1)) for _ in range(n_grids)][::-1]
    if not any(present) or reader.read(-reader.position % 8):
        raise StreamError("a latent payload has an invalid header; the stream is damaged")
    sizes = []
    at = reader.position // 8
    for _ in range(n_substreams - 1):
        size, at = read_varint(data, at)
        sizes.append(size)
    parts = []
    for size in [*sizes, len(data) - at - sum(sizes)]:
        if not 0 <= size <= len(data) - at:
            raise StreamError(
                f"a latent sub-stream of {size} bytes, but only {len(data) - at} are left; damaged stream"
            )
        parts.append(check_head(data[at : at + size]))
        at += size
    return present, parts


def decode_latents(data: bytes, grids: Sequence[Grid], model: ContextModel) -> tuple[Integers, ...]:
    """Inverse of encode_latents(). Raises StreamError for bytes that encode_latents cannot have written."""
    if not data:
        return _zeros(grids)
    present, parts = _split(data, len(grids))
    form = compiled.folded(model)
    if form is not None:
        return compiled.decode_latents(parts, grids, present, model.n_context, form)
    return _decode_plain(parts, grids, present, model)


def _zeros(grids: Sequence[Grid]) -> tuple[Integers, ...]:
    return tuple(np.zeros(grid.shape, dtype=np.int32) for grid in grids)


def _decode_plain(
    parts: Sequence[bytes], grids: Sequence[Grid], present: Sequence[bool], model: ContextModel
) -> tuple[Integers, ...]:
    latents = list(_zeros(grids))
    decoders = [RansDecoder(part) for part in parts]
    for index in reversed(range(len(grids))):
        if present[index]:
            latents[index] = _decode_grid(_GridCoder(grids[index], index, model, latents), decoders)
    for decoder in decoders:
        decoder.finish()
    return tuple(latents)


def _decode_grid(coder: _GridCoder, decoders: Sequence[RansDecoder]) -> Integers:
    n = len(decoders)
    out = np.zeros(coder.grid.shape, dtype=np.int32)
    for row, column in coder.waves():
        centre, table_row = coder.lookup(row, column)
        values = np.empty(row.size, dtype=np.int32)
        for i in range(min(n, row.size)):
            decoder = decoders[int(row[i]) % n]
            values[i::n] = decoder.get_latents(centre[i::n].tolist(), table_row[i::n].tolist())
        coder.put(row, column, values)
        out[row, column] = values
    return out


def latent_bits(latents: Sequence[Integers], grids: Sequence[Grid], model: ContextModel) -> list[NDArray[np.float64]]:
    """Cost of every latent in bits, [h, w] per grid, finest first, by the tables; 0 in a grid of zeros."""
    out = [np.zeros(grid.shape) for grid in grids]
    for index, grid, values in _known(latents, grids):
        coder = _GridCoder(grid, index, model, latents)
        coder.fill(values)
        row, column = coder.order()
        centre, table_row = coder.lookup_all(row, column)
        out[index][row, column] = _symbol_bits(values[row, column], centre, table_row)
    return out


def _symbol_bits(values: Integers, centres: Integers, table_rows: Integers) -> NDArray[np.float64]:
    table = tables()
    shifts = table.shifts[table_rows]
    cells, _ = split(values, centres, shifts)
    symbols = cell_symbols(cells, table.frequencies, table_rows)
    bits: NDArray[np.float64] = PROBABILITY_BITS - np.log2(table.frequencies[table_rows, symbols]) + shifts
    codes = np.where(cells > 0, 2 * cells, 1 - 2 * cells).astype(np.float64)
    return bits + np.where(symbols == ESCAPE, 2 * np.frexp(codes)[1] - 1, 0)
