"""How every file is written: under a temporary name, `<path>.part`, until its content is whole.

What is not a regular file (a device, a FIFO, a link below /dev or /proc) is written in place: never renamed over, never
deleted. A long run locks its output, see locked(). Functions that write raise OutputError.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from .errors import ConfigError, CoolvidError, OutputError

PART = ".part"
LOCK = ".lock"
MAX_TEXT = 1 << 26
_SYSTEM_FOLDERS = ("/dev/", "/proc/")

AnyPath = str | os.PathLike[str]


def is_in_place(path: AnyPath) -> bool:
    """Whether a path is written as it stands, because renaming another file to it would destroy what it is."""
    path = Path(path)
    if path.is_symlink() and os.path.abspath(path).startswith(_SYSTEM_FOLDERS):
        return True  # /dev/stdout may lead to a regular file, which the shell holds open
    return path.exists() and not path.is_file() and not path.is_dir()


def is_standard_output(path: AnyPath) -> bool:
    """Whether what is written to path goes where this process prints."""
    try:
        return os.path.samestat(os.fstat(1), os.stat(path))
    except OSError:
        return False


def part_of(path: AnyPath) -> Path:
    """The name under which the content of path is written: `<path>.part`, or path itself when in place."""
    return Path(path) if is_in_place(path) else Path(f"{os.fspath(path)}{PART}")


def is_part(path: AnyPath) -> bool:
    """Whether this is the temporary name of an unfinished file."""
    return os.fspath(path).endswith(PART)


def check_name(path: AnyPath, kind: type[CoolvidError]) -> None:
    """Raise an error of this kind for a name that is not UTF-8, and so cannot be shown or noted."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise kind(f"the name {os.fsencode(path)!r} is not UTF-8; rename the file") from error


def check_writable(path: AnyPath, *, as_it_stands: bool = False) -> None:
    """Raise OutputError unless a file of this name can be written. as_it_stands: not replaced by its part."""
    check_name(path, OutputError)
    path = Path(path)
    with _explained(path):
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if is_in_place(path) or (as_it_stands and path.exists()):
            if not os.access(path, os.W_OK):
                raise OutputError(f"cannot write {path}: permission denied; choose another name")
            return
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {path}: permission denied in the folder {path.parent}; choose another one")
        if not as_it_stands and part_of(path).is_dir():
            raise OutputError(f"cannot write {path}: {part_of(path)} is a folder; rename it, or choose another name")


def refuse_overwriting(read: AnyPath, *written: AnyPath) -> None:
    """Raise ConfigError if writing any of these paths, or its part, would overwrite the file that is read.

    Links count as what they lead to. A name with a number (%d, %04d) stands for every file that it matches, and so does
    a source that is a folder or has * or ?.
    """
    sources = [file for file in Path(read).iterdir() if file.is_file()] if Path(read).is_dir() else _files_of(read)
    for path in written:
        for name in (Path(path), part_of(path)):
            if any(file.samefile(source) for file in _files_of(name) for source in sources):
                raise ConfigError(f"the output '{name}' is the input file; choose another name")


def _files_of(path: AnyPath) -> list[Path]:
    """The existing files that a name stands for."""
    path = Path(path)
    if path.exists():
        return [path]
    pattern = re.sub(r"%\d*d", "*", path.name.replace("[", "[[]"))
    return [file for file in path.parent.glob(pattern) if file.exists()] if re.search(r"[*?]", pattern) else []


def read_text(path: AnyPath) -> str:
    """A UTF-8 file of settings or results. Raises OSError, and ValueError for one that is too large or not UTF-8."""
    with Path(path).open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise ValueError(f"it is larger than {MAX_TEXT >> 20} MB")
    return data.decode("utf-8")


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
    with _under_construction(path, mode, lambda: False) as file, _explained(path):
        yield file


@contextmanager
def growing(path: AnyPath, is_worth_keeping: Callable[[], bool], *, after: int = 0) -> Iterator[IO[bytes]]:
    """A binary file for a long run, which continues after the first `after` bytes of its part.

    When the block is left by an error or an interruption, is_worth_keeping() decides whether the part stays. The block
    handles its own OSErrors: not all of them need be about this file.
    """
    with _under_construction(path, "r+b" if after else "wb", is_worth_keeping) as file:
        if after:
            file.seek(after)
            file.truncate()
        yield file
        sync(file)


def sync(file: IO[Any]) -> None:
    """Bring what was written to the disk, so that it survives a power failure. Devices and FIFOs ignore it."""
    file.flush()
    with suppress(OSError):
        os.fsync(file.fileno())


@contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Keep every other run, in this process or another, from writing path. A process that dies releases its lock.

    The lock is on `<path>.lock`, which holds the process id. File systems without locks, and what is written in place,
    are not guarded. Raises OutputError with the process id of the run that holds the lock.
    """
    if is_in_place(path):
        yield
        return
    check_writable(path)
    name = Path(f"{os.fspath(path)}{LOCK}")
    file = _own(name, path)
    try:
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be deleted there
            file.close()
        with suppress(OSError):
            name.unlink()
        file.close()


def _own(name: Path, path: AnyPath) -> IO[bytes]:
    """The lock file, locked by this open file."""
    while True:
        with _explained(name):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(name, flags, 0o666), "r+b", buffering=0)
        if not _lock(file.fileno()):
            pid = file.read(20).decode("ascii", "replace").strip()
            file.close()
            by = f"process {pid}" if pid else "another process"
            raise OutputError(f"cannot write {os.fspath(path)}: {by} is writing it; wait, or choose another name")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                break
        file.close()  # its owner deleted it after we opened it
    if not re.fullmatch(rb"[0-9]*", file.read(20)):
        file.close()
        raise OutputError(f"cannot write {os.fspath(path)}: {name} is not a lock of an encode; rename it")
    with suppress(OSError):  # a full disk: the lock holds without its process id
        file.seek(0)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    return file


def _lock(handle: int) -> bool:
    """Lock an open file; False if another open file holds the lock. True where files cannot be locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file that exists whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: AnyPath, text: str) -> None:
    """Write a UTF-8 file that exists whole or not at all."""
    with replacing(path, "w") as file:
        file.write(text)


def open_lines(path: AnyPath, *, append: bool = False) -> TextIO:
    """A UTF-8 file that is read while it grows, so it has its name from the start. The caller flushes each line.

    append: continue after its last whole line; a line that a full disk cut short is dropped.
    """
    check_writable(path, as_it_stands=True)
    with _explained(path):
        if append and Path(path).is_file() and not is_in_place(path):
            os.truncate(path, Path(path).read_bytes().rfind(b"\n") + 1)
        return Path(path).open("a" if append else "w", encoding="utf-8", newline="")


@contextmanager
def _under_construction(path: AnyPath, mode: str, is_worth_keeping: Callable[[], bool]) -> Iterator[IO[Any]]:
    check_writable(path)
    with _explained(path):
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        file = part_of(path).open(mode, **text)
    try:
        yield file
        with _explained(path):
            file.close()
            finish(path)
    except BaseException:
        _close(file)
        if not is_worth_keeping():
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
