"""SHA-256 of decoded pictures, by which two decodes are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from .types import Frame


def picture_digest(frame: Frame) -> bytes:
    """SHA-256 of a picture's planes, 16-bit little endian."""
    state = hashlib.sha256()
    for plane in frame.planes:
        state.update(plane.astype("<u2").tobytes())
    return state.digest()


def digest_of(pictures: Iterable[bytes]) -> str:
    """One digest, in hexadecimal, of the digests of pictures in display order."""
    return hashlib.sha256(b"".join(pictures)).hexdigest()
