"""Base classes of all sources and sinks of frames."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from coolvid.errors import InputError, OutputError
from coolvid.files import check_writable, discard, failure, finish
from coolvid.picture.types import ColorInfo, DisplayInfo, Frame, VideoFormat


class Source(ABC):
    """Frames from a file, one after another; an iterator and a context manager.

    format, fps, color and display describe all frames; n_frames is None when only reading to the end shows it; name is
    the file's name; choice says what of it was taken, in words, when there was a choice.
    """

    format: VideoFormat
    fps: Fraction
    color: ColorInfo
    display: DisplayInfo = DisplayInfo()
    n_frames: int | None
    name: str
    choice: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame; raises InputError when the file is truncated or damaged."""

    def skip(self, n: int) -> int:
        """Skip up to n frames and return the number skipped. Call it before the first frame is read."""
        return sum(1 for _ in islice(self, n))

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class Sink(ABC):
    """Writes frames to a file; a context manager. first: number of the first frame, for numbered files.

    Everything is written under temporary names next to the target and renamed when the `with` block succeeds. After an
    error, no new file remains and an existing target is unchanged.
    """

    _failures: tuple[type[Exception], ...] = (OSError, ValueError)
    """What writing raises, apart from CoolvidError."""

    def __init__(
        self,
        path: Path,
        format: VideoFormat,
        fps: Fraction,
        color: ColorInfo,
        n_frames: int | None = None,
        first: int = 0,
        display: DisplayInfo = DisplayInfo(),
    ) -> None:
        self.path, self.format, self.fps, self.color, self.n_frames = path, format, fps, color, n_frames
        self.display, self.first, self.n_written = display, first, 0
        self._check_target()

    def _check_target(self) -> None:
        """Raises OutputError when the target cannot be written, or does not hold the format."""
        check_writable(self.path)

    @property
    def not_stored(self) -> tuple[str, ...]:
        """What the file cannot hold of the description of the pictures, in words."""
        held = self._held().facts
        return tuple(f"{name} {value}" for name, value in self.display.facts if (name, value) not in held)

    def _held(self) -> DisplayInfo:
        """The part of `display` that the file holds."""
        return DisplayInfo()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BrokenPipeError:
            raise
        except self._failures as error:
            self._abandon()
            raise failure(self.path, error) from error
        return self

    def write(self, frame: Frame) -> None:
        """Append one frame; raises OutputError when it has another format or the file cannot be written.

        BrokenPipeError, when the reader of standard output has closed it, passes through.
        """
        if frame.format != self.format:
            raise OutputError(f"{self.path}: a frame of {frame.format} does not fit a file of {self.format}")
        try:
            self._write(frame)
        except BrokenPipeError:
            raise
        except self._failures as error:
            raise failure(self.path, error) from error
        self.n_written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            if not self.n_written:
                raise OutputError(f"{self.path}: no frames were written, so no file was made")
            self._finish()
            for path, name in self._results():
                finish(path, name)
        except BrokenPipeError:
            raise
        except self._failures as problem:
            self._abandon()
            raise failure(self.path, problem) from problem
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close everything and delete the temporary files; never raises."""
        try:
            self._close()
        except self._failures:
            pass  # the file is deleted next
        finally:
            for path, _ in self._results():
                discard(path)

    def _results(self) -> list[tuple[Path, Path]]:
        """(path, name) of each file made: written under part_of(path), to be named `name`."""
        return [(self.path, self.path)]

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, frame: Frame) -> None: ...

    @abstractmethod
    def _finish(self) -> None:
        """Write what is still pending and close."""

    @abstractmethod
    def _close(self) -> None:
        """Close; the content is discarded."""


def check_readable(path: Path) -> None:
    """Raises InputError unless path is a file that exists, is readable and is not empty."""
    if not path.exists():
        raise InputError(f"no such file: {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} is not readable; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
