"""The display matrix of a picture: how it must be turned or mirrored to be upright.

PyAV's `rotation` does not tell mirrored pictures from turned ones. Its `side_data` raises on kinds that it does not
know (EXIF), and crashes the process on kinds with metadata (ICC profiles); so FFmpeg first removes every other kind
from a copy of the picture.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph

_MATRIX = 6  # AV_FRAME_DATA_DISPLAYMATRIX
_KINDS = 64  # FFmpeg 8.1 has 32
_SELECT = (f"mode=select:type={_MATRIX}",)
_REDUCE = tuple(f"mode=delete:type={kind}" for kind in range(_KINDS) if kind != _MATRIX)


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the picture's display matrix in libavutil's order, None if it has none."""
    if _filtered(picture, _SELECT) is None:
        return None
    reduced = _filtered(picture, _REDUCE)
    assert reduced is not None
    matrix: Any = reduced.side_data.get("DISPLAYMATRIX")
    return tuple(int(entry) for entry in np.frombuffer(bytes(matrix), "=i4"))


def _filtered(picture: av.VideoFrame, steps: tuple[str, ...]) -> av.VideoFrame | None:
    """The picture after these steps of FFmpeg's filter `sidedata`, None if they drop it."""
    graph = Graph()
    graph.threads = 1  # starting threads takes longer than the filters
    last = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
    )
    for step in steps:
        following = graph.add("sidedata", step)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(picture)
    try:
        return graph.vpull()
    except av.error.BlockingIOError:
        return None
