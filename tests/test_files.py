"""files.py: whole or not at all under the final name, in place where a name is no regular file."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coolvid import files
from coolvid.errors import ConfigError, OutputError


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


WRITERS = [
    (files.replacing, False),
    (lambda path: files.growing(path, lambda: False), False),
    (lambda path: files.growing(path, lambda: True), True),
]


@pytest.mark.parametrize("writer, kept", WRITERS, ids=["replacing", "growing", "growing, worth keeping"])
@pytest.mark.parametrize("error", [KeyError, MemoryError, KeyboardInterrupt, SystemExit])
def test_an_error_deletes_what_is_not_worth_keeping(tmp_path, writer, kept, error):
    out = tmp_path / "a.bin"
    out.write_bytes(b"old")
    with pytest.raises(error), writer(out) as file:
        file.write(b"new")
        raise error
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == (["a.bin", "a.bin.part"] if kept else ["a.bin"])


def test_what_grows_continues_after_what_is_kept(tmp_path):
    files.part_of(tmp_path / "a.bin").write_bytes(b"kept, and more")
    with files.growing(tmp_path / "a.bin", lambda: True, after=4) as file:
        file.write(b"!")
    assert (tmp_path / "a.bin").read_bytes() == b"kept!" and names(tmp_path) == ["a.bin"]


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk(tmp_path):
    out = tmp_path / "a.bin"
    message = r"cannot write .*a\.bin: No space left on device; check the folder and its free space"
    with pytest.raises(OutputError, match=message), files.replacing(out):
        full()
    with pytest.raises(OSError, match="No space left") as info, files.growing(out, lambda: False):
        full()
    assert not isinstance(info.value, OutputError)
    assert names(tmp_path) == []


def test_a_broken_pipe_is_not_renamed(tmp_path):
    with pytest.raises(BrokenPipeError), files.replacing(tmp_path / "a.bin"):
        raise BrokenPipeError
    assert names(tmp_path) == []


PATH_WRITERS = [
    lambda path: files.write_text(path, "a"),
    lambda path: files.write_bytes(path, b"a"),
    files.open_lines,
    lambda path: files.growing(path, lambda: True).__enter__(),
    lambda path: files.locked(path).__enter__(),
]
REFUSED = [
    ("folder", "it is a folder; name a file in it"),
    ("none/a", "the folder .*none does not exist; create it first"),
]


@pytest.mark.parametrize("write", PATH_WRITERS)
@pytest.mark.parametrize("name, message", REFUSED)
def test_what_cannot_be_written(tmp_path, write, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"cannot write .*{name}: {message}"):
        write(tmp_path / name)
    assert names(tmp_path) == ["folder"]


def test_a_part_that_is_a_folder_is_known_at_once(tmp_path):
    (tmp_path / "a.part").mkdir()
    with pytest.raises(OutputError, match=r"a\.part is a folder; rename it"):
        files.check_writable(tmp_path / "a")
    files.check_writable(tmp_path / "a", as_it_stands=True)
    with pytest.raises(OutputError, match=r"cannot write .*: File name too long"):
        files.check_writable(tmp_path / ("a" * 252))


def test_lines_that_a_full_disk_cut_are_dropped(tmp_path):
    (tmp_path / "log").write_bytes(b"one\ntw")
    with files.open_lines(tmp_path / "log", append=True) as file:
        file.write("two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_lines_are_there_at_once(tmp_path):
    for append, expected in ((False, "a\n"), (True, "a\na\n"), (False, "a\n")):
        with files.open_lines(tmp_path / "log", append=append) as file:
            file.write("a\n")
            file.flush()
            assert (tmp_path / "log").read_text() == expected


@pytest.mark.parametrize("write", PATH_WRITERS[:2])
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


def test_one_run_at_a_time_writes_a_file(tmp_path):
    out = tmp_path / "a.bin"
    with files.locked(out):
        with pytest.raises(OutputError, match=rf"process {os.getpid()} is writing it; wait") as info, files.locked(out):
            pass
        assert str(out) in str(info.value)
        with files.locked(tmp_path / "b.bin"):
            pass
    assert names(tmp_path) == []
    with files.locked(out):
        pass


HOLD = """
import sys, time
from coolvid import files
with files.locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_dead_process_releases_its_lock(tmp_path):
    out = tmp_path / "a.bin"
    command = [sys.executable, "-P", "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match=f"process {process.pid} is writing it"), files.locked(out):
            pass
        process.kill()
    with files.locked(out):
        assert (tmp_path / "a.bin.lock").read_text() == str(os.getpid())
    assert names(tmp_path) == []


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path / "a.bin"), files.locked(tmp_path / "a.bin"):
        pass


def test_what_is_written_in_place_is_not_locked():
    with files.locked("/dev/null"), files.locked("/dev/null"):
        assert not Path("/dev/null.lock").exists()


# (what is read, what is written, links to make: (name, target, whether hard))
SAME_FILES = [
    ("a", "a", ()),
    ("a.part", "a", ()),
    ("a", "link", (("link", "a", False),)),
    ("a", "link", (("link", "a", True),)),
    ("a", "b", (("b.part", "a", True),)),
    ("link", "b", (("link", "b.part", False), ("b.part", "a", True))),
    ("a", "%04d.png", (("0002.png", "a", True),)),
    ("0%d.png", "07.png", (("07.png", "a", True),)),
    ("a", "x_%d.png", (("x_0001.png.part", "a", False),)),
]


@pytest.mark.parametrize("read, written, links", SAME_FILES)
def test_what_is_read_is_not_overwritten(tmp_path, monkeypatch, read, written, links):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a.part"):
        Path(name).write_bytes(name.encode())
    for name, target, is_hard in links:
        (os.link if is_hard else os.symlink)(target, name)
    with pytest.raises(ConfigError, match="is the input file; choose another name"):
        files.refuse_overwriting(read, "fine", written)
    files.refuse_overwriting(read, "fine", "fine_%d.png", "none/fine")
    files.refuse_overwriting("none", written)


@pytest.mark.parametrize("read", ["frames", "frames/*.png", "frames/?.png", "frames/%d.png"])
@pytest.mark.parametrize("written", ["frames/0.png", "frames/%d.png"])
def test_the_images_of_a_sequence_are_never_overwritten(tmp_path, monkeypatch, read, written):
    monkeypatch.chdir(tmp_path)
    Path("frames").mkdir()
    for i in range(2):
        Path(f"frames/{i}.png").write_bytes(b"png")
    with pytest.raises(ConfigError, match="is the input file"):
        files.refuse_overwriting(read, written)
    files.refuse_overwriting(read, "frames/2.png", "frames", "other[1].png")


def test_a_lock_writes_neither_through_links_nor_into_other_files(tmp_path):
    path, own = tmp_path / "out.cvd", tmp_path / "out.cvd.lock"
    own.write_text("notes of the user")
    with pytest.raises(OutputError, match="is not a lock of an encode; rename it"), files.locked(path):
        pass
    assert own.read_text() == "notes of the user"
    own.rename(tmp_path / "notes")
    own.symlink_to(tmp_path / "notes")
    with pytest.raises(OutputError, match="cannot write"), files.locked(path):
        pass
    assert (tmp_path / "notes").read_text() == "notes of the user"


def test_endless_texts_are_refused():
    with pytest.raises(ValueError, match="larger than 64 MB"):
        files.read_text("/dev/zero")
