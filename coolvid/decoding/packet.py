"""From one packet and its references to a Frame: integers in numpy, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from coolvid import kernels
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.latents import decode_latents
from coolvid.bitstream.packet import PacketContent, read_packet
from coolvid.codec.architecture import Architecture
from coolvid.codec.coded_frame import CodedCoolChic, CodedFrame, TensorSpec
from coolvid.codec.networks import FrameNetworks, NetworkStore
from coolvid.errors import ConfigError, StreamError
from coolvid.picture.types import Frame
from coolvid.plugin.modules import module_n_scales, module_tensors

from .contexts import ContextModel
from .frame import reconstruct_frame


def decode_frame(
    data: bytes,
    header: StreamHeader,
    references: Sequence[Frame],
    networks: NetworkStore | None = None,
    threads: int = 0,
) -> Frame:
    """The picture of one packet. references: decoded frames, in the packet's order.

    networks: those of earlier frames; this frame's are added. threads: the number that share the rows, 0 for
    kernels.threads(); the picture never depends on it. Raises StreamError for damaged bytes and for references or
    networks that do not fit, MissingPlugin for a plugin that is not installed.
    """
    networks = NetworkStore() if networks is None else networks
    with settings_checked():
        coded = read_frame(data, header, networks)
        if not coded.is_copy:
            networks.add(FrameNetworks.of(coded))
        return reconstruct_frame(coded, references, header.format, threads or kernels.threads())


@contextmanager
def settings_checked() -> Iterator[None]:
    """Invalid settings mean a damaged stream: turns ConfigError into StreamError."""
    try:
        yield
    except ConfigError as error:
        raise StreamError(f"the stream has an invalid setting: {error}") from error


def read_frame(data: bytes, header: StreamHeader, networks: NetworkStore | None = None) -> CodedFrame:
    """All integers of one packet, latents decoded. Raises StreamError, MissingPlugin or ConfigError."""
    return coded_frame(read_packet(data, header, tensors_of, networks), header)


def coded_frame(content: PacketContent, header: StreamHeader) -> CodedFrame:
    """The integers of a parsed packet, latents decoded. Raises StreamError, MissingPlugin or ConfigError."""
    height, width = header.format.height, header.format.width
    coolchics = {}
    for branch, modules in content.modules.items():
        architecture = content.architecture.branches[branch]
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
        content.info.predictor,
    )


def tensors_of(architecture: Architecture) -> tuple[Mapping[str, tuple[TensorSpec, ...]], Mapping[str, int]]:
    """(parameters, number of scales) by module: what the bitstream needs of an architecture."""
    return module_tensors(architecture), module_n_scales(architecture)
