"""One frame as bytes.

Bytes: size of the body (varint), body, CRC-32C of all before it. Body: PacketHeader, the networks of every branch,
padding to a byte, the latent payloads of every branch. weights.py defines what a packet takes from its predictor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coolvid.codec.architecture import Architecture, FrameArchitecture, Grid
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, CodedModule, TensorSpec
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.errors import ConfigError, StreamError
from coolvid.picture.types import FrameType

from .crc import CRC_BYTES, is_sealed, sealed
from .headers import MAX_CONFIGURATIONS, MAX_FRAMES, StreamHeader
from .latents import ContextModel, encode_latents
from .range_coder import RangeDecoder, RangeEncoder
from .records import BitReader, BitWriter, Flag, Golomb, Many, Maybe, OneOf, Record, Signed, U, When, coded
from .values import read_varint, write_varint
from .weights import Mode, Modules, ModuleSyntax, decode_modules, encode_modules

BRANCHES = ("residue", "motion")
MAX_PAYLOAD = 1 << 28
MAX_TRANSLATION = 1 << 14
TensorsOf = Callable[[Architecture], tuple[Mapping[str, tuple[TensorSpec, ...]], Mapping[str, int]]]


def _branches(known: Mapping[str, Any]) -> tuple[str, ...]:
    """The branches of a packet, from the header fields read so far."""
    if known["is_copy"]:
        return ()
    return BRANCHES[:1] if known["frame_type"] is FrameType.I else BRANCHES


@dataclass(frozen=True)
class PacketHeader(Record):
    """The fields of a packet before its networks and latents."""

    configuration: int = coded(Golomb(0, MAX_CONFIGURATIONS - 1), "entry of the stream header's table")
    frame_type: FrameType = coded(OneOf(tuple(FrameType), 2), "as in that entry")  # noqa: RUF009
    display_index: int = coded(Golomb(5, MAX_FRAMES), "position in display order, from 0")
    references: tuple[int, ...] = coded(
        Many(Signed(1, MAX_FRAMES), lambda known: known["frame_type"].n_references, "references"),
        "display indices minus this frame's",
    )
    global_translation: tuple[tuple[int, int], ...] | None = coded(
        When(
            lambda known: known["frame_type"] is not FrameType.I,
            "not I",
            Maybe(
                Many(
                    Many(Signed(4, MAX_TRANSLATION), 2),
                    lambda known: known["frame_type"].n_references,
                    "references",
                )
            ),
        ),
        "whole pixels (dy, dx) of each reference; absent: all 0",
    )
    is_copy: bool | None = coded(
        When(lambda known: known["frame_type"] is not FrameType.I, "not I", Flag()),
        "the picture is the mean of the shifted references; neither networks nor latents follow",
    )
    predictor: int | None = coded(
        When(lambda known: not known["is_copy"], "not a copy", Maybe(Signed(1, MAX_FRAMES))),
        "display index, minus this frame's, of the frame that predicts this one's networks; I: 0, the prior",
    )
    output_range: tuple[tuple[int, int], ...] | None = coded(
        When(lambda known: known["frame_type"] is FrameType.I, "I", Maybe(Many(Many(U(10), 2), 3))),
        "code values (minimum, maximum) per plane that outputs 0 and 1 stand for",
    )
    latent_sizes: tuple[int, ...] = coded(
        Many(Golomb(6, MAX_PAYLOAD), lambda known: len(_branches(known)), "branches"),
        "bytes of each latent payload, residue first",
    )


@dataclass(frozen=True)
class PacketInfo:
    """A packet described without decoding it.

    bits_by_part adds up to 8 * n_bytes: "header" (checksum and padding included), "residue.latents" ..., and either
    "residue.arm" ... or "networks" for all modules together; a copy has "header" alone. predictor: display index of the
    frame that predicts its networks, or PRIOR.
    """

    display_index: int
    configuration: int
    frame_type: FrameType
    references: tuple[int, ...]
    n_bytes: int
    bits_by_part: Mapping[str, int]
    predictor: int | None = None
    is_copy: bool = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The references, each once: a copy of a single frame names it twice."""
        return tuple(dict.fromkeys(self.references)) if self.is_copy else self.references


@dataclass(frozen=True)
class Packet:
    """The bytes of a frame, size and checksum included."""

    data: bytes
    info: PacketInfo


@dataclass(frozen=True, eq=False)
class PacketContent:
    """A parsed packet, its latents not decoded.

    references: display indices. global_translation: (dy, dx) in whole pixels per reference. modules: by branch and
    module, unchanged ones included. latents: payloads by branch. modes: by "residue.arm" ... A copy has neither modules
    nor latents.
    """

    display_index: int
    architecture: FrameArchitecture
    references: tuple[int, ...]
    global_translation: tuple[tuple[int, int], ...]
    output_range: tuple[tuple[int, int], ...] | None
    modules: Mapping[str, Mapping[str, CodedModule]]
    latents: Mapping[str, bytes]
    info: PacketInfo
    modes: Mapping[str, Mode]


def write_packet(
    frame: CodedFrame,
    configuration: int,
    models: Mapping[str, ContextModel],
    tensors_of: TensorsOf,
    networks: NetworkStore | None = None,
    payloads: Mapping[str, bytes] | None = None,
) -> Packet:
    """The packet of a frame; configuration: its index in StreamHeader.configurations; models: by branch.

    tensors_of: as for read_packet(). networks: holds the frame's predictor, if it has one. payloads: those of
    latent_payloads(), if already made. Raises ConfigError for values that a stream cannot carry.
    """
    predictor = _predictor_of(frame, networks or NetworkStore())
    if payloads is None:
        payloads = latent_payloads(frame, models)
    header = _header_of(frame, configuration, tuple(map(len, payloads.values())))
    writer = BitWriter()
    header.write(writer)
    bits = _write_networks(writer, frame, tensors_of, predictor)
    body = writer.getvalue() + b"".join(payloads.values())
    data = sealed(write_varint(len(body)) + body)
    return Packet(data, _info(header, len(data), bits))


def latent_payloads(frame: CodedFrame, models: Mapping[str, ContextModel]) -> dict[str, bytes]:
    """Coded latents by branch. They depend on its modules, but not on the modes of these. Raises ConfigError."""
    return {
        branch: encode_latents(coolchic.latents, _grids(coolchic), models[branch])
        for branch, coolchic in frame.coolchics.items()
    }


def _write_networks(
    writer: BitWriter, frame: CodedFrame, tensors_of: TensorsOf, predictor: FrameNetworks | None
) -> dict[str, int]:
    """Append the networks of all branches; returns bits by "residue.arm" ..."""
    if frame.is_copy:
        return {}
    bits = {}
    encoder = RangeEncoder()
    syntax = ModuleSyntax(encoder)
    for branch, coolchic in frame.coolchics.items():
        tensors, _ = tensors_of(coolchic.architecture)
        spent, _ = encode_modules(encoder, syntax, coolchic.modules, tensors, _of_branch(predictor, branch))
        bits.update({f"{branch}.{name}": n_bits for name, n_bits in spent.items()})
    writer.write(*encoder.finish())
    return bits


def _predictor_of(frame: CodedFrame, networks: NetworkStore) -> FrameNetworks | None:
    """The frame's predictor, if it has one. Raises ConfigError."""
    if frame.predictor is None:
        return None
    if frame.is_copy:
        raise ConfigError(f"frame {frame.display_index} is a copy, which has no networks to predict")
    if frame.frame_type is FrameType.I and frame.predictor != PRIOR:
        raise ConfigError(f"frame {frame.display_index} is an I frame, which the prior alone can predict")
    try:
        return networks.find(frame.predictor, frame.architecture)
    except StreamError as error:
        raise ConfigError(f"frame {frame.display_index}: {error}") from error


def _of_branch(predictor: FrameNetworks | None, branch: str) -> Modules | None:
    return None if predictor is None else predictor.modules.get(branch)


def _grids(coolchic: CodedCoolChic) -> list[Grid]:
    """The grids, with the sizes of the latents."""
    known = coolchic.architecture.grids(1, 1)
    return [
        Grid(grid.log2, values.shape[0], values.shape[1], grid.is_hyper)
        for grid, values in zip(known, coolchic.latents, strict=True)
    ]


def _header_of(frame: CodedFrame, configuration: int, latent_sizes: tuple[int, ...]) -> PacketHeader:
    moved = any(any(pair) for pair in frame.global_translation)
    return PacketHeader(
        configuration=configuration,
        frame_type=frame.frame_type,
        display_index=frame.display_index,
        references=tuple(index - frame.display_index for index in frame.references),
        global_translation=frame.global_translation if moved else None,
        is_copy=None if frame.frame_type is FrameType.I else frame.is_copy,
        predictor=_distance(frame),
        output_range=frame.output_range,
        latent_sizes=latent_sizes,
    )


def _info(header: PacketHeader, n_bytes: int, module_bits: Mapping[str, int]) -> PacketInfo:
    bits = dict(module_bits)
    for branch, size in zip(BRANCHES, header.latent_sizes, strict=False):
        bits[f"{branch}.latents"] = 8 * size
    return PacketInfo(
        display_index=header.display_index,
        configuration=header.configuration,
        frame_type=header.frame_type,
        references=_references(header),
        n_bytes=n_bytes,
        bits_by_part={"header": 8 * n_bytes - sum(bits.values()), **bits},
        predictor=_predictor(header),
        is_copy=bool(header.is_copy),
    )


def _distance(frame: CodedFrame) -> int | None:
    """The predictor as a packet header stores it: its distance, 0 for the prior, None for none."""
    if frame.predictor is None:
        return None
    return 0 if frame.predictor == PRIOR else frame.predictor - frame.display_index


def _predictor(header: PacketHeader) -> int | None:
    """Display index of the predictor, PRIOR, or None."""
    if header.predictor is None:
        return None
    return header.display_index + header.predictor if header.predictor else PRIOR


def _may_inherit(header: PacketHeader, last: int) -> bool:
    """Whether the predictor is valid: the prior for an I frame, another frame for a P or B frame."""
    if header.frame_type is FrameType.I or not header.predictor:
        return header.frame_type is FrameType.I and not header.predictor
    return 0 <= header.display_index + header.predictor <= last


def _references(header: PacketHeader) -> tuple[int, ...]:
    return tuple(header.display_index + step for step in header.references)


def packet_size(data: bytes, at: int = 0) -> int:
    """Bytes of the packet that starts at data[at], its size field and checksum included. Raises StreamError."""
    size, start = read_varint(data, at)
    total = start - at + size + CRC_BYTES
    if not size or at + total > len(data):
        raise StreamError(
            f"a packet of {size} bytes, but only {len(data) - start} are left; truncated or damaged stream"
        )
    return total


def _open(data: bytes, header: StreamHeader) -> tuple[BitReader, PacketHeader]:
    """(reader at the end of the packet header, that header), checked against the stream header."""
    if packet_size(data) != len(data):
        raise StreamError(f"{len(data)} bytes given for a packet of {packet_size(data)}; the stream is damaged")
    if not is_sealed(data):
        raise StreamError("a packet does not match its checksum; the stream is damaged")
    reader = BitReader(data[:-CRC_BYTES], 8 * read_varint(data, 0)[1])
    found = PacketHeader.read(reader)
    if found.configuration >= len(header.configurations):
        raise StreamError(f"a packet uses configuration {found.configuration} of {len(header.configurations)}")
    if header.configurations[found.configuration].frame_type is not found.frame_type:
        raise StreamError(f"a packet of type {found.frame_type.name} uses a configuration of another type")
    if 8 * sum(found.latent_sizes) > reader.n_left:
        raise StreamError("the latents of a packet are longer than the packet; the stream is damaged")
    last = header.n_frames - 1 if header.n_frames else MAX_FRAMES
    for index in (found.display_index, *_references(found)):
        if not 0 <= index <= last:
            raise StreamError(f"a packet names frame {index} of 0..{last}; the stream is damaged")
    if found.display_index in _references(found):
        raise StreamError(f"frame {found.display_index} refers to itself; the stream is damaged")
    if found.predictor is not None and not _may_inherit(found, last):
        raise StreamError(f"frame {found.display_index} inherits from frame {_predictor(found)}; the stream is damaged")
    return reader, found


def read_info(data: bytes, header: StreamHeader) -> PacketInfo:
    """The description of a packet; needs no plugins. Raises StreamError."""
    reader, found = _open(data, header)
    rest = {} if found.is_copy else {"networks": reader.n_left - 8 * sum(found.latent_sizes)}
    return _info(found, len(data), rest)


def read_packet(
    data: bytes, header: StreamHeader, tensors_of: TensorsOf, networks: NetworkStore | None = None
) -> PacketContent:
    """The content of a packet, checked to the last bit. networks: holds its predictor, if it has one.

    tensors_of(architecture) -> (tensor specs by module, number of scales by module), as the plugins define them.
    Raises StreamError for anything that write_packet() cannot have written.
    """
    reader, found = _open(data, header)
    architecture = header.configurations[found.configuration]
    index = _predictor(found)
    predictor = None if index is None else (networks or NetworkStore()).find(index, architecture)
    modules, bits, modes = _read_networks(reader, found, architecture, tensors_of, predictor)
    return PacketContent(
        display_index=found.display_index,
        architecture=architecture,
        references=_references(found),
        global_translation=found.global_translation or ((0, 0),) * found.frame_type.n_references,
        output_range=found.output_range,
        modules=modules,
        latents={branch: reader.read_bytes(size) for branch, size in zip(modules, found.latent_sizes, strict=True)},
        info=_info(found, len(data), bits),
        modes=modes,
    )


def _read_networks(
    reader: BitReader,
    header: PacketHeader,
    architecture: FrameArchitecture,
    tensors_of: TensorsOf,
    predictor: FrameNetworks | None,
) -> tuple[dict[str, Modules], dict[str, int], dict[str, Mode]]:
    """(modules by branch, bits and modes by "residue.arm" ...); moves the reader to the start of the latents."""
    if header.is_copy:
        reader.finish()
        return {}, {}, {}
    n_bits = reader.n_left - 8 * sum(header.latent_sizes)
    decoder = RangeDecoder((reader.read(n_bits) << -n_bits % 8).to_bytes(-(-n_bits // 8), "big"))
    syntax = ModuleSyntax(decoder)
    modules: dict[str, Modules] = {}
    bits: dict[str, int] = {}
    modes: dict[str, Mode] = {}
    for branch, coolchic in architecture.branches.items():
        known = _of_branch(predictor, branch)
        modules[branch], spent, used = decode_modules(decoder, syntax, *tensors_of(coolchic), known)
        bits.update({f"{branch}.{name}": spent[name] for name in spent})
        modes.update({f"{branch}.{name}": used[name] for name in used})
    decoder.finish(n_bits)
    return modules, bits, modes
