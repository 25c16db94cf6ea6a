"""files.py: whole or not at all under the final name, in place where a name is no regular file."""

import os
import threading
from pathlib import Path

import pytest

from coolvid import files
from coolvid.errors import OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode, content", [("wb", b"\x00new\n"), ("w", "new ä\n")])
def test_a_file_appears_whole(tmp_path, mode, content):
    out = tmp_path / "a.txt"
    out.write_text("old")
    with files.replacing(out, mode) as file:
        file.write(content)
        assert out.read_text() == "old" and names(tmp_path) == ["a.txt", "a.txt.part"]
    assert out.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("writer, kept", [(files.replacing, False), (files.growing, True)])
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_error_deletes_and_an_interruption_keeps_what_grows(tmp_path, writer, kept, error):
    out = tmp_path / "a.bin"
    out.write_bytes(b"old")
    with pytest.raises(error), writer(out) as file:
        file.write(b"new")
        raise error
    assert out.read_bytes() == b"old"
    assert files.part_of(out).exists() is (kept and error is KeyboardInterrupt)


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk(tmp_path):
    out = tmp_path / "a.bin"
    message = r"cannot write .*a\.bin: No space left on device; check the folder and its free space"
    with pytest.raises(OutputError, match=message), files.replacing(out):
        full()
    with pytest.raises(OSError, match="No space left") as info, files.growing(out):
        full()
    assert not isinstance(info.value, OutputError)
    assert names(tmp_path) == []


def test_a_broken_pipe_is_not_renamed(tmp_path):
    with pytest.raises(BrokenPipeError), files.replacing(tmp_path / "a.bin"):
        raise BrokenPipeError
    assert names(tmp_path) == []


WRITERS = [
    lambda path: files.write_text(path, "a"),
    lambda path: files.write_bytes(path, b"a"),
    files.open_lines,
    lambda path: files.growing(path).__enter__(),
]
REFUSED = [
    ("folder", "it is a folder; name a file in it"),
    ("none/a", "the folder .*none does not exist; create it first"),
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name, message", REFUSED)
def test_what_cannot_be_written(tmp_path, write, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"cannot write .*{name}: {message}"):
        write(tmp_path / name)
    assert names(tmp_path) == ["folder"]


def test_lines_are_there_at_once(tmp_path):
    for append, expected in ((False, "a\n"), (True, "a\na\n"), (False, "a\n")):
        with files.open_lines(tmp_path / "log", append=append) as file:
            file.write("a\n")
            file.flush()
            assert (tmp_path / "log").read_text() == expected


@pytest.mark.parametrize("write", WRITERS[:2])
def test_a_device_is_written_to_and_stays(write):
    assert files.is_in_place("/dev/null") and files.part_of("/dev/null") == Path("/dev/null")
    write(Path("/dev/null"))
    files.discard("/dev/null")
    assert Path("/dev/null").is_char_device() and not Path("/dev/null.part").exists()


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_fifo_is_written_to_and_stays(tmp_path, is_moved):
    fifo, whole, got = tmp_path / "fifo", tmp_path / "whole", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    if is_moved:
        whole.write_bytes(b"content")
        files.move(whole, fifo)
    else:
        files.write_bytes(fifo, b"content")
    reader.join(timeout=10)
    assert got == [b"content"] and fifo.is_fifo() and names(tmp_path) == ["fifo"]


def test_a_link_to_standard_output_is_no_file_to_replace(tmp_path):
    with (tmp_path / "redirected").open("wb") as file:
        link = Path(f"/proc/self/fd/{file.fileno()}")
        assert link.is_file() and files.is_in_place(link)


def test_moving_gives_the_name(tmp_path):
    (tmp_path / "trial").write_bytes(b"new")
    (tmp_path / "out").write_bytes(b"old")
    files.move(tmp_path / "trial", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"new" and names(tmp_path) == ["out"]
