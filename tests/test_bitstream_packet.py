"""Networks and packets: round trips, exact bit counts, small overhead, and damage that is always a StreamError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coolvid.architecture import Architecture, FrameArchitecture, PluginRecord
from coolvid.bitstream.crc import crc32c
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.latents import decode_latents
from coolvid.bitstream.packet import PacketHeader, read_info, read_packet, write_packet
from coolvid.bitstream.weights import (
    Inheritance,
    best_order,
    decode_modules,
    encode_modules,
    module_bits,
    parameter_bits,
)
from coolvid.coded import CodedCoolChic, CodedFrame, CodedModule
from coolvid.errors import ConfigError, StreamError
from coolvid.interfaces import Integers, TensorSpec
from coolvid.networks import FrameNetworks, NetworkStore
from coolvid.records import BitReader, BitWriter
from coolvid.types import ColorInfo, FrameType, PixelFormat, VideoFormat

HEIGHT, WIDTH = 32, 48
TENSORS = {
    "arm": (TensorSpec("hidden.weight", (4, 4)), TensorSpec("hidden.bias", (4,), "bias")),
    "ifce": (),
    "synthesis": (TensorSpec("out.bias", (3,), "bias"), TensorSpec("out.weight", (3, 2, 1, 1))),
    "upsampling": (TensorSpec("half", (4,)),),
}
N_SCALES = {"arm": 2, "ifce": 0, "synthesis": 1, "upsampling": 1}


class FlatModel:
    n_context = 3

    def features(self, index: int, latents: Sequence[Integers]) -> Integers:
        return np.zeros((0, *latents[index].shape), np.int32)

    def laplace(self, contexts: Integers) -> Integers:
        return np.tile(np.array([0, 3 << 16], np.int32), (len(contexts), 1))


def architecture(n_out: int) -> Architecture:
    plain = PluginRecord("plain", 1)
    return Architecture((0, 2), (2, 2), None, 0, 3, False, "bicubic", n_out, plain, plain, plain)


def frame_architecture(frame_type: FrameType) -> FrameArchitecture:
    residue = architecture(frame_type.n_residue)
    if frame_type is FrameType.I:
        return FrameArchitecture(frame_type, residue, None, None)
    return FrameArchitecture(frame_type, residue, architecture(frame_type.n_motion), PluginRecord("sinc", 1, (8,)))


HEADER = StreamHeader(
    VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8),
    Fraction(30000, 1001),
    ColorInfo(),
    40,
    8,
    32,
    False,
    tuple(map(frame_architecture, FrameType)),
)


def modules(scale: float, seed: int = 0) -> dict[str, CodedModule]:
    rng = np.random.default_rng(seed)
    return {
        name: CodedModule(
            {t.name: np.round(rng.laplace(0, scale, t.shape)).astype(np.int32) for t in tensors},
            7 if any(t.kind == "weight" for t in tensors) else 0,
            11 if any(t.kind == "bias" for t in tensors) else 0,
            tuple(range(3, 3 + N_SCALES[name])),
        )
        for name, tensors in TENSORS.items()
    }


def coded_frame(frame_type: FrameType, moved: bool = False, ranged: bool = False, scale: float = 2) -> CodedFrame:
    rng = np.random.default_rng(5)
    described = frame_architecture(frame_type)
    coolchics = {
        name: CodedCoolChic(
            branch,
            modules(scale, i),
            tuple(np.round(rng.laplace(0, 0.6, g.shape)).astype(np.int32) for g in branch.grids(HEIGHT, WIDTH)),
        )
        for i, (name, branch) in enumerate(described.branches.items())
    }
    references = (16, 24)[: frame_type.n_references]
    moves = tuple((3 * i * moved, -200 * moved) for i in range(len(references)))
    ranges = ((0, 255), (16, 240), (1023, 0)) if ranged else None
    return CodedFrame(20, described, references, moves, ranges, coolchics)


def tensors_of(_: Architecture) -> tuple[Mapping[str, tuple[TensorSpec, ...]], Mapping[str, int]]:
    return TENSORS, N_SCALES


MODELS = {"residue": FlatModel(), "motion": FlatModel()}
FRAMES = [
    coded_frame(FrameType.I),
    coded_frame(FrameType.I, ranged=True),
    coded_frame(FrameType.P, moved=True),
    coded_frame(FrameType.B),
    coded_frame(FrameType.B, moved=True, scale=0),
]


def assert_same_modules(a: Mapping[str, CodedModule], b: Mapping[str, CodedModule]) -> None:
    assert list(a) == list(b)
    for x, y in zip(a.values(), b.values(), strict=True):
        assert (x.weight_shift, x.bias_shift, x.scales) == (y.weight_shift, y.bias_shift, y.scales)
        assert list(x.parameters) == list(y.parameters)
        for name, values in x.parameters.items():
            assert np.array_equal(values, y.parameters[name]) and values.shape == y.parameters[name].shape


CRC = [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)]


@pytest.mark.parametrize(("data", "checksum"), CRC)
def test_crc32c(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("scale", [0, 0.3, 4, 1000, 1e6])
def test_modules_round_trip(scale: float) -> None:
    written, writer = modules(scale), BitWriter()
    bits = encode_modules(writer, written, TENSORS)
    reader = BitReader(writer.getvalue())
    found, spent = decode_modules(reader, TENSORS, N_SCALES)
    assert_same_modules(found, written)
    assert spent == bits == {name: module_bits(module, TENSORS[name]) for name, module in written.items()}
    assert bits["ifce"] == 0 and sum(bits.values()) == writer.n_bits


@pytest.mark.parametrize("order", range(13))
def test_parameter_bits_are_exact(order: int) -> None:
    values = np.array([0, 1, -1, 2, -5, 100, -4096, (1 << 23) - 1, 1 - (1 << 23)], np.int32)
    writer = BitWriter()
    for value in values.tolist():
        writer.write_golomb(2 * value - 1 if value > 0 else -2 * value, order)
    assert parameter_bits(values.reshape(3, 3), order) == writer.n_bits


ORDERS = [([0] * 10, 0, 10), ([1, -1, 0, 0], 0, 8), ([50, -60, 40, 70, -45], 7, 42), ([], 0, 0)]


@pytest.mark.parametrize(("values", "order", "bits"), ORDERS)
def test_best_order(values: list[int], order: int, bits: int) -> None:
    assert best_order(np.array(values, np.int32)) == (order, bits)


BAD_MODULES = [
    CodedModule({"half": np.array([1 << 23], np.int32)}, 0, 0),
    CodedModule({"half": np.array([1], np.int32)}, 32, 0),
    CodedModule({"half": np.array([1], np.int32)}, -1, 0),
    CodedModule({"half": np.array([1], np.int32)}, 0, 0, (16,)),
]


@pytest.mark.parametrize("module", BAD_MODULES)
def test_modules_that_do_not_fit(module: CodedModule) -> None:
    with pytest.raises(ConfigError, match="a stream can carry"):
        encode_modules(BitWriter(), {"upsampling": module}, TENSORS)


BAD_BITS = [
    ((4,), [(0, 5), (1, 1), (13, 4)], "order 13"),
    ((1 << 12, 1 << 12), [(0, 5), (0, 1)], "16777216 parameters"),
    ((1 << 40,), [(0, 5), (0, 1)], "parameters"),
    ((4096,), [(0, 5), (1, 1), (0, 4)], "4096 parameters"),
    ((1,), [(0, 5), (1, 1), (0, 4), (1 << 26, 53)], "outside"),
]


@pytest.mark.parametrize(("shape", "fields", "message"), BAD_BITS)
def test_network_bits_that_cannot_be(shape: tuple[int, ...], fields: list[tuple[int, int]], message: str) -> None:
    writer = BitWriter()
    for value, n_bits in fields:
        writer.write(value, n_bits)
    with pytest.raises(StreamError, match=message):
        decode_modules(BitReader(writer.getvalue()), {"arm": (TensorSpec("w", shape),)}, {})


@pytest.mark.parametrize("frame", FRAMES)
def test_packet_round_trip(frame: CodedFrame) -> None:
    packet = write_packet(frame, frame.frame_type.value, MODELS, tensors_of)
    content = read_packet(packet.data, HEADER, tensors_of)
    assert (content.display_index, content.architecture) == (frame.display_index, frame.architecture)
    assert (content.references, content.global_translation) == (frame.references, frame.global_translation)
    assert content.output_range == frame.output_range
    for branch, coolchic in frame.coolchics.items():
        assert_same_modules(content.modules[branch], coolchic.modules)
        grids = coolchic.architecture.grids(HEIGHT, WIDTH)
        latents = decode_latents(content.latents[branch], grids, FlatModel())
        assert all(np.array_equal(a, b) for a, b in zip(latents, coolchic.latents, strict=True))
    assert content.info == packet.info


@pytest.mark.parametrize("frame", FRAMES)
def test_bits_by_part_add_up(frame: CodedFrame) -> None:
    packet = write_packet(frame, frame.frame_type.value, MODELS, tensors_of)
    told, cheap = packet.info, read_info(packet.data, HEADER)
    assert told.n_bytes == len(packet.data) == cheap.n_bytes
    assert sum(told.bits_by_part.values()) == 8 * told.n_bytes == sum(cheap.bits_by_part.values())
    names = {f"{branch}.{part}" for branch in frame.coolchics for part in [*TENSORS, "latents"]}
    assert set(told.bits_by_part) == names | {"header"}
    assert (cheap.display_index, cheap.references) == (told.display_index, told.references)
    modules_sum = sum(n for part, n in told.bits_by_part.items() if part.split(".")[-1] in TENSORS)
    assert 0 <= cheap.bits_by_part["networks"] - modules_sum < 8


def test_overhead_of_a_b_frame() -> None:
    info = write_packet(coded_frame(FrameType.B), 2, MODELS, tensors_of).info
    assert info.bits_by_part["header"] <= 16 * 8


def heir(*inherited: str, fresh: float = 2, scales: bool = True, latents: bool = True) -> CodedFrame:
    """A B frame 20 of the networks of frame 18, but for the modules that are not inherited."""
    own, other = coded_frame(FrameType.B), coded_frame(FrameType.B, scale=fresh + 1)
    coolchics = {}
    for branch, coolchic in own.coolchics.items():
        kept = {
            name: module if f"{branch}.{name}" in inherited else other.coolchics[branch].modules[name]
            for name, module in coolchic.modules.items()
        }
        if not scales:
            kept["arm"] = replace(kept["arm"], scales=(1, 15))
        values = coolchic.latents if latents else tuple(np.zeros_like(grid) for grid in coolchic.latents)
        coolchics[branch] = replace(coolchic, modules=kept, latents=values)
    return replace(own, coolchics=coolchics, predictor=18, inherited=frozenset(inherited))


ALL = tuple(f"{branch}.{name}" for branch in ("residue", "motion") for name in TENSORS if name != "ifce")
STORE = NetworkStore([FrameNetworks.of(replace(coded_frame(FrameType.B), display_index=18))])
HEIRS = [heir(), heir(*ALL), heir(*ALL, scales=False), heir("motion.arm"), heir("residue.arm", "residue.synthesis")]


@pytest.mark.parametrize("frame", HEIRS)
def test_inherited_modules_round_trip_and_cost_nothing(frame: CodedFrame) -> None:
    packet = write_packet(frame, 2, MODELS, tensors_of, STORE)
    content = read_packet(packet.data, HEADER, tensors_of, STORE)
    assert content.inherited == frame.inherited
    assert content.info == packet.info and content.info.predictor == 18
    assert read_info(packet.data, HEADER).predictor == 18
    plain = write_packet(replace(frame, predictor=None, inherited=frozenset()), 2, MODELS, tensors_of)
    assert read_packet(plain.data, HEADER, tensors_of).inherited == frozenset()
    for branch, coolchic in frame.coolchics.items():
        assert_same_modules(content.modules[branch], coolchic.modules)
        same = all(m.scales == modules(2)[name].scales for name, m in coolchic.modules.items())
        for name, module in coolchic.modules.items():
            saved = plain.info.bits_by_part[f"{branch}.{name}"] - packet.info.bits_by_part[f"{branch}.{name}"]
            scales = 4 * len(module.scales)
            everything = module_bits(module, TENSORS[name]) - scales
            assert saved == everything * (f"{branch}.{name}" in frame.inherited) + scales * same


def test_overhead_of_a_b_frame_that_inherits_everything() -> None:
    info = write_packet(heir(*ALL), 2, MODELS, tensors_of, STORE).info
    assert info.bits_by_part["header"] <= 16 * 8
    assert sum(n for part, n in info.bits_by_part.items() if part.split(".")[-1] in TENSORS) == 0
    assert write_packet(heir(*ALL, latents=False), 2, MODELS, tensors_of, STORE).info.n_bytes <= 16


def test_what_cannot_be_inherited_is_not_written() -> None:
    frame, intra = heir(*ALL), coded_frame(FrameType.I)
    stranger = replace(STORE.frames[0], architecture=frame_architecture(FrameType.P))
    with pytest.raises(ConfigError, match=r"those of \[\] are kept"):
        write_packet(frame, 2, MODELS, tensors_of)
    with pytest.raises(ConfigError, match="another architecture"):
        write_packet(frame, 2, MODELS, tensors_of, networks=NetworkStore([stranger]))
    with pytest.raises(ConfigError, match="differs from the predictor's"):
        write_packet(replace(heir(), inherited=frozenset(["motion.arm"])), 2, MODELS, tensors_of, networks=STORE)
    for wrong in (replace(frame, predictor=None), replace(intra, predictor=18)):
        with pytest.raises(ConfigError, match="without a predictor"):
            write_packet(wrong, wrong.frame_type.value, MODELS, tensors_of, networks=STORE)


def test_a_predictor_that_is_not_kept_is_a_stream_error() -> None:
    data = write_packet(heir(*ALL), 2, MODELS, tensors_of, STORE).data
    stranger = replace(STORE.frames[0], architecture=frame_architecture(FrameType.P))
    with pytest.raises(StreamError, match=r"those of \[\] are kept"):
        read_packet(data, HEADER, tensors_of)
    with pytest.raises(StreamError, match="another architecture"):
        read_packet(data, HEADER, tensors_of, NetworkStore([stranger]))


def test_inheritance_is_these_bits() -> None:
    writer = BitWriter()
    own, taken = modules(2), Inheritance(modules(2), frozenset(["arm", "upsampling"]), False)
    bits = encode_modules(writer, own, TENSORS, taken)
    assert writer.getvalue().hex().startswith("a3")  # arm, no synthesis, upsampling, no scales; then scale 3 of arm
    assert (bits["arm"], bits["upsampling"], writer.n_bits) == (8, 4, 4 + sum(bits.values()))
    found = Inheritance.read(BitReader(writer.getvalue()), modules(2))
    assert (found.names, found.scales) == (taken.names, False)


GOLDENS = [
    (PacketHeader(0, FrameType.I, 0, (), None, None, None, None, (0,)), "902000"),
    (PacketHeader(2, FrameType.B, 20, (-4, 4), None, False, None, None, (64, 3)), "7685121010c0"),
    (PacketHeader(2, FrameType.B, 20, (-4, 4), None, False, -2, None, (64, 3)), "76851259010c"),
    (PacketHeader(1, FrameType.P, 3, (-3,), ((2, -1),), False, None, None, (100, 0)), "4c6467214900"),
    (PacketHeader(2, FrameType.B, 20, (-4, 4), None, True, None, None, ()), "76851280"),
]


@pytest.mark.parametrize(("header", "golden"), GOLDENS)
def test_packet_header_is_these_bytes_and_back(header: PacketHeader, golden: str) -> None:
    assert header.pack().hex() == golden
    assert PacketHeader.unpack(bytes.fromhex(golden)) == header


def test_a_copy_is_a_header_and_nothing_else() -> None:
    whole = FRAMES[3]
    copy = replace(whole, coolchics={}, predictor=None, inherited=frozenset())
    packet = write_packet(copy, 2, {}, tensors_of)
    assert len(packet.data) <= 16
    assert packet.info.bits_by_part == {"header": 8 * len(packet.data)}
    found = read_packet(packet.data, HEADER, tensors_of)
    assert (found.modules, found.latents, found.references) == ({}, {}, whole.references)


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    data = write_packet(FRAMES[3], 2, MODELS, tensors_of).data
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(StreamError):
            read_packet(bytes(damaged), HEADER, tensors_of)
    for n in range(len(data)):
        with pytest.raises(StreamError):
            read_packet(data[:n], HEADER, tensors_of)
    with pytest.raises(StreamError):
        read_packet(data + b"\x00", HEADER, tensors_of)


def sealed_body(body: bytes) -> bytes:
    start = bytes([len(body)]) + body
    return start + crc32c(start).to_bytes(4, "big")


def test_damage_under_a_correct_checksum_is_a_stream_error_or_a_frame() -> None:
    """As an attacker would: bodies damaged and sealed again, and garbage."""
    body = write_packet(coded_frame(FrameType.I, scale=0.5), 0, MODELS, tensors_of).data[2:-4][:120]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(body)
        damaged[rng.integers(len(body))] ^= 1 << rng.integers(8)
        for data in (sealed_body(bytes(damaged)), sealed_body(rng.bytes(rng.integers(1, 60)))):
            try:
                read_packet(data, HEADER, tensors_of)
            except StreamError:
                continue


IMPOSSIBLE = [
    (PacketHeader(3, FrameType.I, 0, (), None, None, None, None, (0,)), "configuration 3 of 3"),
    (PacketHeader(1, FrameType.I, 0, (), None, None, None, None, (0,)), "another type"),
    (PacketHeader(0, FrameType.I, 40, (), None, None, None, None, (0,)), "frame 40 of 0..39"),
    (PacketHeader(1, FrameType.P, 3, (-4,), None, False, None, None, (0, 0)), "frame -1"),
    (PacketHeader(1, FrameType.P, 3, (0,), None, False, None, None, (0, 0)), "refers to itself"),
    (PacketHeader(1, FrameType.P, 3, (-3,), None, False, 0, None, (0, 0)), "inherits from frame 3"),
    (PacketHeader(1, FrameType.P, 3, (-3,), None, False, -4, None, (0, 0)), "inherits from frame -1"),
    (PacketHeader(1, FrameType.P, 3, (-3,), None, False, 37, None, (0, 0)), "inherits from frame 40"),
    (PacketHeader(0, FrameType.I, 0, (), None, None, None, None, (99,)), "longer than the packet"),
]


@pytest.mark.parametrize(("header", "message"), IMPOSSIBLE)
def test_headers_that_cannot_be(header: PacketHeader, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        read_info(sealed_body(header.pack()), HEADER)


def test_networks_must_end_where_latents_start() -> None:
    packet = write_packet(FRAMES[0], 0, MODELS, tensors_of)
    fewer = {**TENSORS, "upsampling": ()}
    with pytest.raises(StreamError, match="do not end"):
        read_packet(packet.data, HEADER, lambda _: (fewer, N_SCALES))


def test_a_translation_too_far_does_not_fit() -> None:
    frame = coded_frame(FrameType.P)
    far = CodedFrame(20, frame.architecture, (16,), ((20000, 0),), None, frame.coolchics)
    with pytest.raises(ConfigError, match="20000"):
        write_packet(far, 1, MODELS, tensors_of)
