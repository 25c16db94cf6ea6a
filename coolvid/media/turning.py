"""The display matrix of a picture: how it must be turned or mirrored to be upright.

PyAV's `rotation` does not tell mirrored pictures from turned ones.
"""

from __future__ import annotations

import av
import numpy as np

from .side_data import Kind, side_data


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the picture's display matrix in libavutil's order, None if it has none."""
    matrix = side_data(picture, Kind.DISPLAYMATRIX)
    return None if matrix is None else tuple(int(entry) for entry in np.frombuffer(matrix, "=i4"))
