"""A whole stream: header, packets in coding order, and an index for seeking.

The index follows the packets when more than one frame is intra: INDEX_MAGIC, size of the body (varint), body (a
count, then per intra packet its distance in packets and bytes from the one before, all varints), CRC-32C. A missing or
damaged index costs nothing but a scan of the packet sizes. Bytes after the index are ignored; n_appended counts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO

from coolvid.codec.networks import FrameNetworks, NetworkStore
from coolvid.errors import ConfigError, InputError, StreamError, printable
from coolvid.files import failure, is_part
from coolvid.picture.types import MAX_PIXELS, FrameType, VideoFormat

from .crc import CRC_BYTES, is_sealed, sealed
from .headers import MAGIC, StreamHeader
from .packet import Packet, PacketInfo, packet_size, read_info
from .values import read_varint, write_varint

INDEX_MAGIC = b"\x00CVI"
MAX_BYTES = 1 << 32
CHUNK = 1 << 20


@dataclass(frozen=True)
class SyncPoint:
    """A packet at which decoding can start: its number in the stream and the offset of its first byte."""

    packet: int
    offset: int


class StreamWriter:
    """Writes packets as they come into an open binary file, from where it stands; the file stays open.

    After each packet the file is a stream that StreamReader reads as a partial one. As a context manager it closes the
    stream at a clean exit. kept: packets that an earlier run wrote; the file stands at their end. Raises OutputError.
    """

    def __init__(self, file: IO[bytes], header: StreamHeader, kept: Sequence[Packet] = ()) -> None:
        self._file, self._header = file, header
        self._sync: list[SyncPoint] = []
        self._n_packets = self._size = 0
        self._is_closed = False
        if kept:
            self._start, self._size = 0, file.tell() - sum(len(packet.data) for packet in kept)
            for packet in kept:
                self._count(packet)
        else:
            self._start = file.tell() if file.seekable() else 0
            self._write(header.pack())
            self._size = len(header.pack())

    @property
    def n_bytes(self) -> int:
        """Bytes written so far."""
        return self._size

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise failure(getattr(self._file, "name", "the stream"), error) from error

    def append(self, packet: Packet) -> None:
        """Write one packet, in coding order."""
        self._write(packet.data)
        self._count(packet)

    def _count(self, packet: Packet) -> None:
        if packet.info.frame_type is FrameType.I:
            self._sync.append(SyncPoint(self._n_packets, self._size))
        self._size += len(packet.data)
        self._n_packets += 1

    def close(self, index: bool = True) -> int:
        """Write the index (if asked for and of use) and the number of frames.

        Returns the size in bytes. Closing again does nothing.
        """
        if self._is_closed:
            return self._size
        self._is_closed = True
        if index and len(self._sync) > 1:
            stored = pack_index(self._sync)
            self._write(stored)
            self._size += len(stored)
        if self._header.n_frames != self._n_packets:
            self._patch_header()
        return self._size

    def _patch_header(self) -> None:
        """Bring the header's count of frames up to date; its size stays."""
        if self._file.seekable():
            self._file.seek(self._start)
            self._write(replace(self._header, n_frames=self._n_packets).pack())
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.close()


class StreamReader:
    """A stream in memory. Raises InputError if the file cannot be read; StreamError for damage, at once or on access.

    partial: accept a stream that ends too early, with its complete packets (None: if its name ends in .part).
    max_pixels: the largest picture accepted, of at most MAX_PIXELS; a stream with larger ones raises StreamError.
    """

    def __init__(
        self, source: str | os.PathLike[str] | bytes, partial: bool | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._data = source if isinstance(source, bytes) else _read_file(source)
        found_partial = not isinstance(source, bytes) and is_part(source)
        self._partial = found_partial if partial is None else partial
        self.header, self._start = StreamHeader.parse(self._data)
        _check_size(self.header.format, max_pixels)

    def __enter__(self) -> StreamReader:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def __len__(self) -> int:
        """Number of packets."""
        return len(self._spans)

    @cached_property
    def _spans(self) -> tuple[tuple[int, int], ...]:
        """(first byte, end) of every packet, by a scan of the sizes."""
        spans: list[tuple[int, int]] = []
        at, n_frames = self._start, self.header.n_frames
        while len(spans) < n_frames if n_frames else at < len(self._data) and not self._is_index(at):
            try:
                end = at + packet_size(self._data, at)
            except StreamError as error:
                if self._partial:
                    break
                raise StreamError(f"packet {len(spans)} of {n_frames or 'an unknown number'}: {error}") from error
            spans.append((at, end))
            at = end
        return tuple(spans)

    def _is_index(self, at: int) -> bool:
        return self._data.startswith(INDEX_MAGIC, at)

    def read(self, i: int) -> bytes:
        """The bytes of packet i, in coding order, for decode_frame()."""
        if not 0 <= i < len(self):
            raise StreamError(f"packet {i} of a stream with {len(self)} packets")
        start, end = self._spans[i]
        return self._data[start:end]

    @cached_property
    def packets(self) -> tuple[PacketInfo, ...]:
        """Every packet's description, in coding order. Raises StreamError unless each frame appears once, after its
        references, and inherits from a frame whose networks are still kept; and, unless the stream is partial, for a
        frame that is missing."""
        infos = tuple(self._described())
        if not self._partial:
            _check_complete({info.display_index for info in infos})
        return infos

    def sound_packets(self) -> tuple[list[PacketInfo], str]:
        """The descriptions of the packets before the first that is damaged or incomplete, and what is wrong with it."""
        infos: list[PacketInfo] = []
        try:
            for info in self._described():
                infos.append(info)
        except StreamError as error:
            return infos, f"packet {len(infos)}: {error}"
        is_cut = len(self) < self.header.n_frames and self._end != len(self._data)
        return infos, f"packet {len(infos)} is incomplete" if is_cut else ""

    def _described(self) -> Iterator[PacketInfo]:
        seen: set[int] = set()
        kept = NetworkStore()
        for i in range(len(self)):
            info = read_info(self.read(i), self.header)
            missing = [index for index in info.references if index not in seen]
            if missing or info.display_index in seen:
                what = f"refers to frame {missing[0]}, which does not precede it" if missing else "appears twice"
                raise StreamError(f"frame {info.display_index} {what}; the stream is damaged")
            architecture = self.header.configurations[info.configuration]
            if info.predictor is not None:
                kept.find(info.predictor, architecture)
            if not info.is_copy:
                kept.add(FrameNetworks(info.display_index, architecture, {}))
            seen.add(info.display_index)
            yield info

    def end_of(self, n_packets: int) -> int:
        """Offset of the first byte after this many packets."""
        return self._spans[n_packets - 1][1] if n_packets else self._start

    @property
    def _end(self) -> int:
        return self.end_of(len(self))

    @property
    def n_appended(self) -> int:
        """Bytes after the packets that are not a valid index; 0 for a stream that ends too early."""
        if len(self) < self.header.n_frames:
            return 0
        return len(self._data) - self._end - self._index_size()

    def _index_size(self) -> int:
        """Bytes of the index, 0 if there is none or it is damaged."""
        start = self._end + len(INDEX_MAGIC)
        try:
            size, at = read_varint(self._data, start)
        except StreamError:
            return 0
        end = at + size + CRC_BYTES
        return end - self._end if unpack_index(self._data[self._end : end]) is not None else 0

    @cached_property
    def sync_points(self) -> tuple[SyncPoint, ...]:
        """The intra packets, from the index if it is valid, else by a scan."""
        stored = unpack_index(self._data[self._end : self._end + self._index_size()])
        if stored is not None and all(self._holds(point) for point in stored):
            return stored
        found = (i for i, info in enumerate(self.packets) if info.frame_type is FrameType.I)
        return tuple(SyncPoint(i, self._spans[i][0]) for i in found)

    def _holds(self, point: SyncPoint) -> bool:
        return point.packet < len(self._spans) and self._spans[point.packet][0] == point.offset


def _check_size(format: VideoFormat, max_pixels: int) -> None:
    if type(max_pixels) is not int or not 1 <= max_pixels <= MAX_PIXELS:
        raise ConfigError(f"max_pixels is {printable(repr(max_pixels))}; choose a whole number 1..{MAX_PIXELS}")
    n_pixels = format.height * format.width
    if n_pixels > max_pixels:
        raise StreamError(
            f"pictures of {format.width}x{format.height} have {n_pixels} pixels, and max_pixels is {max_pixels}; raise "
            "it (--max-pixels) to decode them"
        )


def _check_complete(seen: set[int]) -> None:
    """Raise StreamError unless these display indices are 0, 1 and so on, without a gap."""
    if not seen:
        raise StreamError("the stream has no frames; it is empty or truncated")
    if max(seen) >= len(seen):
        gap = next(index for index in range(len(seen)) if index not in seen)
        raise StreamError(f"frame {gap} of 0..{max(seen)} is missing; the stream is damaged or truncated")


def _read_file(path: str | os.PathLike[str]) -> bytes:
    """The whole file; of one that does not start like a stream, perhaps a device without end, only the start."""
    try:
        with Path(path).open("rb") as file:
            parts = [file.read(len(MAGIC))]
            if parts[0] != MAGIC:
                return parts[0]
            size = os.fstat(file.fileno()).st_size  # 0 for a pipe
            while max(size, len(parts) * CHUNK) <= MAX_BYTES:
                parts.append(file.read(CHUNK))
                if not parts[-1]:
                    return b"".join(parts)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        raise InputError(f"cannot read {os.fspath(path)}: {reason}") from error
    raise InputError(f"{os.fspath(path)} is larger than any stream, {MAX_BYTES} bytes; give a .cvd file")


def pack_index(points: Sequence[SyncPoint]) -> bytes:
    """The index as bytes; the first entry counts from the start of the stream."""
    first = points[0]
    body = write_varint(len(points)) + write_varint(first.packet) + write_varint(first.offset)
    for before, point in pairwise(points):
        body += write_varint(point.packet - before.packet) + write_varint(point.offset - before.offset)
    return sealed(INDEX_MAGIC + write_varint(len(body)) + body)


def unpack_index(data: bytes) -> tuple[SyncPoint, ...] | None:
    """Inverse of pack_index(); None if data is not a complete, undamaged index."""
    if not data.startswith(INDEX_MAGIC) or not is_sealed(data):
        return None
    try:
        size, at = read_varint(data, len(INDEX_MAGIC))
        count, at = read_varint(data, at)
        points: list[SyncPoint] = []
        packet, offset = 0, 0
        for _ in range(min(count, size)):
            step, at = read_varint(data, at)
            jump, at = read_varint(data, at, 9)
            packet, offset = packet + step, offset + jump
            points.append(SyncPoint(packet, offset))
    except StreamError:
        return None
    return tuple(points) if at == len(data) - CRC_BYTES and len(points) == count else None
