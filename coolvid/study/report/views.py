"""The contents of chosen frames in the page's form: pictures as WebP, maps of integers as deflated bytes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid.bitstream.stream import StreamReader
from coolvid.codec.architecture import Grid
from coolvid.codec.fixed_point import FLOW_BITS, INT16_MAX, INT16_MIN, saturate16
from coolvid.decoding.frame import BLEND_BITS
from coolvid.events import Listener
from coolvid.media.still import still
from coolvid.picture.types import ColorInfo, Frame, VideoFormat
from coolvid.study.inspection import FrameInspection, inspect_stream

PAGE_PIXELS = 3_000_000
LATENT_BIT_STEPS = 16
PIXEL_BIT_STEPS = 256
WEIGHT_STEPS = 255


def choose_divisor(format: VideoFormat, n_frames: int) -> int:
    """The power of two that scales n_frames pictures down to at most PAGE_PIXELS in total, or 64."""
    divisor = 1
    while n_frames * format.height * format.width > PAGE_PIXELS * divisor**2 and divisor < 64:
        divisor *= 2
    return divisor


def view(
    reader: StreamReader, shown: Sequence[int], divisor: int, sources: Mapping[int, Frame], listen: Listener
) -> dict[str, Any]:
    """By display index: pictures, motion, masks, and latents with their bits. sources: source pictures."""
    color = reader.header.color
    return {
        str(found.info.display_index): _frame(found, divisor, color, sources.get(found.info.display_index))
        for found in inspect_stream(reader, shown, listen)
    }


def _frame(found: FrameInspection, divisor: int, color: ColorInfo, source: Frame | None) -> dict[str, Any]:
    frames = {"source": source, "decoded": found.picture, "prediction": found.parts.prediction}
    n_sources = len(found.info.sources)
    weights = zip(("alpha", "beta"), found.parts.weights[:n_sources], strict=False)
    return {
        "pictures": {name: _uri(frame, color, divisor) for name, frame in frames.items() if frame is not None},
        "flow": [_flow(flow, divisor) for flow in found.parts.flow[:n_sources]],
        "translation": found.coded.global_translation[:n_sources],
        "weights": {name: _weight(plane, divisor) for name, plane in weights},
        "bits": pack(reduce_plane(found.bits_per_pixel(), divisor, "mean"), PIXEL_BIT_STEPS),
        "branches": {branch: _branch(found, branch, divisor) for branch in found.grids},
    }


def _uri(frame: Frame, color: ColorInfo, divisor: int) -> str:
    mime, data = still(frame, color, divisor)
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _flow(flow: NDArray[np.int32], divisor: int) -> dict[str, Any]:
    """Motion into one reference: x and y in pixels of the frame, and the longest vector."""
    x, y = (reduce_plane(plane, divisor, "first") for plane in flow)
    longest = float(np.sqrt((flow.astype(np.float64) ** 2).sum(axis=0)).max()) / (1 << FLOW_BITS)
    return {"x": _packed(x, 1 << FLOW_BITS), "y": _packed(y, 1 << FLOW_BITS), "longest": longest}


def _weight(plane: NDArray[np.int64], divisor: int) -> dict[str, Any]:
    return pack(reduce_plane(plane / (1 << BLEND_BITS), divisor, "mean"), WEIGHT_STEPS)


def _branch(found: FrameInspection, branch: str, divisor: int) -> list[dict[str, Any]]:
    latents = found.coded.coolchics[branch].latents
    all_of_it = zip(found.grids[branch], latents, found.latent_bits[branch], strict=True)
    return [_grid(grid, values, bits, divisor) for grid, values, bits in all_of_it]


def _grid(grid: Grid, values: NDArray[np.int32], bits: NDArray[np.float64], divisor: int) -> dict[str, Any]:
    """One grid; if it is finer than the page's pictures, the extreme value and the total bits of each block."""
    block = max(1, divisor >> grid.log2)
    out: dict[str, Any] = {
        "log2": grid.log2,
        "hyper": grid.is_hyper,
        "height": grid.height,
        "width": grid.width,
        "block": block,
        "total_bits": float(bits.sum()),
        "low": int(values.min()),
        "high": int(values.max()),
        "nonzero": int(np.count_nonzero(values)),
    }
    if out["nonzero"]:
        out["values"] = _packed(reduce_plane(values, block, "extreme"), 1)
        out["bits"] = pack(reduce_plane(bits, block, "sum"), LATENT_BIT_STEPS)
    return out


def reduce_plane(plane: NDArray[Any], block: int, how: str) -> NDArray[Any]:
    """[h, w] -> [ceil(h / block), ceil(w / block)]: the mean, sum, first or extreme (farthest from 0) of each block."""
    if block == 1:
        return plane
    if how == "first":
        return plane[::block, ::block]
    rows, columns = (np.arange(0, size, block) for size in plane.shape)
    total = np.add.reduceat(np.add.reduceat(plane, rows, axis=0), columns, axis=1)
    if how == "sum":
        return total
    if how == "mean":
        heights, widths = (np.minimum(block, size - at) for size, at in zip(plane.shape, (rows, columns), strict=True))
        return total / np.outer(heights, widths)
    low = np.minimum.reduceat(np.minimum.reduceat(plane, rows, axis=0), columns, axis=1)
    high = np.maximum.reduceat(np.maximum.reduceat(plane, rows, axis=0), columns, axis=1)
    return np.where(-low > high, low, high)


def pack(plane: NDArray[np.float64], steps: int) -> dict[str, Any]:
    """Real numbers [h, w], rounded to multiples of 1 / steps."""
    return _packed(np.clip(np.rint(plane * steps), INT16_MIN, INT16_MAX).astype(np.int32), steps)


def _packed(values: NDArray[np.int32], steps: int) -> dict[str, Any]:
    """Integers [h, w], limited to int16: differences along rows, low bytes before high bytes, deflated, base64.

    steps: how many steps make 1.
    """
    rows = saturate16(values.astype(np.int64)).astype("<i2")
    differences = np.diff(rows, axis=1, prepend=rows.dtype.type(0))
    split = differences.astype("<i2").view(np.uint8).reshape(-1, 2).T
    data = base64.b64encode(zlib.compress(split.tobytes())).decode()
    return {"height": rows.shape[0], "width": rows.shape[1], "steps": steps, "data": data}
