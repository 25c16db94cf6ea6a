"""Makes picture.png of the README: a frame of sequences/tiny, what is decoded of it, the difference, and its bits.

python docs/picture.py

Needs the extra `review` (Pillow). Writes the figures that stand under the picture to standard output.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import coolvid
from coolvid.media import open_source
from coolvid.media.pixels import to_rgb
from coolvid.picture.quality import psnr
from coolvid.picture.types import ColorInfo, Frame
from coolvid.study.inspection import FrameInspection, inspect_stream
from coolvid.study.review import difference

HERE = Path(__file__).parent
SOURCE = HERE.parent / "sequences" / "tiny" / "orbit_96x64_30p_yuv420_8b.yuv"
SHOWN, SCALE, GAP, BAR, AMPLIFY = 4, 3, 6, 24, 4
HEAT = np.array([(0, 0, 0), (70, 10, 110), (190, 50, 80), (250, 150, 40), (255, 255, 190)], dtype=float)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_source(SOURCE) as source:
        stream = Path(folder) / "orbit.cvd"
        done = coolvid.encode(SOURCE, stream, coolvid.EncodeConfig(preset="fast"))
        original = list(source)[SHOWN]
        (found,) = inspect_stream(stream, [SHOWN])
    draw(original, found).save(HERE / "picture.png", optimize=True)
    bits = sum(bits.sum() for bits in found.latent_bits["residue"])
    sys.stdout.write(
        f"all {done.n_frames} frames: {done.n_bytes} bytes, {done.rate_bpp:.3f} bpp, {done.psnr_db:.2f} dB\n"
        f"frame {SHOWN} ({found.info.frame_type.name}): {found.info.n_bytes} bytes, of them {bits / 8:.0f} for latents "
        f"of the residue, {psnr(original, found.picture):.2f} dB; brightest: {found.bits_per_pixel().max():.1f} bits\n"
    )


def draw(original: Frame, found: FrameInspection) -> Image.Image:
    """Four pictures side by side, each under its name."""
    bits = found.bits_per_pixel()
    tiles = {
        "source": rgb(original),
        "decoded": rgb(found.picture),
        f"difference x {AMPLIFY}": rgb(difference(original, found.picture, AMPLIFY)),
        "bits": heat(bits / bits.max()),
    }
    height, width = original.height * SCALE, original.width * SCALE
    board = Image.new("RGB", (4 * width + 3 * GAP, BAR + height), "white")
    pen, font = ImageDraw.Draw(board), ImageFont.load_default(15)
    for i, (name, pixels) in enumerate(tiles.items()):
        left = i * (width + GAP)
        pen.text((left + 2, 2), name, fill="black", font=font)
        board.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (left, BAR))
    return board


def rgb(frame: Frame) -> NDArray[np.uint8]:
    return to_rgb(frame, ColorInfo(), "rgb24").to_ndarray()


def heat(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Values 0 to 1 as colours from black over red to white."""
    at = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(share, at, HEAT[:, i]) for i in range(3)], axis=-1).astype(np.uint8)


if __name__ == "__main__":
    main()
