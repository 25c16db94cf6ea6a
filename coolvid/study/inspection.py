"""Inspection of coded frames: latents and their bits, motion, prediction, bits by part. numpy only, like decoding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.latents import latent_bits
from coolvid.bitstream.packet import PacketInfo, read_packet
from coolvid.bitstream.stream import StreamReader
from coolvid.bitstream.weights import Mode
from coolvid.codec.architecture import Grid
from coolvid.codec.coded_frame import CodedFrame
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.decoding import ContextModel, FrameParts, frame_parts, reconstruct_frame
from coolvid.decoding.packet import coded_frame, decode_frame, settings_checked, tensors_of
from coolvid.errors import ConfigError
from coolvid.events import FrameDecoded, Listener, ignore
from coolvid.picture.types import MAX_PIXELS, Frame


@dataclass(frozen=True, eq=False)
class FrameInspection:
    """The parts of one coded frame.

    info: bits_by_part lists every module separately. coded: all integers, including latents and unchanged modules.
    picture: the decoded picture. parts: its components. grids and latent_bits: by branch ("residue", "motion"), finest
    first; latent_bits float64 [h, w] is the cost of each latent under the probability tables.
    """

    info: PacketInfo
    coded: CodedFrame
    picture: Frame
    parts: FrameParts
    grids: Mapping[str, tuple[Grid, ...]]
    latent_bits: Mapping[str, tuple[NDArray[np.float64], ...]]

    def bits_per_pixel(self) -> NDArray[np.float64]:
        """Bits [H, W] of all latents, each spread evenly over the pixels that its grid position covers."""
        out = np.zeros((self.picture.height, self.picture.width))
        for branch, grids in self.grids.items():
            for grid, bits in zip(grids, self.latent_bits[branch], strict=True):
                row, column = (np.arange(size) >> grid.log2 for size in out.shape)
                covered = np.outer(np.bincount(row), np.bincount(column))
                out += (bits / covered)[row[:, None], column]
        return out


@dataclass(frozen=True)
class PacketFacts:
    """A packet's info with bits for each module, and the modules ("residue.arm") taken unchanged from the predictor."""

    info: PacketInfo
    unchanged: frozenset[str]


def packet_facts(reader: StreamReader) -> tuple[PacketFacts, ...]:
    """Every packet in coding order; nothing is decoded. Raises StreamError, MissingPlugin."""
    networks, out = NetworkStore(), []
    for i in range(len(reader)):
        with settings_checked():
            content = read_packet(reader.read(i), reader.header, tensors_of, networks)
        if not content.info.is_copy:
            networks.add(FrameNetworks(content.display_index, content.architecture, content.modules))
        unchanged = (name for name, mode in content.modes.items() if mode is Mode.UNCHANGED)
        out.append(PacketFacts(content.info, frozenset(unchanged)))
    return tuple(out)


def inspect_frame(
    data: bytes, header: StreamHeader, references: Sequence[Frame], networks: NetworkStore | None = None
) -> FrameInspection:
    """Decode like decode_frame(), and keep all intermediate results. Arguments and errors are the same."""
    networks = NetworkStore() if networks is None else networks
    with settings_checked():
        content = read_packet(data, header, tensors_of, networks)
        coded = coded_frame(content, header)
        if not coded.is_copy:
            networks.add(FrameNetworks.of(coded))
        picture = reconstruct_frame(coded, references, header.format)
        parts = frame_parts(coded, references, header.format)
        return FrameInspection(content.info, coded, picture, parts, *_priced(coded, header))


def inspect_stream(
    stream: StreamReader | str | Path,
    frames: Collection[int] | None = None,
    listen: Listener = ignore,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[FrameInspection]:
    """The frames with these display indices (None: all) in coding order; decodes only frames that they depend on.

    stream: a .cvd file, or an open reader. listen: receives FrameDecoded for every decoded frame. max_pixels: as in
    decode(), for a file.
    Raises ConfigError for an index that is not in the stream, and the errors of StreamReader and decode_frame().
    """
    reader = stream if isinstance(stream, StreamReader) else StreamReader(stream, max_pixels=max_pixels)
    known = {info.display_index: info for info in reader.packets}
    wanted = set(known if frames is None else frames)
    if missing := sorted(wanted - known.keys()):
        raise ConfigError(f"the stream has no frame {missing[0]}; choose from {min(known)}..{max(known)}")
    needed = _needed(known, wanted)
    steps = [(i, info) for i, info in enumerate(reader.packets) if info.display_index in needed]
    last_use = {reference: i for i, info in steps for reference in info.references}
    networks, pictures = NetworkStore(), dict[int, Frame]()
    for i, info in steps:
        given = reader.read(i), reader.header, [pictures[r] for r in info.references], networks
        start = perf_counter()
        found = inspect_frame(*given) if info.display_index in wanted else None
        pictures[info.display_index] = decode_frame(*given, threads=1) if found is None else found.picture
        listen(FrameDecoded(info.display_index, info.frame_type, perf_counter() - start))
        if found is not None:
            yield found
        pictures = {index: picture for index, picture in pictures.items() if last_use.get(index, -1) > i}


def _priced(
    coded: CodedFrame, header: StreamHeader
) -> tuple[dict[str, tuple[Grid, ...]], dict[str, tuple[NDArray[np.float64], ...]]]:
    """(grids, bits of every latent) by branch."""
    height, width = header.format.height, header.format.width
    grids, bits = {}, {}
    for branch, coolchic in coded.coolchics.items():
        model = ContextModel(coolchic.architecture, coolchic.modules, height, width)
        grids[branch] = model.grids
        bits[branch] = tuple(latent_bits(coolchic.latents, model.grids, model))
    return grids, bits


def _needed(known: Mapping[int, PacketInfo], wanted: Collection[int]) -> set[int]:
    """The wanted frames, with all frames that they refer to or inherit from."""
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            info = known[index]
            waiting.extend((*info.references, *(() if info.predictor in (None, PRIOR) else (info.predictor,))))
    return needed
