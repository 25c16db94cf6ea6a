"""Headers as declarations: golden bytes in both directions, bounds, and nothing but StreamError for damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from coolvid.bitstream.records import (
    BitReader,
    BitWriter,
    FieldCode,
    Flag,
    Golomb,
    Layout,
    Many,
    Maybe,
    OneOf,
    Record,
    Signed,
    U,
    When,
    coded,
    unzigzag,
    zigzag,
)
from coolvid.errors import ConfigError, StreamError
from coolvid.picture.types import FrameType


@dataclass(frozen=True)
class Header(Record):
    number: int = coded(U(12), "a number")
    frame_type: FrameType = coded(OneOf(tuple(FrameType), 2), "a choice")  # noqa: RUF009
    references: tuple[int, ...] = coded(Many(Signed(0, 9), lambda known: known["frame_type"].value, "references"), "")
    extra: int | None = coded(Maybe(Golomb(2, 100)), "an optional number")
    is_last: bool | None = coded(When(lambda known: known["number"] > 5, "number > 5", Flag()), "a conditional flag")


CASES: list[tuple[Header, str]] = [
    (Header(0, FrameType.I, (), None, None), "0000"),
    (Header(6, FrameType.P, (-3,), None, True), "0064e8"),
    (Header(4095, FrameType.B, (1, -1), 7, False), "fff93ac0"),
]


@pytest.mark.parametrize(("header", "golden"), CASES)
def test_header_is_these_bytes_and_back(header: Header, golden: str) -> None:
    assert header.pack().hex() == golden
    assert Header.unpack(bytes.fromhex(golden)) == header


@pytest.mark.parametrize(("header", "golden"), CASES)
def test_a_cut_or_longer_header_is_an_error(header: Header, golden: str) -> None:
    data = bytes.fromhex(golden)
    for n in range(len(data)):
        with pytest.raises(StreamError):
            Header.unpack(data[:n])
    with pytest.raises(StreamError):
        Header.unpack(data + b"\x00")


CODES: list[tuple[FieldCode, list[Any], list[Any]]] = [
    (U(3), [0, 7], [-1, 8]),
    (U(3, 10), [10, 17], [9, 18]),
    (Golomb(0, 1 << 24), [0, 1, 2, 3, 255, 1 << 24], [-1, (1 << 24) + 1]),
    (Golomb(4, 300, 5), [5, 6, 300], [4, 301]),
    (Signed(1, 1000), [0, 1, -1, 1000, -1000], [1001, -1001]),
    (OneOf(("a", "b", "c"), 2), ["a", "c"], ["d"]),
    (Many(U(4), Golomb(0, 3)), [(), (1, 2, 3)], [(1, 2, 3, 4), (16,)]),
]


@pytest.mark.parametrize(("code", "good", "bad"), CODES)
def test_codes_round_trip_and_refuse(code: FieldCode, good: list[Any], bad: list[Any]) -> None:
    for offset in range(9):
        writer = BitWriter()
        writer.write(0, offset)
        for value in good:
            code.write(writer, value, {})
        reader = BitReader(writer.getvalue(), offset)
        assert [code.read(reader, {}) for _ in good] == good
        assert reader.position == writer.n_bits
        reader.finish()
    for value in bad:
        with pytest.raises(ConfigError):
            code.write(BitWriter(), value, {})


OVERFULL: list[tuple[FieldCode, int, int]] = [(OneOf(("a",), 2), 1, 2), (Golomb(0, 5), 7, 5), (Signed(0, 2), 7, 5)]


@pytest.mark.parametrize(("code", "bits", "n"), OVERFULL)
def test_values_out_of_bounds_are_stream_errors(code: FieldCode, bits: int, n: int) -> None:
    writer = BitWriter()
    writer.write(bits, n)
    with pytest.raises(StreamError, match="damaged"):
        code.read(BitReader(writer.getvalue()), {})


def test_a_layout_turns_config_errors_into_stream_errors() -> None:
    def refuse(x: int) -> int:
        raise ConfigError(f"{x} is wrong")

    with pytest.raises(StreamError, match="255 is wrong"):
        Layout(refuse, {"x": (U(8), "")}).read(BitReader(b"\xff"), {})


def test_endless_zeros_are_no_golomb_code() -> None:
    with pytest.raises(StreamError, match="exp-Golomb"):
        BitReader(bytes(100)).read_golomb(3)
    with pytest.raises(StreamError):
        BitReader(b"").read_golomb(0)


def test_bytes_at_any_bit() -> None:
    for offset in range(9):
        writer = BitWriter()
        writer.write(0, offset)
        writer.write_bytes(b"coolvid")
        reader = BitReader(writer.getvalue(), offset)
        assert reader.read_bytes(7) == b"coolvid"
        with pytest.raises(StreamError):
            reader.read_bytes(1)


def test_zigzag() -> None:
    assert [zigzag(v) for v in (0, 1, -1, 2, -2)] == [0, 1, 2, 3, 4]
    assert all(unzigzag(zigzag(v)) == v for v in range(-50, 50))


def test_a_layout_draws_its_table() -> None:
    assert Header.layout().table().splitlines()[2:5] == [
        "| `number` | u(12) | a number |",
        "| `frame_type` | u(2): 0 I, 1 P, 2 B | a choice |",
        "| `references` | [references] × signed golomb(0), at most ±9 |  |",
    ]
