"""Stream header, file layout, index: goldens, round trips, and fuzz: StreamError or the same content, never else."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from coolvid.bitstream.crc import sealed
from coolvid.bitstream.headers import FORMAT_VERSION, MAGIC, StreamHeader
from coolvid.bitstream.packet import Packet, PacketHeader, read_info
from coolvid.bitstream.records import BitReader, BitWriter
from coolvid.bitstream.stream import StreamReader, StreamWriter, SyncPoint
from coolvid.bitstream.tables import field_tables, refresh
from coolvid.bitstream.values import MAX_DEPTH, Value, read_varint, write_varint
from coolvid.codec.architecture import Architecture, FrameArchitecture, PluginRecord
from coolvid.errors import ConfigError, InputError, OutputError, StreamError, UnsupportedStream
from coolvid.files import growing
from coolvid.picture.types import ColorInfo, FrameType, PixelFormat, VideoFormat

MLP = PluginRecord("mlp", 1, (2, True))
SEPARABLE = PluginRecord("separable", 1, (8, 7))
SINC = PluginRecord("sinc", 1, (8,))


def architecture(n_out: int) -> Architecture:
    conv = PluginRecord("conv", 1, (((16, 1, False, True), (n_out, 1, False, False)), True))
    return Architecture((0, 6), (4, 6), (0, 2), 2, 10, False, "bicubic", n_out, MLP, SEPARABLE, conv)


INTRA = FrameArchitecture(FrameType.I, architecture(3), None, None)
P = FrameArchitecture(FrameType.P, architecture(4), architecture(2), SINC)
B = FrameArchitecture(FrameType.B, architecture(5), architecture(4), SINC)
HEADER = StreamHeader(
    VideoFormat(288, 352, PixelFormat.YUV420, 8), Fraction(25), ColorInfo(), 4, 8, 32, False, (INTRA, P, B)
)
ODD_PLUGIN = PluginRecord("my_arm", 255, (-1, 0.5, "é" * 20, (), ((((1 << 40,),),),), None, 191, 192, tuple(range(40))))
ODD = replace(architecture(3), common_randomness=True, hyperlatent_resolution=None, final_upsampling="nearest")
HEADERS = [
    HEADER,
    replace(HEADER, n_frames=(1 << 24) - 1, gop=4096, intra_period=1_000_000, low_delay=True),
    replace(HEADER, format=VideoFormat(16, 16384, PixelFormat.RGB, 10), fps=Fraction(123456789, 1001)),
    replace(HEADER, color=ColorInfo(9, 16, 9, 1), configurations=(INTRA,)),
    replace(HEADER, configurations=(FrameArchitecture(FrameType.I, replace(ODD, arm=ODD_PLUGIN), None, None),)),
    replace(HEADER, configurations=(INTRA, P, B) * 85),
]


@pytest.mark.parametrize("header", HEADERS)
def test_header_round_trip(header: StreamHeader) -> None:
    data = header.pack()
    assert StreamHeader.unpack(data) == header
    assert StreamHeader.parse(data + b"more") == (header, len(data))
    assert len(replace(header, n_frames=1).pack()) == len(data)


# The table of this golden is not deflated, because deflaters differ in how well they do.
GOLDEN = (
    "8f4356440442047c15f044000013ca0001000006000406000002020a000203e36d6c7001c202f2e9736570617261626c"
    "6501c20807e4636f6e7601c2c2c41001f1f2c40301f1f1f2985aa40f"
)


def test_golden_header() -> None:
    assert StreamHeader.unpack(bytes.fromhex(GOLDEN)) == replace(HEADER, configurations=(INTRA,))


def test_headers_are_small() -> None:
    assert len(HEADER.pack()) <= 64
    assert len(HEADERS[3].pack()) <= 48


BAD_HEADERS = [
    replace(HEADER, n_frames=1 << 24),
    replace(HEADER, gop=0),
    replace(HEADER, configurations=()),
    replace(HEADER, configurations=(INTRA,) * 256),
    replace(HEADER, fps=Fraction(0)),
]


@pytest.mark.parametrize("header", BAD_HEADERS)
def test_headers_that_do_not_fit(header: StreamHeader) -> None:
    with pytest.raises(ConfigError, match="a stream"):
        header.pack()


BAD_VALUES = [1 << 62, -(1 << 62), b"bytes", {}, "x" * 4097, ((((((((1,),),),),),),),)]


@pytest.mark.parametrize("value", BAD_VALUES)
def test_values_that_do_not_fit(value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Value().write(BitWriter(), (value,), {})


BAD_VALUE_BITS = [
    "",
    "f7",
    "ff",
    "c1",
    "dfffffffff7f",
    "f0ffff7f",
    "e1ff",
    "f480",
    "f4" + "ff" * 9,
    "c1" * (MAX_DEPTH + 1),
]


@pytest.mark.parametrize("bits", BAD_VALUE_BITS)
def test_value_bits_that_cannot_be(bits: str) -> None:
    with pytest.raises(StreamError):
        Value().read(BitReader(bytes.fromhex(bits)), {})


def test_values_have_their_type() -> None:
    with pytest.raises(StreamError, match="str"):
        Value(str).read(BitReader(b"\x05"), {})


def test_a_newer_format_says_so() -> None:
    data = MAGIC + bytes([FORMAT_VERSION + 1]) + HEADER.pack()[5:]
    with pytest.raises(UnsupportedStream, match="newer coolvid"):
        StreamHeader.parse(data)


def test_something_else_is_not_a_stream() -> None:
    for data in (b"", b"RIFF....AVI ", MAGIC, MAGIC + bytes([FORMAT_VERSION])):
        with pytest.raises(StreamError):
            StreamReader(data)


def packet(frame_type: FrameType, index: int, *references: int, predictor: int | None = None) -> Packet:
    """One whose predictor is given as a distance from its own index."""
    steps = tuple(r - index for r in references)
    sizes, is_copy = ((3,), None) if frame_type is FrameType.I else ((3, 0), False)
    body = (
        PacketHeader(frame_type.value, frame_type, index, steps, None, is_copy, predictor, None, sizes).pack() + b"abc"
    )
    data = sealed(write_varint(len(body)) + body)
    return Packet(data, read_info(data, replace(HEADER, n_frames=0)))


PACKETS = [
    packet(FrameType.I, 0),
    packet(FrameType.P, 2, 0),
    packet(FrameType.B, 1, 0, 2),
    packet(FrameType.I, 3),
]


def written(header: StreamHeader = HEADER, index: bool = True, n: int = 4) -> bytes:
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    for each in PACKETS[:n]:
        writer.append(each)
    assert writer.close(index) == len(file.getvalue()) == writer.n_bytes == writer.close()
    return file.getvalue()


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("n_frames", [0, 4])
def test_stream_round_trip(index: bool, n_frames: int) -> None:
    reader = StreamReader(written(replace(HEADER, n_frames=n_frames), index))
    assert reader.header == HEADER and len(reader) == 4
    assert [reader.read(i) for i in range(4)] == [p.data for p in PACKETS]
    assert reader.packets == tuple(p.info for p in PACKETS)
    start = len(HEADER.pack())
    last = start + sum(len(p.data) for p in PACKETS[:3])
    assert reader.sync_points == (SyncPoint(0, start), SyncPoint(3, last))
    with pytest.raises(StreamError, match="packet 4 of"):
        reader.read(4)


def stream_of(*packets: Packet) -> bytes:
    return replace(HEADER, n_frames=0).pack() + b"".join(p.data for p in packets)


B_FRAMES = [packet(FrameType.B, i, 0, 2) for i in range(3, 11)]


def test_packets_name_their_predictor() -> None:
    near = packet(FrameType.B, 20, 0, 2, predictor=-10)
    oldest = packet(FrameType.B, 20, 0, 2, predictor=-17)
    for last, index in ((near, 10), (oldest, 3)):
        assert StreamReader(stream_of(*PACKETS[:2], *B_FRAMES, last)).packets[-1].predictor == index
    assert StreamReader(stream_of(*PACKETS)).packets[-1].predictor is None


HOSTILE_PREDICTORS = [
    ((*PACKETS[:2], packet(FrameType.B, 1, 0, 2, predictor=8)), r"of frame 9; those of \[0, 2\] are kept"),
    ((*PACKETS, packet(FrameType.B, 5, 0, 2, predictor=-4)), r"of frame 1; those of \[3\] are kept"),
    (
        (*PACKETS[:3], *B_FRAMES, packet(FrameType.B, 20, 0, 2, predictor=-19)),
        r"of frame 1; those of \[3, 4, 5, 6, 7, 8, 9, 10\] are kept",
    ),
]


@pytest.mark.parametrize(("packets", "message"), HOSTILE_PREDICTORS)
def test_only_the_networks_of_eight_frames_since_the_last_intra_are_kept(
    packets: tuple[Packet, ...], message: str
) -> None:
    with pytest.raises(StreamError, match=message):
        _ = StreamReader(stream_of(*packets)).packets


def test_one_intra_frame_needs_no_index() -> None:
    header = replace(HEADER, n_frames=3)
    assert written(header, n=3) == written(header, index=False, n=3)


def test_damage_to_the_index_is_harmless() -> None:
    with_index, without = written(), written(index=False)
    expected = StreamReader(with_index).sync_points
    for position in range(len(without), len(with_index)):
        damaged = with_index[:position] + bytes([with_index[position] ^ 0x10]) + with_index[position + 1 :]
        assert StreamReader(damaged).sync_points == expected
        assert StreamReader(with_index[:position]).sync_points == expected


def content(data: bytes) -> object:
    reader = StreamReader(data)
    return reader.header, reader.packets, [reader.read(i) for i in range(len(reader))], reader.sync_points


def test_every_flipped_bit_is_found_or_harmless() -> None:
    data = written()
    expected = content(data)
    n_harmless = 0
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        try:
            assert content(bytes(damaged)) == expected
            n_harmless += 1
        except StreamError:
            pass
    assert n_harmless == 8 * (len(data) - len(written(index=False)))


def test_every_cut_is_found() -> None:
    data = written(index=False)
    for n in range(len(data)):
        with pytest.raises(StreamError):
            content(data[:n])


@pytest.mark.parametrize("seed", range(5))
def test_garbage_is_no_stream(seed: int) -> None:
    noise = random.Random(seed)
    start = HEADER.pack()
    for _ in range(40):
        for prefix in (b"", MAGIC, MAGIC + bytes([FORMAT_VERSION]), start):
            with pytest.raises(StreamError):
                content(prefix + noise.randbytes(noise.randrange(300)))


def test_damage_under_a_correct_checksum() -> None:
    """Headers damaged and sealed again are read as some header or refused; nothing else, and no huge allocation."""
    noise = random.Random(1)
    for header in HEADERS[:5]:
        data = header.pack()[:-4]
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(noise.randrange(1, 4)):
                damaged[noise.randrange(6, len(data))] ^= 1 << noise.randrange(8)
            try:
                StreamHeader.unpack(sealed(bytes(damaged)))
            except StreamError:
                continue


ORDERS: list[tuple[list[Packet], str]] = [
    ([PACKETS[0], PACKETS[0], PACKETS[1], PACKETS[2]], "frame 0 appears twice"),
    ([PACKETS[1], PACKETS[0], PACKETS[2], PACKETS[3]], "refers to frame 0, which does not precede it"),
]


@pytest.mark.parametrize(("packets", "message"), ORDERS)
def test_impossible_orders(packets: list[Packet], message: str) -> None:
    reader = StreamReader(HEADER.pack() + b"".join(p.data for p in packets))
    with pytest.raises(StreamError, match=message):
        _ = reader.packets


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "video.cvd"
    with growing(out) as file, StreamWriter(file, HEADER) as writer:
        for i, each in enumerate(PACKETS):
            writer.append(each)
            assert not out.exists()
            assert len(StreamReader(tmp_path / "video.cvd.part")) == i + 1
    assert out.read_bytes() == written()
    assert os.listdir(tmp_path) == ["video.cvd"]


def test_a_part_may_end_anywhere(tmp_path: Path) -> None:
    part = tmp_path / "video.cvd.part"
    data = written()
    part.write_bytes(data[: len(HEADER.pack()) + len(PACKETS[0].data) + 5])
    assert StreamReader(part).packets == (PACKETS[0].info,)
    with pytest.raises(StreamError, match="packet 1 of 4"):
        _ = StreamReader(part, partial=False).packets


FAILURES: list[tuple[type[BaseException], list[str]]] = [(ValueError, []), (KeyboardInterrupt, ["video.cvd.part"])]


@pytest.mark.parametrize(("error", "left"), FAILURES)
def test_an_error_deletes_and_an_interrupt_keeps_the_part(
    error: type[BaseException], left: list[str], tmp_path: Path
) -> None:
    with pytest.raises(error), growing(tmp_path / "video.cvd") as file, StreamWriter(file, HEADER) as writer:
        writer.append(PACKETS[0])
        raise error
    assert os.listdir(tmp_path) == left


@pytest.mark.parametrize("n_there", [0, len(HEADER.pack()) + 5])
def test_a_full_disk(n_there: int) -> None:
    class Disk(io.BytesIO):
        name = "video.cvd.part"

        def write(self, data: Any) -> int:
            if self.tell() + len(data) > n_there:
                raise OSError(28, "No space left on device")
            return super().write(data)

    with pytest.raises(OutputError, match=r"cannot write video\.cvd\.part: No space left"):
        StreamWriter(Disk(), HEADER).append(PACKETS[0])


def test_an_error_leaves_the_stream_unfinished() -> None:
    file = io.BytesIO()
    with pytest.raises(KeyError), StreamWriter(file, replace(HEADER, n_frames=0)) as writer:
        for each in PACKETS:
            writer.append(each)
        raise KeyError
    assert file.getvalue() == replace(HEADER, n_frames=0).pack() + b"".join(p.data for p in PACKETS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        StreamReader(tmp_path / "absent.cvd")


def test_varint() -> None:
    for value, coded in ((0, "00"), (127, "7f"), (128, "8001"), (1 << 34, "808080804" + "0")):
        assert write_varint(value).hex() == coded
        assert read_varint(bytes.fromhex("ff" + coded), 1) == (value, 1 + len(coded) // 2)
    for bad in (b"", b"\x80", b"\xff" * 5 + b"\x00"):
        with pytest.raises(StreamError):
            read_varint(bad, 0)


def test_the_documentation_shows_the_declarations() -> None:
    text = (Path(__file__).parents[1] / "docs" / "BITSTREAM.md").read_text()
    assert refresh(text) == text, "docs/BITSTREAM.md: run coolvid.bitstream.tables.refresh over it"
    assert all(f"<!-- table {name} -->" in text for name in field_tables())


def test_reading_needs_no_torch() -> None:
    code = "import sys, coolvid.bitstream.stream, coolvid.bitstream.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
