"""From packets to Frames: integers and numpy only, equal on every machine. The encoder's references come from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

from .architecture import Architecture
from .bitstream.headers import StreamHeader
from .bitstream.latents import decode_latents
from .bitstream.packet import PacketInfo, read_packet
from .bitstream.stream import StreamReader
from .coded import CodedCoolChic, CodedFrame
from .errors import ConfigError, StreamError
from .events import FrameDecoded, Listener, ignore
from .interfaces import TensorSpec
from .modules import module_n_scales, module_tensors
from .reconstruct import ContextModel, reconstruct_frame
from .types import Frame


def decode_frame(data: bytes, header: StreamHeader, references: Sequence[Frame]) -> Frame:
    """The picture of one packet. references: decoded frames, in the order in which the packet names them.

    Raises StreamError for damaged bytes or references that do not fit, MissingPlugin for a plugin not installed here.
    """
    try:
        return reconstruct_frame(read_frame(data, header), references, header.format)
    except ConfigError as error:
        raise StreamError(f"the stream holds an impossible setting: {error}") from error


def read_frame(data: bytes, header: StreamHeader) -> CodedFrame:
    """All integers of one packet, latents decoded. Raises StreamError, MissingPlugin or ConfigError."""
    content = read_packet(data, header, tensors_of=tensors_of)
    height, width = header.format.height, header.format.width
    coolchics = {}
    for branch, architecture in content.architecture.branches.items():
        modules = content.modules[branch]
        model = ContextModel(architecture, modules, height, width)
        latents = decode_latents(content.latents[branch], architecture.grids(height, width), model)
        coolchics[branch] = CodedCoolChic(architecture, modules, latents)
    return CodedFrame(
        content.display_index,
        content.architecture,
        content.references,
        content.global_translation,
        content.output_range,
        coolchics,
    )


def tensors_of(architecture: Architecture) -> tuple[Mapping[str, tuple[TensorSpec, ...]], Mapping[str, int]]:
    """(parameters, number of scales) of every module: what the bitstream must know of an architecture."""
    return module_tensors(architecture), module_n_scales(architecture)


def decode_stream(
    reader: StreamReader, first: int = 0, last: int | None = None, threads: int = 0, listen: Listener = ignore
) -> Iterator[Frame]:
    """Frames first..last (display indices, inclusive; None: to the end) in display order.

    Decodes only what these need, and keeps a picture only until nobody needs it any more. threads: of compiled kernels,
    0 for all cores (without them there is one); pictures never depend on it. Raises StreamError.
    """
    packets = {info.display_index: (position, info) for position, info in enumerate(reader.packets)}
    wanted = [index for index in sorted(packets) if first <= index and (last is None or index <= last)]
    steps = _steps(packets, wanted)
    uses = _uses(packets, steps, wanted)
    decoded: dict[int, Frame] = {}
    shown = 0
    for index in steps:
        position, info = packets[index]
        start = perf_counter()
        decoded[index] = decode_frame(reader.read(position), reader.header, [decoded[r] for r in info.references])
        listen(FrameDecoded(index, info.frame_type, perf_counter() - start))
        _release(decoded, uses, info.references)
        while shown < len(wanted) and wanted[shown] in decoded:
            yield decoded[wanted[shown]]
            _release(decoded, uses, (wanted[shown],))
            shown += 1


Packets = Mapping[int, tuple[int, PacketInfo]]


def _steps(packets: Packets, wanted: Sequence[int]) -> list[int]:
    """Display indices of the wanted frames and of all they refer to, in coding order."""
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting.extend(packets[index][1].references)
    return sorted(needed, key=lambda index: packets[index][0])


def _uses(packets: Packets, steps: Sequence[int], wanted: Sequence[int]) -> dict[int, int]:
    """How often each picture is asked for: once to be shown if wanted, and once per reference to it."""
    uses = dict.fromkeys(steps, 0) | dict.fromkeys(wanted, 1)
    for index in steps:
        for reference in packets[index][1].references:
            uses[reference] += 1
    return uses


def _release(decoded: dict[int, Frame], uses: dict[int, int], indices: Sequence[int]) -> None:
    for index in indices:
        uses[index] -= 1
        if uses[index] == 0:
            del decoded[index]
