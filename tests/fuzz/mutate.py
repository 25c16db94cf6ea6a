"""Streams that nobody has written: the golden ones, damaged where it hurts, with checksums that are right again.

The structure comes from coolvid.bitstream: a header is written by its own layout, from a copy in which any field may
hold any value.
"""

import dataclasses
import random
from contextlib import suppress
from enum import Enum
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from coolvid.bitstream.crc import CRC_BYTES, sealed
from coolvid.bitstream.headers import FRAME, MAGIC, PLAIN_VERSION, StreamHeader, Table
from coolvid.bitstream.packet import PacketHeader
from coolvid.bitstream.records import BitReader, BitWriter, Many, U
from coolvid.bitstream.stream import StreamReader, SyncPoint, pack_index
from coolvid.bitstream.values import read_varint, write_varint
from coolvid.errors import CoolvidError

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    31,
    48,
    64,
    96,
    127,
    128,
    255,
    256,
    1023,
    1 << 14,
    1 << 20,
    (1 << 24) - 1,
)
TEXTS = ("", "mlp", "conv", "separable", "sinc", "\x1b[2J", "\u202e", "x" * 4000)
TRIES = 20


@dataclasses.dataclass
class Parts:
    """A stream taken apart: the header, each packet's bytes, and what follows the packets."""

    header: StreamHeader
    packets: list[bytes]
    tail: bytes

    @classmethod
    def of(cls, stream: bytes) -> "Parts":
        header, start = StreamHeader.parse(stream)
        reader = StreamReader(stream)
        packets = [reader.read(i) for i in range(len(reader))]
        return cls(header, packets, stream[start + sum(map(len, packets)) :])

    def joined(self, header: bytes | None = None) -> bytes:
        return (self.header.pack() if header is None else header) + b"".join(self.packets) + self.tail


@cache
def corpus() -> tuple[bytes, ...]:
    """The golden streams."""
    return tuple(path.read_bytes() for path in sorted(GOLDEN.glob("*.cvd")))


def case(seed: int) -> bytes:
    """The stream of a seed, the same for ever."""
    rng = random.Random(seed)
    parts = Parts.of(rng.choice(corpus()))
    for _ in range(rng.choice((0, 0, 1, 2))):
        with suppress(CoolvidError, ValueError):  # of a packet whose header is damaged already
            rng.choice(PACKETS)(rng, parts)
    return rng.choice(STREAMS)(rng, parts)


# -- any field, any value ----------------------------------------------------------------------------------------------


def loose(value):
    """A copy of nested dataclasses, tuples and fractions in which every value can be changed."""
    if isinstance(value, tuple):
        return [loose(each) for each in value]
    if isinstance(value, Fraction):
        return SimpleNamespace(numerator=value.numerator, denominator=value.denominator)
    if dataclasses.is_dataclass(value):
        return SimpleNamespace(**{f.name: loose(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


def hostile(rng, value):
    """Another value of about the same type."""
    if isinstance(value, Enum):
        return rng.choice(list(type(value)))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + rng.choice((-1, 1)), rng.choice(NUMBERS), rng.randrange(1 << rng.randrange(1, 32))))
    if isinstance(value, str):
        return rng.choice(TEXTS)
    if isinstance(value, list):
        return rng.choice(([], value + value, value[:-1], [*value, rng.choice(NUMBERS)], nested(rng)))
    return rng.choice((None, rng.choice(NUMBERS), [rng.choice(NUMBERS)] * rng.randrange(4)))


def nested(rng, depth=0):
    """An option value: tuples of everything."""
    if depth > 9 or rng.random() < 0.5:
        return rng.choice((True, None, 0.5, float("nan"), -3, 1 << 61, *TEXTS))
    return [nested(rng, depth + 1) for _ in range(rng.randrange(4))]


def change(rng, holder) -> None:
    """Give one value somewhere inside a loose() copy a hostile() one."""
    names = range(len(holder)) if isinstance(holder, list) else list(vars(holder))
    if not names:
        return
    name = rng.choice(names)
    inner = holder[name] if isinstance(holder, list) else getattr(holder, name)
    if isinstance(inner, list | SimpleNamespace) and rng.random() < 0.85:
        change(rng, inner)
    elif isinstance(holder, list):
        holder[name] = hostile(rng, inner)
    else:
        setattr(holder, name, hostile(rng, inner))


def rewritten(rng, record) -> BitWriter:
    """A record with one or two changed values, written by its layout; unchanged if nothing else can be written."""
    for _ in range(TRIES):
        copy, writer = loose(record), BitWriter()
        for _ in range(rng.choice((1, 1, 2))):
            change(rng, copy)
        try:
            record.layout().write(writer, copy, {})
            writer.getvalue()
            return writer
        except (CoolvidError, AssertionError, TypeError, ValueError, AttributeError, OverflowError):
            continue
    writer = BitWriter()
    record.write(writer)
    return writer


def flipped(rng, data: bytes, start: int = 0, end: int | None = None, most: int = 8) -> bytes:
    """Some bits between two bit positions turned over."""
    out, end = bytearray(data), 8 * len(data) if end is None else end
    for _ in range(rng.randrange(1, most + 1) if end > start else 0):
        at = rng.randrange(start, end)
        out[at >> 3] ^= 0x80 >> (at & 7)
    return bytes(out)


def noise(rng, most: int) -> bytes:
    return rng.choice((rng.randbytes(rng.randrange(most + 1)), bytes([rng.randrange(256)]) * rng.randrange(most + 1)))


# -- headers -----------------------------------------------------------------------------------------------------------


def header_of(body: bytes) -> bytes:
    return sealed(MAGIC + bytes([PLAIN_VERSION]) + write_varint(len(body)) + body)


def changed_header(rng, parts: Parts) -> bytes:
    return parts.joined(header_of(rewritten(rng, parts.header).getvalue()))


def flipped_header(rng, parts: Parts) -> bytes:
    writer = BitWriter()
    parts.header.write(writer)
    return parts.joined(header_of(flipped(rng, writer.getvalue())))


def flipped_table(rng, parts: Parts) -> bytes:
    """Bits of the table of configurations turned over, before it is deflated."""
    writer, known = BitWriter(), vars(parts.header)
    for name, (code, _) in StreamHeader.layout().parts.items():
        if not isinstance(code, Table):
            code.write(writer, known[name], known)
            continue
        table = BitWriter()
        Many(FRAME, U(8)).write(table, known[name], {})
        writer.write(0, 1 + -(writer.n_bits + 1) % 8)  # not deflated, and padding
        writer.write_bytes(flipped(rng, table.getvalue()))
    return parts.joined(header_of(writer.getvalue()))


# -- packets -----------------------------------------------------------------------------------------------------------


def opened(packet: bytes) -> tuple[BitReader, PacketHeader, int]:
    """(reader at the start of the networks, header, first byte of the latents)."""
    reader = BitReader(packet[:-CRC_BYTES], 8 * read_varint(packet, 0)[1])
    header = PacketHeader.read(reader)
    return reader, header, len(packet) - CRC_BYTES - sum(header.latent_sizes)


def packet_of(body: bytes) -> bytes:
    return sealed(write_varint(len(body)) + body)


def with_networks(header: BitWriter, reader: BitReader, latents: bytes) -> bytes:
    """A packet with this header, the networks that the reader stands at, and these latents."""
    n_bits = 8 * (len(reader.data) - len(latents)) - reader.position
    header.write(reader.read(n_bits) if n_bits > 0 else 0, max(0, n_bits))
    return packet_of(header.getvalue() + latents)


def one(rng, parts: Parts) -> int:
    return rng.randrange(len(parts.packets))


def changed_packet(rng, parts: Parts) -> None:
    i = one(rng, parts)
    reader, header, latents = opened(parts.packets[i])
    parts.packets[i] = with_networks(rewritten(rng, header), reader, reader.data[latents:])


def flipped_packet(rng, parts: Parts) -> None:
    """Bits turned over in the header, the networks or the latents of a packet."""
    i = one(rng, parts)
    reader, _, latents = opened(parts.packets[i])
    start = read_varint(parts.packets[i], 0)[1]
    spans = ((8 * start, reader.position), (reader.position, 8 * latents), (8 * latents, 8 * len(reader.data)))
    damaged = flipped(rng, reader.data, *rng.choice(spans), most=rng.choice((1, 3, 40)))
    parts.packets[i] = packet_of(damaged[start:])


def other_latents(rng, parts: Parts) -> None:
    """Latents of another packet, cut or made of noise; the header names their sizes."""
    i = one(rng, parts)
    reader, header, latents = opened(parts.packets[i])
    other = parts.packets[one(rng, parts)]
    source = rng.choice((reader.data[latents:], other[opened(other)[2] : -CRC_BYTES], noise(rng, 400)))
    made = [source[rng.randrange(len(source) + 1) :][: rng.randrange(400)] for _ in header.latent_sizes]
    writer = BitWriter()
    dataclasses.replace(header, latent_sizes=tuple(map(len, made))).write(writer)
    n_bits = 8 * latents - reader.position
    writer.write(reader.read(n_bits), n_bits)
    parts.packets[i] = packet_of(writer.getvalue() + b"".join(made))


def other_networks(rng, parts: Parts) -> None:
    """Networks made of noise, or cut."""
    i = one(rng, parts)
    reader, header, latents = opened(parts.packets[i])
    writer = BitWriter()
    header.write(writer)
    own = flipped(rng, reader.data, reader.position, 8 * latents, most=1)[reader.position >> 3 : latents]
    writer.write_bytes(rng.choice((own[: rng.randrange(len(own) + 1)], noise(rng, 300))))
    parts.packets[i] = packet_of(writer.getvalue() + reader.data[latents:])


def reordered(rng, parts: Parts) -> None:
    i, j = one(rng, parts), one(rng, parts)
    parts.packets[i], parts.packets[j] = parts.packets[j], parts.packets[i]


def repeated(rng, parts: Parts) -> None:
    parts.packets.insert(one(rng, parts), parts.packets[one(rng, parts)])


def dropped(rng, parts: Parts) -> None:
    if len(parts.packets) > 1:
        del parts.packets[one(rng, parts)]


def from_another(rng, parts: Parts) -> None:
    """A packet of another stream."""
    parts.packets[one(rng, parts)] = rng.choice(Parts.of(rng.choice(corpus())).packets)


def miscounted(rng, parts: Parts) -> None:
    parts.header = dataclasses.replace(parts.header, n_frames=rng.choice((0, 1, len(parts.packets), 1 << 20)))


# -- whole streams -----------------------------------------------------------------------------------------------------


def as_is(rng, parts: Parts) -> bytes:
    return parts.joined()


def truncated(rng, parts: Parts) -> bytes:
    whole = parts.joined()
    return whole[: rng.randrange(len(whole) + 1)]


def flipped_anywhere(rng, parts: Parts) -> bytes:
    return flipped(rng, parts.joined(), most=4)


def spliced(rng, parts: Parts) -> bytes:
    """The start of one stream and the rest of another."""
    mine, other = parts.joined(), rng.choice(corpus())
    return mine[: rng.randrange(len(mine))] + other[rng.randrange(len(other)) :]


def other_header(rng, parts: Parts) -> bytes:
    other = Parts.of(rng.choice(corpus())).header
    return parts.joined(dataclasses.replace(other, n_frames=len(parts.packets)).pack())


def other_index(rng, parts: Parts) -> bytes:
    points = [SyncPoint(rng.randrange(20), rng.randrange(3000)) for _ in range(rng.randrange(1, 6))]
    points.sort(key=lambda point: (point.packet, point.offset))
    points = [SyncPoint(p.packet, sum(q.offset for q in points[: i + 1])) for i, p in enumerate(points)]
    parts.tail = rng.choice((flipped(rng, pack_index(points)), pack_index(points), parts.tail + noise(rng, 40)))
    return parts.joined()


PACKETS = (
    *(changed_packet, flipped_packet, other_latents, other_networks, from_another),
    *(reordered, repeated, dropped, miscounted),
)
STREAMS = (
    *(as_is,) * 4,
    *(changed_header,) * 2,
    *(flipped_header, flipped_table, truncated, flipped_anywhere, spliced, other_header, other_index),
)
