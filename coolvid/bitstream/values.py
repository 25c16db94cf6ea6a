"""Values of any type, for plugin options, and integers of variable size."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coolvid.errors import ConfigError, StreamError, printable

from .records import BitReader, BitWriter, FieldCode, SoFar

MAX_DEPTH = 8
MAX_TEXT = 4096
MAX_INTEGER = 1 << 62


def write_varint(value: int) -> bytes:
    """value >= 0 in 7 bits per byte, low bits first; the top bit is set in all bytes but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, limit: int = 5) -> tuple[int, int]:
    """(value, position after it), of at most `limit` bytes. Raises StreamError."""
    value = 0
    for i, byte in enumerate(data[at : at + limit]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise StreamError("a length field does not end; the stream is truncated or damaged")


@dataclass(frozen=True)
class Usual(FieldCode):
    """A common value as its index from 1; any other as 0 and the value."""

    values: tuple[Any, ...]
    bits: int
    otherwise: FieldCode

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        index = self.values.index(value) + 1 if value in self.values else 0
        writer.write(index, self.bits)
        if not index:
            self.otherwise.write(writer, value, so_far)

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        index = reader.read(self.bits)
        if index > len(self.values):
            raise StreamError(f"choice {index} of 0..{len(self.values)}; the stream is damaged")
        return self.values[index - 1] if index else self.otherwise.read(reader, so_far)

    def text(self) -> str:
        usual = ", ".join(f"{i} {v}" for i, v in enumerate(self.values, 1))
        return f"u({self.bits}): {usual}; 0: {self.otherwise.text()}"


@dataclass(frozen=True)
class Value(FieldCode):
    """An int, bool, float, str, None or nested tuple of these, each with a tag byte (VALUE_TAGS).

    only: the only type allowed; None for any.
    """

    only: type | None = None
    depth: int = 0

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        writer.write_bytes(_pack_value(value))

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        value = self._read(reader, reader.read(8))
        if self.only is not None and not isinstance(value, self.only):
            raise StreamError(f"{value!r:.40} in place of a {self.only.__name__}; the stream is damaged")
        return value

    def _read(self, reader: BitReader, tag: int) -> Any:
        if tag < 0xC0:
            return tag
        if tag < 0xE0:
            return self._read_tuple(reader, tag - 0xC0 if tag < 0xDF else _read_length(reader))
        if tag < 0xF1:
            return _read_text(reader, tag - 0xE0 if tag < 0xF0 else _read_length(reader))
        if tag not in _TAGGED:
            raise StreamError(f"an option starts with the unknown byte {tag:#x}; the stream is damaged")
        return _TAGGED[tag](reader)

    def _read_tuple(self, reader: BitReader, n: int) -> tuple[Any, ...]:
        if self.depth >= MAX_DEPTH or 8 * n > reader.n_left:
            raise StreamError(f"an option has a tuple of {n} values at depth {self.depth}; the stream is damaged")
        item = Value(depth=self.depth + 1)
        return tuple(item.read(reader, {}) for _ in range(n))

    def text(self) -> str:
        return f"value ({self.only.__name__})" if self.only else "value"


VALUE_TAGS = (
    ("00..bf", "the integer 0..191 itself"),
    ("c0..de", "tuple of 0..30 values, which follow"),
    ("df", "tuple, its length as a varint, its values"),
    ("e0..ef", "text of 0..15 bytes of UTF-8, which follow"),
    ("f0", "text, its length as a varint, its bytes"),
    ("f1, f2", "false, true"),
    ("f3, f4", "integer v < 0 as varint -1 - v; integer v > 191 as varint"),
    ("f5", "float, 8 bytes IEEE 754, big-endian"),
    ("f6", "none"),
)


def _read_length(reader: BitReader) -> int:
    """A varint of at most 9 bytes at the reader's position."""
    value = 0
    for i in range(9):
        byte = reader.read(8)
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value
    raise StreamError("a length runs past its end; the stream is damaged")


def _read_text(reader: BitReader, n: int) -> str:
    if n > MAX_TEXT:
        raise StreamError(f"a text of {n} bytes; at most {MAX_TEXT} are allowed")
    try:
        return reader.read_bytes(n).decode()
    except UnicodeDecodeError as error:
        raise StreamError(f"a text is not UTF-8 ({error.reason}); the stream is damaged") from error


def _read_float(reader: BitReader) -> float:
    value: float = struct.unpack(">d", reader.read_bytes(8))[0]
    return value


_TAGGED: dict[int, Callable[[BitReader], Any]] = {
    0xF1: lambda reader: False,
    0xF2: lambda reader: True,
    0xF3: lambda reader: -1 - _read_length(reader),
    0xF4: lambda reader: _read_length(reader),
    0xF5: _read_float,
    0xF6: lambda reader: None,
}


def _pack_value(value: Any, depth: int = 0) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf1", True: b"\xf2"}[value]
    if isinstance(value, int) and abs(value) < MAX_INTEGER:
        if 0 <= value < 0xC0:
            return bytes([value])
        return b"\xf3" + write_varint(-1 - value) if value < 0 else b"\xf4" + write_varint(value)
    if isinstance(value, float):
        return b"\xf5" + struct.pack(">d", value)
    if isinstance(value, str) and len(value.encode()) <= MAX_TEXT:
        return _tag(0xE0, 16, len(value.encode())) + value.encode()
    if isinstance(value, (tuple, list)) and depth < MAX_DEPTH:
        return _tag(0xC0, 31, len(value)) + b"".join(_pack_value(each, depth + 1) for each in value)
    raise ConfigError(
        f"plugin option {printable(repr(value))} cannot be written in a stream; use int, bool, float, str or tuples"
    )


def _tag(base: int, limit: int, length: int) -> bytes:
    return bytes([base + length]) if length < limit else bytes([base + limit]) + write_varint(length)
