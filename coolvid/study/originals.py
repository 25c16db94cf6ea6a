"""The frames of a source that belong to the frames of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coolvid.errors import InputError, count_frames
from coolvid.media import Source
from coolvid.picture.types import Frame


def originals(source: Source, indices: Sequence[int]) -> Iterator[Frame]:
    """The frames with these display indices, which ascend; a partial stream lacks some. Raises InputError."""
    n_read = 0
    for index in indices:
        frame: Frame | None = None
        while n_read <= index:
            frame = next(source, None)
            if frame is None:
                raise InputError(
                    f"{source.name} has {count_frames(n_read)}, but the stream {indices[-1] + 1}; "
                    "give the encoded source"
                )
            n_read += 1
        assert frame is not None, indices
        yield frame
