"""Whether a file holds all that its own structure announces, from its outermost elements alone."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_FIRST_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def lacks_its_index(path: Path) -> bool:
    """Whether a file starts as mp4 or mov but has no complete `moov` box, usually the last one."""
    boxes = _boxes(path)
    n_bytes = path.stat().st_size
    return bool(boxes) and not any(kind == b"moov" and end <= n_bytes for kind, end in boxes)


def ends_early(path: Path, format: str) -> bool | None:
    """Whether a file of this FFmpeg format breaks off; None for formats that do not announce where they end."""
    n_bytes = path.stat().st_size
    if "mp4" in format:
        return any(end > n_bytes for _, end in _boxes(path))
    with path.open("rb") as file:
        if "matroska" in format:
            return _matroska_end(file) > n_bytes
        if format == "avi":
            return int.from_bytes(file.read(8)[4:], "little") + 8 > n_bytes
    return None


def _boxes(path: Path) -> list[tuple[bytes, int]]:
    """(kind, end in bytes) of each outermost box of an mp4 or mov file; empty for other files."""
    boxes: list[tuple[bytes, int]] = []
    at, n_bytes = 0, path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if not at and kind not in _FIRST_BOXES:
                break
            if size == 1:
                size = int.from_bytes(head[8:], "big")
            elif size == 0:  # up to the end of the file
                size = n_bytes - at
            if size < 8 or not kind.isalnum():
                break
            at += size
            boxes.append((kind, at))
            file.seek(at)
    return boxes


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends in bytes; 0 when the file does not say."""
    if file.read(4) != _EBML or (header := _matroska_size(file)) is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != _SEGMENT or (segment := _matroska_size(file)) is None:
        return 0
    return file.tell() + segment


def _matroska_size(file: BinaryIO) -> int | None:
    """The size of an element, a number of 1 to 8 bytes whose leading zero bits count the bytes; None: unknown."""
    first = file.read(1)
    n_more = 8 - first[0].bit_length() if first and first[0] else 8
    rest = file.read(n_more) if n_more < 8 else b""
    bits = 7 * (n_more + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if n_more == 8 or len(rest) < n_more or value == (1 << bits) - 1 else value
