"""Networks and packets: round trips, exact bit counts, small overhead, and damage that is always a StreamError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from coolvid.bitstream.crc import crc32c
from coolvid.bitstream.headers import FORMAT_VERSION, MAGIC, PLAIN_VERSION, StreamHeader
from coolvid.bitstream.latents import decode_latents
from coolvid.bitstream.packet import PacketHeader, read_info, read_packet, write_packet
from coolvid.bitstream.range_coder import RangeDecoder, RangeEncoder
from coolvid.bitstream.weights import (
    Mode,
    ModuleSyntax,
    best_mode,
    decode_modules,
    encode_modules,
    module_bits,
    rescaled,
)
from coolvid.codec import networks
from coolvid.codec.architecture import Architecture, FrameArchitecture, PluginRecord
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule, TensorSpec
from coolvid.codec.fixed_point import Integers
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.errors import ConfigError, StreamError
from coolvid.picture.types import ColorInfo, FrameType, PixelFormat, VideoFormat

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

    def folded(self) -> None:
        """Only by calls."""

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
        assert x.scales == y.scales
        assert x.weight_shift == y.weight_shift or not any(v.any() for k, v in x.parameters.items() if "bias" not in k)
        assert x.bias_shift == y.bias_shift or not any(v.any() for k, v in x.parameters.items() if "bias" in k)
        assert list(x.parameters) == list(y.parameters)
        for name, values in x.parameters.items():
            assert np.array_equal(values, y.parameters[name]) and values.shape == y.parameters[name].shape


CRC = [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)]


@pytest.mark.parametrize(("data", "checksum"), CRC)
def test_crc32c(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def coded(written: Mapping[str, CodedModule], predictor: Mapping[str, CodedModule] | None = None) -> bytes:
    """The modules of one Cool-chic as bytes, which were read back."""
    encoder = RangeEncoder()
    bits, modes = encode_modules(encoder, ModuleSyntax(encoder), written, TENSORS, predictor)
    value, n = encoder.finish()
    data = (value << -n % 8).to_bytes(-(-n // 8), "big")
    decoder = RangeDecoder(data)
    found, spent, used = decode_modules(decoder, ModuleSyntax(decoder), TENSORS, N_SCALES, predictor)
    decoder.finish(n)
    assert_same_modules(found, written)
    assert (spent, used) == (bits, modes) and bits["ifce"] == 0
    return data


@pytest.mark.parametrize("scale", [0.3, 4, 1000, 1e6])
def test_modules_round_trip(scale: float) -> None:
    data = coded(modules(scale))
    expected = sum(sum(module_bits(n, m, TENSORS[n]).values()) for n, m in modules(scale).items())
    assert 8 * len(data) == pytest.approx(expected, rel=0.03, abs=24)


def test_shifts_of_zeros_are_the_usual_ones() -> None:
    encoder = RangeEncoder()
    encode_modules(encoder, ModuleSyntax(encoder), modules(0), TENSORS)
    value, n = encoder.finish()
    decoder = RangeDecoder((value << -n % 8).to_bytes(-(-n // 8), "big"))
    found, *_ = decode_modules(decoder, ModuleSyntax(decoder), TENSORS, N_SCALES)
    assert [(m.weight_shift, m.bias_shift) for m in found.values()] == [(4, 5), (0, 0), (6, 6), (5, 0)]
    assert n < 60 and not any(values.any() for m in found.values() for values in m.parameters.values())


def nudged(module: CodedModule, by: int = 1, every: int = 3) -> CodedModule:
    """Every third integer moved by a little."""
    parameters = {name: values.copy() for name, values in module.parameters.items()}
    for values in parameters.values():
        values.ravel()[::every] += by
    return replace(module, parameters=parameters)


def test_modules_take_from_the_predictor_what_is_cheapest() -> None:
    known = modules(50)
    written = {
        "arm": known["arm"],
        "ifce": known["ifce"],
        "synthesis": nudged(known["synthesis"]),
        "upsampling": replace(known["upsampling"], parameters={"half": np.array([1, 0, 0, 0], np.int32)}),
    }
    modes = {name: best_mode(name, module, TENSORS[name], known[name]) for name, module in written.items()}
    assert [modes[name] for name in ("arm", "synthesis", "upsampling")] == [
        Mode.UNCHANGED, Mode.DIFFERENCE, Mode.FRESH]  # fmt: skip
    assert len(coded(written, known)) < len(coded(written)) - 20
    assert len(coded(known, known)) <= 2


def test_differences_at_other_steps() -> None:
    known = modules(50)
    arm = known["arm"]
    finer = {
        name: rescaled(values, 0, 2) + (1 if name.endswith("weight") else 0) for name, values in arm.parameters.items()
    }
    written = {**known, "arm": replace(arm, parameters=finer, weight_shift=9, bias_shift=13)}
    assert best_mode("arm", written["arm"], TENSORS["arm"], arm) is Mode.DIFFERENCE
    coded(written, known)
    shift = replace(known["arm"], bias_shift=3, parameters={**arm.parameters, "hidden.bias": np.ones(4, np.int32)})
    coded({**known, "arm": shift}, known)


@pytest.mark.parametrize(("shift", "to", "expected"), [
    (3, 3, [5, -5, 1 << 23]), (3, 5, [20, -20, 1 << 25]), (3, 2, [3, -2, 1 << 22]), (31, 0, [0, 0, 0]),
])  # fmt: skip
def test_rescaling(shift: int, to: int, expected: list[int]) -> None:
    limit = (1 << 23) - 1
    found = rescaled(np.array([5, -5, 1 << 23], np.int64), shift, to).tolist()
    assert found == [min(value, limit) for value in expected]


def test_a_predictor_of_other_shapes() -> None:
    """As a P frame takes them from an I frame: more outputs, more inputs."""
    known = modules(50)
    larger = {**known["synthesis"].parameters, "out.weight": np.zeros((5, 2, 1, 1), np.int32)}
    other = {**known, "synthesis": replace(known["synthesis"], parameters=larger), "arm": CodedModule({}, 0, 0)}
    assert best_mode("synthesis", known["synthesis"], TENSORS["synthesis"], other["synthesis"]) is Mode.DIFFERENCE
    assert best_mode("arm", known["arm"], TENSORS["arm"], other["arm"]) is Mode.FRESH
    coded(known, other)


BAD_MODULES = [
    CodedModule({"half": np.array([1 << 23, 0, 0, 0], np.int32)}, 0, 0),
    CodedModule({"half": np.array([1, 0, 0, 0], np.int32)}, 32, 0),
    CodedModule({"half": np.array([1, 0, 0, 0], np.int32)}, -1, 0),
    CodedModule({"half": np.array([1, 0, 0, 0], np.int32)}, 0, 0, (16,)),
]


@pytest.mark.parametrize("module", BAD_MODULES)
def test_modules_that_do_not_fit(module: CodedModule) -> None:
    with pytest.raises(ConfigError, match="a stream can carry"):
        encoder = RangeEncoder()
        encode_modules(encoder, ModuleSyntax(encoder), {"upsampling": module}, TENSORS)


@pytest.mark.parametrize("shape", [(1 << 12, 1 << 12), (1 << 40,), (1 << 40, 1 << 40)])
def test_too_many_parameters_are_refused(shape: tuple[int, ...]) -> None:
    decoder = RangeDecoder(bytes(100))
    with pytest.raises(StreamError, match="parameters; at most"):
        decode_modules(decoder, ModuleSyntax(decoder), {"arm": (TensorSpec("w", shape),)}, {})


def test_many_parameters_in_few_bytes_end_soon() -> None:
    decoder = RangeDecoder(bytes([0xF0, *bytes(40)]))
    with pytest.raises(StreamError, match="too early"):
        decode_modules(decoder, ModuleSyntax(decoder), {"arm": (TensorSpec("w", (2000, 2000)),)}, {})


def test_random_bytes_are_modules_or_a_stream_error() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for trial in range(300):
        decoder = RangeDecoder(rng.bytes(int(rng.integers(0, 80))))
        try:
            found, *_ = decode_modules(
                decoder, ModuleSyntax(decoder), TENSORS, N_SCALES, modules(4) if trial % 2 else None
            )
        except StreamError:
            outcomes.add(False)
            continue
        outcomes.add(True)
        for name, module in found.items():
            assert 0 <= module.weight_shift < 32 and 0 <= module.bias_shift < 32
            assert len(module.scales) == N_SCALES[name] and all(0 <= scale < 16 for scale in module.scales)
            assert all(np.abs(values).max() < 1 << 23 for values in module.parameters.values())
    assert outcomes == {True, False}


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
    assert abs(cheap.bits_by_part["networks"] - modules_sum) < 16


def test_overhead_of_a_b_frame() -> None:
    info = write_packet(coded_frame(FrameType.B), 2, MODELS, tensors_of).info
    assert info.bits_by_part["header"] <= 16 * 8


def predicted(*kept: str, fresh: float = 2, scales: bool = True, latents: bool = True) -> CodedFrame:
    """A B frame 20 of the networks of frame 18, but for the modules that are not kept."""
    own, other = coded_frame(FrameType.B), coded_frame(FrameType.B, scale=fresh + 1)
    coolchics = {}
    for branch, coolchic in own.coolchics.items():
        mixed = {
            name: module if f"{branch}.{name}" in kept else other.coolchics[branch].modules[name]
            for name, module in coolchic.modules.items()
        }
        if not scales:
            mixed["arm"] = replace(mixed["arm"], scales=(1, 15))
        values = coolchic.latents if latents else tuple(np.zeros_like(grid) for grid in coolchic.latents)
        coolchics[branch] = replace(coolchic, modules=mixed, latents=values)
    return replace(own, coolchics=coolchics, predictor=18)


ALL = tuple(f"{branch}.{name}" for branch in ("residue", "motion") for name in TENSORS if name != "ifce")
STORE = NetworkStore([FrameNetworks.of(replace(coded_frame(FrameType.B), display_index=18))])
KEPT = [(), ALL, ("motion.arm",), ("residue.arm", "residue.synthesis")]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("scales", [True, False])
def test_unchanged_modules_round_trip_and_cost_next_to_nothing(kept: tuple[str, ...], scales: bool) -> None:
    frame = predicted(*kept, scales=scales)
    packet = write_packet(frame, 2, MODELS, tensors_of, STORE)
    content = read_packet(packet.data, HEADER, tensors_of, STORE)
    assert {name for name, mode in content.modes.items() if mode is Mode.UNCHANGED} == set(kept)
    assert content.info == packet.info and content.info.predictor == 18
    assert read_info(packet.data, HEADER).predictor == 18
    for branch, coolchic in frame.coolchics.items():
        assert_same_modules(content.modules[branch], coolchic.modules)
    changed = {"residue.arm", "motion.arm"} if not scales else set()
    assert all(packet.info.bits_by_part[name] <= 4 for name in set(kept) - changed)


def test_overhead_of_a_b_frame_that_changes_nothing() -> None:
    info = write_packet(predicted(*ALL), 2, MODELS, tensors_of, STORE).info
    assert info.bits_by_part["header"] <= 16 * 8
    assert sum(n for part, n in info.bits_by_part.items() if part.split(".")[-1] in TENSORS) <= 16
    assert write_packet(predicted(*ALL, latents=False), 2, MODELS, tensors_of, STORE).info.n_bytes <= 16


def test_frames_of_other_types_are_predictors_too() -> None:
    store = NetworkStore([FrameNetworks.of(replace(coded_frame(FrameType.I), display_index=18))])
    frame = predicted(*ALL)
    packet = write_packet(frame, 2, MODELS, tensors_of, store)
    content = read_packet(packet.data, HEADER, tensors_of, store)
    assert {name for name, mode in content.modes.items() if mode is Mode.UNCHANGED} == set(ALL[:3])
    assert content.modules["motion"].keys() == frame.coolchics["motion"].modules.keys()


def test_what_cannot_be_predicted_is_not_written() -> None:
    frame, intra = predicted(*ALL), coded_frame(FrameType.I)
    with pytest.raises(ConfigError, match=r"those of \[\] are kept"):
        write_packet(frame, 2, MODELS, tensors_of)
    with pytest.raises(ConfigError, match="frame 20 is an I frame, which the prior alone can predict"):
        write_packet(replace(intra, predictor=18), 0, MODELS, tensors_of, networks=STORE)
    with pytest.raises(ConfigError, match=r"frame 20: .* of frame -1"):
        write_packet(replace(frame, predictor=PRIOR), 2, MODELS, tensors_of, networks=STORE)
    with pytest.raises(ConfigError, match="frame 20 is a copy, which has no networks to predict"):
        write_packet(replace(frame, coolchics={}), 2, {}, tensors_of, networks=STORE)


def test_an_intra_frame_is_predicted_from_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store holds; the prior here has this file's tiny modules."""
    alone = coded_frame(FrameType.I, scale=50)
    prior = alone.coolchics["residue"].modules
    monkeypatch.setattr(networks, "prior_modules", lambda: prior)
    own = {**prior, "synthesis": nudged(prior["synthesis"]), "arm": modules(2, 7)["arm"]}
    frame = replace(alone, predictor=PRIOR, coolchics={"residue": replace(alone.coolchics["residue"], modules=own)})
    for store in (None, STORE):
        packet = write_packet(frame, 0, MODELS, tensors_of, store)
        content = read_packet(packet.data, HEADER, tensors_of, store)
        assert (
            content.info == packet.info and read_info(packet.data, HEADER).predictor == content.info.predictor == PRIOR
        )
        assert_same_modules(content.modules["residue"], own)
        assert content.modes["residue.upsampling"] is Mode.UNCHANGED
        assert content.modes["residue.synthesis"] is Mode.DIFFERENCE
    unpredicted = write_packet(replace(frame, predictor=None), 0, MODELS, tensors_of)
    assert len(packet.data) < len(unpredicted.data)
    assert read_packet(unpredicted.data, HEADER, tensors_of).info.predictor is None


def test_streams_without_a_display_are_of_format_4() -> None:
    assert (PLAIN_VERSION, FORMAT_VERSION) == (4, 5)
    assert HEADER.pack()[len(MAGIC)] == 4


def test_a_predictor_that_is_not_kept_is_a_stream_error() -> None:
    data = write_packet(predicted(*ALL), 2, MODELS, tensors_of, STORE).data
    with pytest.raises(StreamError, match=r"those of \[\] are kept"):
        read_packet(data, HEADER, tensors_of)


def test_unchanged_modules_of_other_shapes_are_a_stream_error() -> None:
    data = write_packet(predicted(*ALL), 2, MODELS, tensors_of, STORE).data
    larger = {"half": np.zeros(6, np.int32)}
    frame = STORE.frames[0]
    odd = {b: {**ms, "upsampling": replace(ms["upsampling"], parameters=larger)} for b, ms in frame.modules.items()}
    with pytest.raises(StreamError, match="'upsampling' is unchanged, but"):
        read_packet(data, HEADER, tensors_of, NetworkStore([replace(frame, modules=odd)]))


def test_golden_networks() -> None:
    assert coded(modules(2)).hex() == GOLDEN_NETWORKS
    known = modules(2)
    assert coded({**known, "arm": nudged(known["arm"])}, known).hex() == GOLDEN_PREDICTED


GOLDEN_NETWORKS = "a8b2ae36f915f481441cbcc0993a0e5dc9347709e30f2f6850"
GOLDEN_PREDICTED = "94ed3d82752828"
GOLDENS = [
    (PacketHeader(0, FrameType.I, 0, (), None, None, None, None, (0,)), "901000"),
    (PacketHeader(0, FrameType.I, 0, (), None, None, 0, None, (0,)), "906400"),
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
    copy = replace(whole, coolchics={})
    packet = write_packet(copy, 2, {}, tensors_of)
    assert len(packet.data) <= 16
    assert packet.info.bits_by_part == {"header": 8 * len(packet.data)}
    found = read_packet(packet.data, HEADER, tensors_of)
    assert (found.modules, found.latents, found.modes, found.references) == ({}, {}, {}, whole.references)
    assert copy.is_copy and packet.info.is_copy and packet.info.predictor is None
    assert found.info == packet.info == read_info(packet.data, HEADER)
    assert not any(
        read_info(write_packet(f, f.frame_type.value, MODELS, tensors_of).data, HEADER).is_copy for f in FRAMES
    )


def test_nothing_follows_the_header_of_a_copy() -> None:
    header = PacketHeader(2, FrameType.B, 20, (-4, 4), None, True, None, None, ())
    with pytest.raises(StreamError):
        read_packet(sealed_body(header.pack() + b"\x00"), HEADER, tensors_of)


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
    (PacketHeader(1, FrameType.P, 3, (-3,), None, False, 0, None, (0, 0)), "frame 3 inherits from frame -1"),
    (PacketHeader(2, FrameType.B, 20, (-4, 4), None, False, 0, None, (0, 0)), "frame 20 inherits from frame -1"),
    (PacketHeader(0, FrameType.I, 20, (), None, None, -2, None, (0,)), "frame 20 inherits from frame 18"),
    (PacketHeader(0, FrameType.I, 20, (), None, None, 3, None, (0,)), "frame 20 inherits from frame 23"),
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
    fewer = {**TENSORS, "synthesis": (), "upsampling": ()}
    with pytest.raises(StreamError, match="do not end"):
        read_packet(packet.data, HEADER, lambda _: (fewer, {"arm": 2}))


def test_a_translation_too_far_does_not_fit() -> None:
    frame = coded_frame(FrameType.P)
    far = CodedFrame(20, frame.architecture, (16,), ((20000, 0),), None, frame.coolchics)
    with pytest.raises(ConfigError, match="20000"):
        write_packet(far, 1, MODELS, tensors_of)
