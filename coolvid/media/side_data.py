"""What a picture carries beside its samples, read without touching kinds that PyAV cannot hold.

PyAV's `side_data` raises on kinds that it does not know (EXIF), and crashes the process on kinds with metadata (ICC
profiles); so FFmpeg first removes every other kind from a copy of the picture.
"""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph

_KINDS = 64  # FFmpeg 8.1 has 32


class Kind(Enum):
    """Kinds of side data, named as by PyAV and numbered as by libavutil."""

    DISPLAYMATRIX = 6
    MASTERING_DISPLAY_METADATA = 11
    CONTENT_LIGHT_LEVEL = 14


def side_data(picture: av.VideoFrame, kind: Kind) -> bytes | None:
    """The picture's side data of this kind, as libavutil lays it out; None if it has none."""
    if _filtered(picture, (f"mode=select:type={kind.value}",)) is None:
        return None
    others = (other for other in range(_KINDS) if other != kind.value)
    reduced = _filtered(picture, tuple(f"mode=delete:type={other}" for other in others))
    assert reduced is not None
    found: Any = reduced.side_data.get(kind.name)
    return bytes(found)


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
