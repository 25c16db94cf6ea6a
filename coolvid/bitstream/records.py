"""Headers as declarations: the line that declares a field also writes, reads, checks and documents it.

A `FieldCode` defines how one value is written, read, checked and described. A `Record` is a frozen dataclass whose
fields are declared with `coded(code, meaning)`; a `Layout` assigns codes to the fields of any other dataclass. Bits are
stored most significant first.

    >>> @dataclass(frozen=True)
    ... class Point(Record):
    ...     x: int = coded(U(8), "columns")
    >>> Point(3).pack().hex()
    '03'
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any, Self

from coolvid.errors import ConfigError, StreamError

SoFar = Mapping[str, Any]
MAX_PREFIX = 32


class BitWriter:
    """Collects bits; `n_bits` is their number so far."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._pending = 0
        self._n_pending = 0

    @property
    def n_bits(self) -> int:
        return 8 * len(self._bytes) + self._n_pending

    def write(self, value: int, n_bits: int) -> None:
        """Append the n_bits low bits of value >= 0."""
        self._pending = self._pending << n_bits | value
        self._n_pending += n_bits
        if self._n_pending >= 64:
            self._flush()

    def write_golomb(self, value: int, order: int) -> None:
        """Append value >= 0 as an exp-Golomb code of this order."""
        head = (value >> order) + 1
        n = head.bit_length()
        self.write(head, 2 * n - 1)
        if order:
            self.write(value & ((1 << order) - 1), order)

    def write_bytes(self, data: bytes) -> None:
        """Append whole bytes, at any bit position."""
        if self._n_pending % 8 == 0:
            self._flush()
            self._bytes += data
            return
        for byte in data:
            self.write(byte, 8)

    def _flush(self) -> None:
        keep = self._n_pending % 8
        whole = self._pending >> keep
        self._bytes += whole.to_bytes(self._n_pending // 8, "big")
        self._pending &= (1 << keep) - 1
        self._n_pending = keep

    def getvalue(self) -> bytes:
        """All bits so far, padded with zeros to whole bytes."""
        self._flush()
        tail = bytes([self._pending << (8 - self._n_pending)]) if self._n_pending else b""
        return bytes(self._bytes) + tail


class BitReader:
    """Reads what BitWriter wrote. Raises StreamError past the end; `position` is in bits."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    @property
    def data(self) -> bytes:
        return self._data

    @property
    def n_left(self) -> int:
        return 8 * len(self._data) - self.position

    def read(self, n_bits: int) -> int:
        """The next n_bits as an unsigned integer."""
        end = self.position + n_bits
        last = (end + 7) >> 3
        if last > len(self._data):
            raise StreamError(f"stream ends {end - 8 * len(self._data)} bits too early; it is truncated or damaged")
        window = int.from_bytes(self._data[self.position >> 3 : last], "big")
        self.position = end
        return window >> (8 * last - end) & ((1 << n_bits) - 1)

    def read_golomb(self, order: int) -> int:
        """The value >= 0 of an exp-Golomb code. Raises StreamError for a prefix of more than MAX_PREFIX zeros."""
        first = self.position >> 3
        window = int.from_bytes(self._data[first : first + 9], "big") << 8 * max(0, first + 9 - len(self._data))
        window &= (1 << (72 - (self.position & 7))) - 1
        zeros = 72 - (self.position & 7) - window.bit_length()
        if zeros > MAX_PREFIX:
            raise StreamError("not an exp-Golomb code; the stream is truncated or damaged")
        head = self.read(2 * zeros + 1) - 1
        return head << order | (self.read(order) if order else 0)

    def read_bytes(self, n: int) -> bytes:
        """The next n whole bytes, at any bit position."""
        if 8 * n > self.n_left:
            raise StreamError(f"stream ends {n - self.n_left // 8} bytes too early; it is truncated or damaged")
        if self.position % 8 == 0:
            start = self.position // 8
            self.position += 8 * n
            return self._data[start : start + n]
        return bytes(self.read(8) for _ in range(n))

    def finish(self) -> None:
        """Check that less than a byte is left, all of it zero padding. Raises StreamError."""
        if self.n_left >= 8 or self.read(self.n_left):
            raise StreamError("a header is followed by unexpected bits; the stream is damaged")


def zigzag(value: int) -> int:
    """0, 1, -1, 2, -2 ... -> 0, 1, 2, 3, 4 ..."""
    return 2 * value - 1 if value > 0 else -2 * value


def unzigzag(code: int) -> int:
    """Inverse of zigzag()."""
    return (code + 1) // 2 if code & 1 else -(code // 2)


class FieldCode(ABC):
    """How one value is coded. so_far: the values of the earlier fields of the same record, by name."""

    @abstractmethod
    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        """Raises ConfigError for a value that does not fit."""

    @abstractmethod
    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        """Raises StreamError."""

    @abstractmethod
    def text(self) -> str:
        """One short phrase for the format's documentation."""


def _fits(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ConfigError(f"{value} cannot be written in a stream; choose {low}..{high}")
    return int(value)


@dataclass(frozen=True)
class U(FieldCode):
    """Unsigned integer of `bits` bits, stored minus `low`."""

    bits: int
    low: int = 0

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        high = self.low + (1 << self.bits) - 1
        writer.write(_fits(value, self.low, high) - self.low, self.bits)

    def read(self, reader: BitReader, so_far: SoFar) -> int:
        return reader.read(self.bits) + self.low

    def text(self) -> str:
        return f"u({self.bits})" + (f" + {self.low}" if self.low else "")


@dataclass(frozen=True)
class Golomb(FieldCode):
    """Unsigned integer low..high as an exp-Golomb code of its distance from low."""

    order: int
    high: int
    low: int = 0

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        writer.write_golomb(_fits(value, self.low, self.high) - self.low, self.order)

    def read(self, reader: BitReader, so_far: SoFar) -> int:
        value = reader.read_golomb(self.order) + self.low
        if value > self.high:
            raise StreamError(f"{value} is above the limit of {self.high}; the stream is damaged")
        return value

    def text(self) -> str:
        return f"golomb({self.order})" + (f" + {self.low}" if self.low else "") + f", at most {self.high}"


@dataclass(frozen=True)
class Signed(FieldCode):
    """Integer -limit..limit as an exp-Golomb code of its zigzag number."""

    order: int
    limit: int

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        writer.write_golomb(zigzag(_fits(value, -self.limit, self.limit)), self.order)

    def read(self, reader: BitReader, so_far: SoFar) -> int:
        value = unzigzag(reader.read_golomb(self.order))
        if abs(value) > self.limit:
            raise StreamError(f"{value} is outside +-{self.limit}; the stream is damaged")
        return value

    def text(self) -> str:
        return f"signed golomb({self.order}), at most ±{self.limit}"


@dataclass(frozen=True)
class Flag(FieldCode):
    """One bit."""

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        writer.write(int(bool(value)), 1)

    def read(self, reader: BitReader, so_far: SoFar) -> bool:
        return bool(reader.read(1))

    def text(self) -> str:
        return "flag"


@dataclass(frozen=True)
class OneOf(FieldCode):
    """One of a few values, by its index."""

    values: tuple[Any, ...]
    bits: int

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        if value not in self.values:
            raise ConfigError(f"{value} cannot be written in a stream; choose one of {self.values}")
        writer.write(self.values.index(value), self.bits)

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        index = reader.read(self.bits)
        if index >= len(self.values):
            raise StreamError(f"choice {index} of 0..{len(self.values) - 1}; the stream is damaged")
        return self.values[index]

    def text(self) -> str:
        names = (v.name if isinstance(v, Enum) else str(v) for v in self.values)
        return f"u({self.bits}): " + ", ".join(f"{i} {name}" for i, name in enumerate(names))


@dataclass(frozen=True)
class Many(FieldCode):
    """A tuple. Its length is fixed, a function of the earlier fields, or itself coded."""

    item: FieldCode
    count: int | FieldCode | Callable[[SoFar], int]
    count_text: str = ""

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        if isinstance(self.count, FieldCode):
            self.count.write(writer, len(value), so_far)
        else:
            assert len(value) == self._known(so_far), (value, so_far)
        for each in value:
            self.item.write(writer, each, so_far)

    def read(self, reader: BitReader, so_far: SoFar) -> tuple[Any, ...]:
        n = self.count.read(reader, so_far) if isinstance(self.count, FieldCode) else self._known(so_far)
        return tuple(self.item.read(reader, so_far) for _ in range(n))

    def _known(self, so_far: SoFar) -> int:
        assert not isinstance(self.count, FieldCode)
        return self.count if isinstance(self.count, int) else self.count(so_far)

    def text(self) -> str:
        count = self.count.text() if isinstance(self.count, FieldCode) else self.count_text or str(self.count)
        return f"[{count}] × {self.item.text()}"


@dataclass(frozen=True)
class Maybe(FieldCode):
    """A flag, then the value unless it is None."""

    item: FieldCode

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        writer.write(int(value is not None), 1)
        if value is not None:
            self.item.write(writer, value, so_far)

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        return self.item.read(reader, so_far) if reader.read(1) else None

    def text(self) -> str:
        return f"flag; if set: {self.item.text()}"


@dataclass(frozen=True)
class When(FieldCode):
    """The value if a condition on the earlier fields holds; else None, which takes no bits."""

    condition: Callable[[SoFar], bool]
    condition_text: str
    item: FieldCode

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        if self.condition(so_far):
            self.item.write(writer, value, so_far)
        else:
            assert value is None, (value, so_far)

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        return self.item.read(reader, so_far) if self.condition(so_far) else None

    def text(self) -> str:
        return f"if {self.condition_text}: {self.item.text()}"


class Layout(FieldCode):
    """The fields of a dataclass in the order given; parts: (code, meaning) by field name. name: if not that of cls."""

    def __init__(self, cls: Callable[..., Any], parts: Mapping[str, tuple[FieldCode, str]], name: str = "") -> None:
        self.cls = cls
        self.name = name or getattr(cls, "__name__", "")
        self.parts = parts

    def write(self, writer: BitWriter, value: Any, so_far: SoFar) -> None:
        known: dict[str, Any] = {}
        for name, (code, _) in self.parts.items():
            known[name] = getattr(value, name)
            code.write(writer, known[name], known)

    def read(self, reader: BitReader, so_far: SoFar) -> Any:
        known: dict[str, Any] = {}
        for name, (code, _) in self.parts.items():
            known[name] = code.read(reader, known)
        try:
            return self.cls(**known)
        except ConfigError as error:
            raise StreamError(f"{self.name} in the stream: {error}") from error

    def text(self) -> str:
        return self.name

    def table(self) -> str:
        """Markdown for BITSTREAM.md, one row per field."""
        rows: Sequence[str] = [f"| `{n}` | {code.text()} | {doc} |" for n, (code, doc) in self.parts.items()]
        return "\n".join(("| field | code | meaning |", "|---|---|---|", *rows)) + "\n"


def coded(code: FieldCode, meaning: str) -> Any:
    """Declare a field of a Record."""
    return field(metadata={"code": code, "meaning": meaning})


class Record:
    """Base of headers. Subclasses are frozen dataclasses; coded() declares the fields, and others have defaults."""

    @classmethod
    @cache
    def layout(cls) -> Layout:
        declared = [f for f in fields(cls) if "code" in f.metadata]  # type: ignore[arg-type]
        return Layout(cls, {f.name: (f.metadata["code"], f.metadata["meaning"]) for f in declared})

    def write(self, writer: BitWriter) -> None:
        """Append this record's bits. Raises ConfigError for values that do not fit."""
        self.layout().write(writer, self, {})

    @classmethod
    def read(cls, reader: BitReader) -> Self:
        """The record at the reader's position. Raises StreamError."""
        record = cls.layout().read(reader, {})
        assert isinstance(record, cls)
        return record

    def pack(self) -> bytes:
        """This record alone, padded to whole bytes."""
        writer = BitWriter()
        self.write(writer)
        return writer.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Inverse of pack(). Raises StreamError."""
        reader = BitReader(data)
        record = cls.read(reader)
        reader.finish()
        return record
