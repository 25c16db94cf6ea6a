"""Files that cannot be read, files that cannot be written: one line that says what to do, and nothing left behind."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coolvid.errors import ConfigError, CoolvidError, InputError, OutputError
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat
from pictures import noise

RATE = Fraction(25)
YUV420, RGB = PixelFormat.YUV420, PixelFormat.RGB


def save(path: Path, frames: list[Frame]) -> None:
    with open_sink(path, frames[0].format, RATE, ColorInfo()) as sink:
        for frame in frames:
            sink.write(frame)


def load(path: Path, **options):
    with open_source(path, SourceSpec(**options)) as source:
        return list(source), source


TEXT = b"this is only a text\n" * 40
BAD_FILES = [
    ("empty.mp4", b"", "is empty"),
    ("empty_16x16_25p_yuv420_8b.yuv", b"", "is empty"),
    ("text.mp4", TEXT, "not a readable video"),
    ("text.y4m", TEXT, "not a readable video"),
    ("text.png", TEXT, "not a readable|no picture"),
    (
        "c_16x16_25p_yuv420_8b.yuv",
        bytes(384 * 2 + 5),
        "773 bytes are 2 frames of 16x16 yuv420.*384.* 5 bytes",
    ),
    ("c_16x16_25p_yuv420_10b.yuv", b"\xff\xff" * 384, "frame 0.*65535 is above 1023"),
    ("c_16x16_25p_yuv420_12b.yuv", bytes(768), "12 bits"),
    ("c_8x8_25p_yuv420_8b.yuv", bytes(96), "frame size 8x8"),
    ("c_16x16_0p_yuv420_8b.yuv", bytes(384), "frame rate"),
    ("c_25p_yuv420_8b.yuv", bytes(384), "frame size.*unknown.*NAME_"),
    ("c_16x16_yuv420_8b.yuv", bytes(384), "frame rate.*unknown"),
    ("c_16x16_25p.yuv", bytes(384), "pixel format.*unknown"),
]


@pytest.mark.parametrize("name, content, words", BAD_FILES, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_files_are_input_errors_that_name_the_file(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.mp4", "missing_16x16_25p_yuv420_8b.yuv", "missing/in.png"])
def test_missing_files(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / name)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"not a picture either")
    with pytest.raises(InputError, match="is a folder without images; give a file, or a folder of images"):
        open_source(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m", ".png"])
def test_damaged_files_never_end_in_another_error(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    format = VideoFormat(48, 64, RGB if suffix == ".png" else YUV420, 8)
    save(path, noise(format, 1 if suffix == ".png" else 4))
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(1, len(good), 12):
        path.write_bytes(good[:cut])
        try:
            load(path)
        except CoolvidError as error:
            assert path.name in str(error)
    for _ in range(12):
        flipped = np.frombuffer(good, np.uint8).copy()
        flipped[random.integers(0, len(good), 5)] ^= 0x55
        path.write_bytes(flipped.tobytes())
        try:
            load(path)
        except CoolvidError as error:
            assert path.name in str(error)


@pytest.mark.parametrize(
    "suffix, kept", [(".y4m", 0.9), (".mkv", 0.9), (".mkv", 0.7), (".mkv", 0.6), (".mp4", 0.7), (".png", 0.9)]
)
def test_truncated_files_are_noticed(tmp_path, suffix, kept):
    is_picture = suffix == ".png"
    path = tmp_path / f"clip{suffix}"
    save(path, noise(VideoFormat(48, 64, RGB if is_picture else YUV420, 8), 1 if is_picture else 12))
    good = path.read_bytes()
    path.write_bytes(good[: int(len(good) * kept)])
    with pytest.raises(InputError, match=path.name):
        load(path)


def test_a_faststart_file_that_breaks_off_is_noticed(tmp_path):
    whole = tmp_path / "whole.mp4"
    save(tmp_path / "clip.mp4", noise(VideoFormat(48, 64, YUV420, 8), 12))
    with av.open(tmp_path / "clip.mp4") as source, av.open(whole, "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert len(load(whole)[0]) == 12
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"truncated|only|not a readable"):
        load(whole)


@pytest.mark.parametrize("options", [{"size": (16, 16)}, {"pix_fmt": "yuv420"}])
def test_raw_options_do_not_apply_to_containers(tmp_path, options):
    save(tmp_path / "clip.mp4", noise(VideoFormat(16, 16, YUV420, 8)))
    with pytest.raises(ConfigError, match="raw files"):
        open_source(tmp_path / "clip.mp4", SourceSpec(**options))


FORMAT = VideoFormat(16, 16, YUV420, 8)
IMPOSSIBLE = [
    ("c.avi", FORMAT, r"\.avi.*\.mp4, \.mkv"),
    ("c", FORMAT, "without suffix"),
    ("none/c.mp4", FORMAT, "none does not exist"),
    ("c.y4m", VideoFormat(16, 16, RGB, 8), r"RGB.*\.png or \.mp4"),
    ("c.yuv", VideoFormat(16, 16, RGB, 8), r"RGB.*\.png"),
    ("c.rgb", FORMAT, r"YUV.*\.yuv"),
]


@pytest.mark.parametrize("name, format, words", IMPOSSIBLE, ids=lambda v: v if isinstance(v, str) else "")
def test_files_that_cannot_be_written(tmp_path, name, format, words):
    with pytest.raises(OutputError, match=words):
        open_sink(tmp_path / name, format, RATE, ColorInfo())
    assert list(tmp_path.iterdir()) == []


ALL_SINKS = ["c.mp4", "c.mkv", "c.y4m", "c.yuv", "c.png"]


@pytest.mark.parametrize("name", ALL_SINKS)
def test_a_folder_that_refuses_files(tmp_path, name, monkeypatch):
    monkeypatch.setattr("coolvid.files.os.access", lambda path, mode: False)
    with pytest.raises(OutputError, match="permission denied in the folder"):
        open_sink(tmp_path / name, FORMAT, RATE, ColorInfo())


@pytest.mark.parametrize("name", ALL_SINKS)
def test_a_target_that_is_a_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        open_sink(tmp_path / name, FORMAT, RATE, ColorInfo())


@pytest.mark.parametrize("name", ALL_SINKS)
def test_the_folder_vanishes_meanwhile(tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    sink = open_sink(folder / name, FORMAT, RATE, ColorInfo())
    folder.rmdir()
    with pytest.raises(OutputError, match="cannot write"), sink:
        sink.write(noise(FORMAT)[0])


@pytest.mark.parametrize("name", ALL_SINKS)
def test_an_error_leaves_nothing_behind_and_the_old_file_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(KeyError), open_sink(tmp_path / name, FORMAT, RATE, ColorInfo()) as sink:
        sink.write(noise(FORMAT)[0])
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize("name", ALL_SINKS)
def test_the_target_appears_only_when_it_is_whole(tmp_path, name):
    with open_sink(tmp_path / name, FORMAT, RATE, ColorInfo()) as sink:
        sink.write(noise(FORMAT)[0])
        assert not (tmp_path / name).exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ALL_SINKS)
def test_no_frame_no_file(tmp_path, name):
    with pytest.raises(OutputError, match="no frame"), open_sink(tmp_path / name, FORMAT, RATE, ColorInfo()):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL_SINKS)
def test_a_frame_of_another_format_is_refused(tmp_path, name):
    with (
        pytest.raises(OutputError, match="does not fit"),
        open_sink(tmp_path / name, FORMAT, RATE, ColorInfo()) as sink,
    ):
        sink.write(noise(VideoFormat(16, 18, YUV420, 8))[0])
    assert list(tmp_path.iterdir()) == []
