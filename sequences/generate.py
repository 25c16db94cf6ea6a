"""Generate the small test sequences in tiny/: textured, moving, noisy, and byte-identical on every machine.

    python sequences/generate.py [folder]

Everything is integer arithmetic on numpy arrays and a fixed hash, so nothing depends on the machine, its maths
library or numpy's random generators. The only picture file, a PNG, is stored without compression for the same reason.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Picture = tuple[Ints, Ints, Ints]

ONE = 256
"""Fixed point of positions and of values in [0, 1): 8 fractional bits."""


def hash32(*keys: Ints | int) -> Ints:
    """A well-mixed number 0..2**32-1 for each combination of (broadcast) integer keys."""
    mixed = np.uint32(0x9E3779B9)
    state = np.zeros(np.broadcast_shapes(*(np.shape(key) for key in keys)), dtype=np.uint32) + mixed
    for key in keys:
        state = state ^ np.asarray(key, dtype=np.int64).astype(np.uint32)
        for factor in (0x85EBCA6B, 0xC2B2AE35):
            state = (state ^ (state >> np.uint32(15))) * np.uint32(factor)
        state = state ^ (state >> np.uint32(16))
    return state.astype(np.int64)


def grid(height: int, width: int, step: int = 1) -> tuple[Ints, Ints]:
    """Fixed-point (x, y) of the centre of each sample; step 2 for the chroma of 4:2:0."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    half = (step - 1) * ONE // 2
    return x * step * ONE + half, y * step * ONE + half


def lattice_noise(x: Ints, y: Ints, seed: int, cell: int) -> Ints:
    """Smooth noise 0..ONE-1 with features of `cell` pixels: bilinear between hashed lattice points."""
    scale = cell * ONE
    column, row = x // scale, y // scale
    fx, fy = (x - column * scale) // cell, (y - row * scale) // cell
    corner = [[hash32(seed, row + r, column + c) >> 24 for c in (0, 1)] for r in (0, 1)]
    top = corner[0][0] * (ONE - fx) + corner[0][1] * fx
    bottom = corner[1][0] * (ONE - fx) + corner[1][1] * fx
    return (top * (ONE - fy) + bottom * fy) // (ONE * ONE)


def texture(x: Ints, y: Ints, seed: int) -> Ints:
    """Three octaves of noise, 0..ONE-1."""
    octaves = [
        lattice_noise(x, y, seed + i, cell) * weight for i, (cell, weight) in enumerate(((16, 4), (6, 3), (3, 1)))
    ]
    return sum(octaves, np.zeros_like(x)) // 8


def stripes(x: Ints, y: Ints, period: int) -> Ints:
    """Slanted triangle wave 0..ONE-1 with this period in pixels."""
    phase = (3 * x + y) % (2 * period * ONE)
    return np.minimum(phase, 2 * period * ONE - 1 - phase) // period


def sensor_noise(shape: tuple[int, ...], amplitude: int, *keys: int) -> Ints:
    """Roughly normal integers of standard deviation amplitude / 256: the sum of four bytes of a hash, centred."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.int64)
    word = hash32(*keys, rows, columns)
    total = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24) - 510
    return (total * amplitude + (148 << 7)) // (148 * 256)


def rotate(x: Ints, y: Ints, turns: int) -> tuple[Ints, Ints]:
    """(x, y) turned `turns` times by an angle of 4.2 degrees, exact in integers."""
    cos, sin = 1 << 12, 0
    for _ in range(turns):
        cos, sin = (cos * 4085 - sin * 300) >> 12, (sin * 4085 + cos * 300) >> 12
    return (x * cos - y * sin) >> 12, (x * sin + y * cos) >> 12


def pan(x: Ints, y: Ints, t: int, seed: int, speed: tuple[int, int]) -> Picture:
    """A textured background that moves by `speed` (1/256 pixel per frame), coloured by a coarser texture."""
    x, y = x + t * speed[0], y + t * speed[1]
    tint = lattice_noise(x, y, seed + 10, 24)
    return 50 + texture(x, y, seed) * 5 // 8, 96 + tint // 4, 160 - tint // 4


def with_disc(background: Picture, x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    """A striped, turning disc that circles the middle of a picture of `size` (width, height), over the background."""
    orbit_x, orbit_y = rotate(np.asarray(size[1] * ONE // 5), np.asarray(0), 4 * t)
    dx, dy = x - size[0] * ONE // 2 - orbit_x, y - size[1] * ONE // 2 - orbit_y
    inside = dx * dx + dy * dy < (size[1] * ONE // 4) ** 2
    u, v = rotate(dx, dy, -t % 86)
    marks = stripes(u, v, 9) * 3 // 4 + texture(u + 4096, v + 4096, 77) // 4
    disc = (30 + marks * 3 // 4, 150 - marks // 3, 110 + marks // 4)
    over = [np.where(inside, front, back) for front, back in zip(disc, background, strict=True)]
    return over[0], over[1], over[2]


def orbit(x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    return with_disc(pan(x, y, t, 1, (310, -95)), x, y, t, size)


def drift(x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    return pan(x, y, t, 2, (-300, 130))


def weave(x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    background = pan(x, y, t, 3, (64, 128))
    return with_disc((background[0], stripes(x, y + t * 200, 5) // 2 + 64, background[2]), x, y, t, size)


def sweep(x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    return pan(x, y, t, 4, (7 * ONE, 3 * ONE))


def card(x: Ints, y: Ints, t: int, size: tuple[int, int]) -> Picture:
    red, green, blue = with_disc(pan(x, y, t, 5, (0, 0)), x, y, 2, size)
    return red, (green * 2 + red) // 3, (blue + x // (2 * ONE)) * 3 // 4


@dataclass(frozen=True)
class Sequence:
    """The content of a file. noise: standard deviation of the sensor noise in 1/256 of an 8-bit code value."""

    file: str
    scene: Callable[[Ints, Ints, int, tuple[int, int]], Picture]
    size: tuple[int, int]
    n_frames: int
    subsampled: bool = False
    bit_depth: int = 8
    noise: int = 256


SEQUENCES = (
    Sequence("orbit_96x64_30p_yuv420_8b.yuv", orbit, (96, 64), 9, subsampled=True),
    Sequence("sweep_112x64_25p_yuv420_8b.yuv", sweep, (112, 64), 5, subsampled=True),
    Sequence("drift_67x45_25p_yuv420_10b.yuv", drift, (67, 45), 3, subsampled=True, bit_depth=10, noise=200),
    Sequence("weave_64x48_24p_yuv444_8b.yuv", weave, (64, 48), 3),
    Sequence("card_64x48.png", card, (64, 48), 1),
)


def planes(sequence: Sequence, t: int) -> Iterator[Ints]:
    """The three planes of frame t: scene, then noise, then rounding and clamp to the bit depth."""
    width, height = sequence.size
    extra = sequence.bit_depth - 8
    for channel in range(3):
        step = 2 if sequence.subsampled and channel else 1
        x, y = grid(-(-height // step), -(-width // step), step)
        clean = sequence.scene(x, y, t, sequence.size)[channel] << extra
        noisy = clean + sensor_noise(clean.shape, sequence.noise << extra, 1000 + channel, t)
        yield np.clip(noisy, 0, (256 << extra) - 1)


def content(sequence: Sequence) -> bytes:
    """The whole file."""
    frames = [list(planes(sequence, t)) for t in range(sequence.n_frames)]
    if sequence.file.endswith(".png"):
        return png(np.stack(frames[0], axis=-1).astype(np.uint8))
    sample = "u1" if sequence.bit_depth == 8 else "<u2"
    return b"".join(plane.astype(sample).tobytes() for frame in frames for plane in frame)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB picture [H, W, 3] as a PNG (ISO/IEC 15948) with stored (uncompressed) blocks."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    blocks = [lines[i : i + 65535] for i in range(0, len(lines), 65535)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(lines))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sequence in SEQUENCES:
        data = content(sequence)
        (folder / sequence.file).write_bytes(data)
        print(f"{folder / sequence.file}: {len(data)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "tiny")
