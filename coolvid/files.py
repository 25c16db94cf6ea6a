"""How every file is written: under a temporary name, `<path>.part`, until its content is whole.

What is not a regular file (a device, a FIFO, a link below /dev or /proc) is written in place: never renamed over, never
deleted. Functions that write raise OutputError.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from .errors import CoolvidError, OutputError

PART = ".part"
_SYSTEM_FOLDERS = ("/dev/", "/proc/")

AnyPath = str | os.PathLike[str]


def is_in_place(path: AnyPath) -> bool:
    """Whether a path is written as it stands, because renaming another file to it would destroy what it is."""
    path = Path(path)
    if path.is_symlink() and os.path.abspath(path).startswith(_SYSTEM_FOLDERS):
        return True  # /dev/stdout may lead to a regular file, which the shell holds open
    return path.exists() and not path.is_file() and not path.is_dir()


def part_of(path: AnyPath) -> Path:
    """The name under which the content of path is written: `<path>.part`, or path itself when in place."""
    path = Path(path)
    return path if is_in_place(path) else path.with_name(path.name + PART)


def is_part(path: AnyPath) -> bool:
    """Whether this is the temporary name of an unfinished file."""
    return os.fspath(path).endswith(PART)


def check_name(path: AnyPath, kind: type[CoolvidError]) -> None:
    """Raise an error of this kind for a name that is not UTF-8, and so cannot be shown or noted."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise kind(f"the name {os.fsencode(path)!r} is not UTF-8; rename the file") from error


def check_writable(path: AnyPath) -> None:
    """Raise OutputError unless a file of this name can be written."""
    check_name(path, OutputError)
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    if is_in_place(path):
        if not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {path}: permission denied; choose another name")
        return
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: permission denied in the folder {folder}; choose another one")


def failure(path: AnyPath, error: BaseException) -> OutputError:
    """The error for a path that could not be written."""
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"cannot write {os.fspath(path)}: {reason}; check the folder and its free space")


def finish(path: AnyPath, name: AnyPath | None = None) -> None:
    """Give the content written under part_of(path) its name: path, or another name beside it."""
    move(part_of(path), path if name is None else name)


def discard(path: AnyPath) -> None:
    """Delete the part of path, if there is one."""
    if not is_in_place(path):
        part_of(path).unlink(missing_ok=True)


def move(whole: AnyPath, path: AnyPath) -> None:
    """Give a whole file the name path. A path that is written in place receives the content instead."""
    whole, path = Path(whole), Path(path)
    if whole == path:
        return
    with _explained(path):
        if not is_in_place(path):
            whole.replace(path)
            return
        with whole.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        whole.unlink()


@contextmanager
def replacing(path: AnyPath, mode: str = "wb") -> Iterator[IO[Any]]:
    """An open file, "wb" or "w" (UTF-8), that takes the name path when the block ends well; else nothing is left.

    Turns every OSError of the block into OutputError.
    """
    with _under_construction(path, mode, BaseException) as file, _explained(path):
        yield file


@contextmanager
def growing(path: AnyPath) -> Iterator[IO[bytes]]:
    """A binary file for a long run. An error deletes it; an interruption leaves its part, which can be read.

    The block handles its own OSErrors: not all of them need be about this file.
    """
    with _under_construction(path, "wb", Exception) as file:
        yield file


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file that exists whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: AnyPath, text: str) -> None:
    """Write a UTF-8 file that exists whole or not at all."""
    with replacing(path, "w") as file:
        file.write(text)


def open_lines(path: AnyPath, *, append: bool = False) -> TextIO:
    """A UTF-8 file that is read while it grows, so it has its name from the start. The caller flushes each line."""
    check_writable(path)
    with _explained(path):
        return Path(path).open("a" if append else "w", encoding="utf-8", newline="")


@contextmanager
def _under_construction(path: AnyPath, mode: str, deleted_at: type[BaseException]) -> Iterator[IO[Any]]:
    check_writable(path)
    with _explained(path):
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        file = part_of(path).open(mode, **text)
    try:
        yield file
        with _explained(path):
            file.close()
            finish(path)
    except deleted_at:
        _close(file)
        discard(path)
        raise
    finally:
        _close(file)


@contextmanager
def _explained(path: AnyPath) -> Iterator[None]:
    """Turn OSError into OutputError. BrokenPipeError stays: the reader of a pipe has gone, which is no failure."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise failure(path, error) from error


def _close(file: IO[Any]) -> None:
    """Close a file whose content no longer counts."""
    with suppress(OSError):
        file.close()
