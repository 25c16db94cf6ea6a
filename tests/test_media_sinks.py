"""Sinks beside plain files: numbered images and standard output."""

import io
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from coolvid.errors import OutputError
from coolvid.media import open_sink, open_source
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat
from pictures import noise

RATE = Fraction(30000, 1001)
YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB


def save(path: Path | str, frames: list[Frame], **options) -> None:
    with open_sink(path, frames[0].format, RATE, ColorInfo(range=1), **options) as sink:
        for frame in frames:
            sink.write(frame)


@pytest.mark.parametrize(
    "name, n_frames, first, files",
    [
        ("%04d.png", 3, 0, ["0000.png", "0001.png", "0002.png"]),
        ("%04d.png", 2, 10, ["0010.png", "0011.png"]),
        ("%d.png", 2, 9, ["10.png", "9.png"]),
        ("a%02d-x.png", 1, 0, ["a00-x.png"]),
        ("a.png", 2, 10, ["a_0010.png", "a_0011.png"]),
        ("a.png", 1, 10, ["a.png"]),
    ],
)
def test_numbers_are_those_of_the_frames(tmp_path, name, n_frames, first, files):
    frames = noise(VideoFormat(16, 20, RGB, 8), n_frames)
    save(tmp_path / name, frames, n_frames=n_frames, first=first)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    if "%" in name:
        with open_source(tmp_path / name) as source:
            assert list(source) == frames


def test_an_error_leaves_no_numbered_file(tmp_path):
    (tmp_path / "0000.png").write_bytes(b"old")
    form = VideoFormat(16, 20, RGB, 8)
    with pytest.raises(KeyError), open_sink(tmp_path / "%04d.png", form, RATE, ColorInfo()) as sink:
        sink.write(noise(form)[0])
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["0000.png"]
    assert (tmp_path / "0000.png").read_bytes() == b"old"


SINKS = [".mp4", ".mkv", ".y4m", ".yuv", ".png"]
SQUARE = noise(VideoFormat(32, 32, YUV420, 8), 1)


@pytest.mark.parametrize("suffix", SINKS)
@pytest.mark.parametrize("device", ["null", "full"])
def test_devices_are_written_to_and_stay(tmp_path, suffix, device):
    out = tmp_path / f"out{suffix}"
    out.symlink_to(f"/dev/{device}")
    if device == "full":
        with pytest.raises(OutputError, match="No space left on device"):
            save(out, SQUARE, n_frames=1)
    else:
        save(out, SQUARE, n_frames=1)
    assert out.is_symlink() and [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", SINKS[1:])
def test_a_fifo_receives_what_a_file_would(tmp_path, suffix):
    out, got = tmp_path / f"out{suffix}", []
    os.mkfifo(out)
    reader = threading.Thread(target=lambda: got.append(out.read_bytes()))
    reader.start()
    save(out, SQUARE, n_frames=1)
    reader.join(timeout=10)
    assert out.is_fifo() and [path.name for path in tmp_path.iterdir()] == [out.name]
    (tmp_path / f"got{suffix}").write_bytes(got[0])
    if suffix in (".mkv", ".png"):
        with open_source(tmp_path / f"got{suffix}") as source:
            assert len(list(source)) == 1
        return
    save(tmp_path / f"file{suffix}", SQUARE)
    assert got[0] == (tmp_path / f"file{suffix}").read_bytes()


def test_an_mp4_needs_a_file_that_can_be_sought(tmp_path):
    os.mkfifo(tmp_path / "out.mp4")
    with pytest.raises(OutputError, match=r"cannot be written into a FIFO; use \.mkv or \.y4m"):
        save(tmp_path / "out.mp4", SQUARE)


def test_numbered_images_need_their_folder(tmp_path):
    with pytest.raises(OutputError, match="does not exist; create it"):
        open_sink(tmp_path / "out" / "%04d.png", VideoFormat(16, 20, RGB, 8), RATE, ColorInfo())


@pytest.mark.parametrize("format", [VideoFormat(16, 20, YUV420, 8), VideoFormat(17, 19, YUV444, 10)], ids=str)
def test_standard_output_is_the_y4m_file(tmp_path, monkeypatch, format):
    frames, out = noise(format), io.BytesIO()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out, isatty=lambda: False))
    save("-", frames)
    save(tmp_path / "a.y4m", frames)
    assert out.getvalue() == (tmp_path / "a.y4m").read_bytes()


def test_what_standard_output_is_not_for(monkeypatch):
    with pytest.raises(OutputError, match=r"y4m, which cannot hold RGB; write to a \.png"):
        open_sink("-", VideoFormat(16, 16, RGB, 8), RATE, ColorInfo())
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(OutputError, match="terminal"):
        open_sink("-", VideoFormat(16, 16, YUV420, 8), RATE, ColorInfo())


BROKEN = """
import sys
from fractions import Fraction
import numpy as np
from coolvid.media import open_sink
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat
form = VideoFormat(256, 256, PixelFormat.YUV420, 8)
frame = Frame(tuple(np.zeros(s, np.uint16) for s in form.plane_shapes), form)
try:
    with open_sink("-", form, Fraction(25), ColorInfo()) as sink:
        for _ in range(100):
            sink.write(frame)
except BrokenPipeError:
    sys.stderr.write("broken pipe")
    sys.stderr.flush()
    import os
    os._exit(0)
"""


def test_a_reader_that_goes_away_is_a_broken_pipe():
    process = subprocess.Popen([sys.executable, "-P", "-c", BROKEN], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(10) == b"YUV4MPEG2 "
    process.stdout.close()
    assert process.stderr.read() == b"broken pipe"
    process.stderr.close()
    assert process.wait(60) == 0
