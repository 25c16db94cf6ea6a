"""CRC-32C (Castagnoli), the checksum of headers and packets (RFC 3720, appendix B.4)."""

from __future__ import annotations

from functools import cache

from coolvid import kernels

_POLYNOMIAL = 0x82F63B78
CRC_BYTES = 4


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        rows.append(byte)
    return tuple(rows)


def crc32c(data: bytes) -> int:
    """The checksum of data, 0..2**32 - 1."""
    return plain_crc32c(data) if kernels.decode is None else int(kernels.decode.crc32c(data))


def plain_crc32c(data: bytes) -> int:
    """crc32c() in Python: the reference of the compiled kernel."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def sealed(data: bytes) -> bytes:
    """data followed by its checksum, big-endian."""
    return data + crc32c(data).to_bytes(CRC_BYTES, "big")


def is_sealed(data: bytes) -> bool:
    """Whether data ends with the checksum of all before it."""
    return len(data) >= CRC_BYTES and crc32c(data[:-CRC_BYTES]) == int.from_bytes(data[-CRC_BYTES:], "big")
