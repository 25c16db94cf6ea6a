"""Sources of every kind: numbered images, standard input, parts of a source, turned pictures, foreign files."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from coolvid.errors import ConfigError, InputError
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.media.numbering import find_numbered, is_pattern, numbered
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat
from pictures import noise

RATE = Fraction(30000, 1001)
YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
EXACT = 0x4 | 0x40000 | 0x80000  # SWS_BICUBIC, SWS_ACCURATE_RND, SWS_BITEXACT
SMALL = VideoFormat(32, 48, YUV420, 8)


def video(format: VideoFormat, n_frames: int = 3) -> list[Frame]:
    return noise(format, n_frames, seed=2)


def save(path: Path, frames: list[Frame], fps=RATE, color=ColorInfo(), **options) -> Path:
    with open_sink(path, frames[0].format, fps, color, **options) as sink:
        for frame in frames:
            sink.write(frame)
    return path


def load(path, **options):
    with open_source(path, SourceSpec(**options)) as source:
        return list(source), source


def pictures(n_frames: int, name: str, width: int = 64, height: int = 48) -> list[av.VideoFrame]:
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 80 * np.sin((x + 2 * t) / 7) * np.cos((y + t) / 5) for t in range(n_frames)]
    packed = [np.stack([w, 255 - w, np.roll(w, 3, 1)], -1).astype(np.uint8) for w in waves]
    return [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format=name) for p in packed]


def mux(
    path: Path, shown: list[av.VideoFrame], codec: str, rate=RATE, options=None, prepare=lambda stream: None
) -> Path:
    """A file as another program would make it."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = shown[0].width, shown[0].height, shown[0].format.name
        prepare(stream)
        for index, picture in enumerate(shown):
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


# ---------------------------------------------------------------- numbered images


@pytest.mark.parametrize(
    "name, number, file",
    [("%04d.png", 7, "0007.png"), ("a_%d.jpg", 12, "a_12.jpg"), ("%03d-x.png", 1234, "1234-x.png")],
)
def test_patterns(name, number, file):
    assert is_pattern(Path("frames") / name)
    assert numbered(Path("frames") / name, number) == Path("frames") / file


@pytest.mark.parametrize("name", ["clip.mp4", "100%.png", "%04d_%04d.png", "%s.png", "a%x.png"])
def test_other_names_are_no_patterns(name):
    assert not is_pattern(Path(name))


@pytest.mark.parametrize("first", [0, 1, 9998])
def test_numbered_images_start_anywhere(tmp_path, first):
    frames = video(VideoFormat(20, 17, RGB, 8))
    save(tmp_path / "%04d.png", frames, first=first)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "7.png").write_text("another pattern")
    again, source = load(tmp_path / "%04d.png")
    assert again == frames
    assert (source.n_frames, source.fps, source.format) == (3, Fraction(25), frames[0].format)
    assert load(tmp_path / "%04d.png", fps=RATE)[1].fps == RATE
    assert load(tmp_path / "%04d.png", start=2)[0] == frames[2:]


def test_photographs_are_full_range(tmp_path):
    for index, picture in enumerate(pictures(2, "yuvj420p")):
        mux(tmp_path / f"{index}.jpg", [picture], "mjpeg", Fraction(25))
    frames, source = load(tmp_path / "%d.jpg")
    assert (len(frames), source.format.pixel_format, source.color.range) == (2, YUV420, 2)


def spoil_gap(folder):
    (folder / "0002.png").unlink()


def spoil_size(folder):
    save(folder / "0002.png", video(VideoFormat(20, 18, RGB, 8), 1))


def spoil_kind(folder):
    mux(folder / "0002.png", pictures(1, "gray", 17, 20), "png", Fraction(25))


def spoil_content(folder):
    (folder / "0002.png").write_text("this is only a text\n" * 40)


def spoil_empty(folder):
    (folder / "0002.png").write_bytes(b"")


def spoil_all(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "spoil, words",
    [
        (spoil_gap, r"0002\.png is missing from the sequence 0000\.png to 0003\.png"),
        (spoil_size, r"0002\.png is 18x20 8-bit rgb, but \S+0000\.png is 17x20 8-bit rgb; convert"),
        (spoil_kind, r"0002\.png is 17x20 8-bit yuv420"),
        (spoil_content, r"0002\.png (is not a readable|contains no)"),
        (spoil_empty, r"0002\.png is empty"),
        (spoil_all, r"no file matches \S+%04d\.png, for example 0000\.png; check"),
    ],
)
def test_spoilt_sequences(tmp_path, spoil, words):
    save(tmp_path / "%04d.png", video(VideoFormat(20, 17, RGB, 8), 4))
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        load(tmp_path / "%04d.png")


def test_a_sequence_needs_its_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_numbered(tmp_path / "none" / "%d.png")


# ---------------------------------------------------------------- standard input


@pytest.fixture
def piped(monkeypatch):
    def give(data: bytes):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.mark.parametrize("format", [SMALL, VideoFormat(33, 47, YUV444, 10), VideoFormat(270, 481, YUV420, 10)], ids=str)
def test_y4m_from_standard_input(tmp_path, piped, format):
    frames = video(format)
    data = save(tmp_path / "a.y4m", frames, color=ColorInfo(range=2)).read_bytes()
    piped(data)
    again, source = load("-")
    assert again == frames
    assert (source.n_frames, source.fps, source.format, source.color.range) == (None, RATE, format, 2)
    piped(data)
    again, source = load("-", start=1, fps=Fraction(24))
    assert (again, source.fps, source.n_frames) == (frames[1:], 24, None)


@pytest.mark.parametrize(
    "change, options, words",
    [
        (lambda data: b"", {}, "standard input is empty; use a pipe, for example ffmpeg"),
        (
            lambda data: b"this is only a text",
            {},
            r"is not y4m: it starts with b'this is o'; use a pipe, for example ffmpeg",
        ),
        (lambda data: data[:-7], {}, "ends inside frame 2"),
        (lambda data: data[: len(data) // 2], {}, "ends inside frame 1"),
        (lambda data: data[:40], {}, "standard input"),
        (lambda data: data, {"start": 3}, r"start is 3, but .* has only 3 frames; choose 0..2"),
        (lambda data: data.replace(b"Ip", b"It"), {}, r"frame 0 is interlaced.*bwdif"),
    ],
)
def test_bad_standard_input(tmp_path, piped, change, options, words):
    piped(change(save(tmp_path / "a.y4m", video(SMALL)).read_bytes()))
    with pytest.raises(InputError, match=words):
        load("-", **options)


def test_standard_input_is_y4m_and_not_a_terminal(piped, monkeypatch):
    with pytest.raises(ConfigError, match=r"raw files only; y4m from standard input"):
        open_source("-", SourceSpec(size=(48, 32), pix_fmt="yuv420p"))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(isatty=lambda: True)))
    with pytest.raises(InputError, match="standard input is a terminal"):
        open_source("-")


# ---------------------------------------------------------------- a part of a source

KINDS = [".y4m", "_48x32_30p_yuv420_8b.yuv", ".mkv"]


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("start", [0, 1, 4])
def test_start_is_as_if_frames_before_it_were_not(tmp_path, suffix, start):
    path = save(tmp_path / f"clip{suffix}", video(SMALL, 5))
    whole, _ = load(path)
    part, source = load(path, start=start)
    assert part == whole[start:]
    assert source.n_frames == 5 - start


@pytest.mark.parametrize("suffix", KINDS)
def test_start_beyond_the_end(tmp_path, suffix):
    path = save(tmp_path / f"clip{suffix}", video(SMALL, 5))
    with pytest.raises(InputError, match=r"start is 5, but clip\S+ has only 5 frames; choose 0\.\.4"):
        open_source(path, SourceSpec(start=5))


@pytest.mark.parametrize("format", [SMALL, VideoFormat(33, 47, YUV420, 10), VideoFormat(33, 47, YUV444, 8)], ids=str)
@pytest.mark.parametrize("crop", [(20, 18, 4, 6), (17, 19, 0, 2), (16, 16, 30, 16)])
def test_crop_is_a_rectangle_of_every_plane(tmp_path, format, crop):
    frames = video(format)
    path = save(tmp_path / "clip.y4m", frames)
    width, height, x, y = crop
    again, source = load(path, crop=crop)
    assert source.format == VideoFormat(height, width, format.pixel_format, format.bit_depth)
    for before, after in zip(frames, again, strict=True):
        for i, (h, w) in enumerate(source.format.plane_shapes):
            by = 2 if i and format.pixel_format is YUV420 else 1
            np.testing.assert_array_equal(after.planes[i], before.planes[i][y // by :, x // by :][:h, :w])


def test_odd_positions_are_for_full_chroma(tmp_path):
    save(tmp_path / "a.y4m", frames := video(VideoFormat(32, 48, YUV444, 8)))
    np.testing.assert_array_equal(
        load(tmp_path / "a.y4m", crop=(17, 16, 3, 5))[0][0].planes[1], frames[0].planes[1][5:21, 3:20]
    )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"crop": (16, 16, 3, 0)}, r"crop 16x16\+3\+0 starts at an odd position.*use 16x16\+2\+0"),
        ({"crop": (20, 16, 0, 5)}, r"odd position.*use 20x16\+0\+4"),
        ({"crop": (16, 16, 40, 0)}, r"exceeds the picture, which is 48x32; 16x16\+32\+0 fits"),
        ({"crop": (64, 64, 0, 0)}, r"48x32; 48x32\+0\+0 fits"),
        ({"crop": (17, 16, 32, 0)}, r"17x16\+30\+0 fits"),
        ({"crop": (8, 16, 0, 0)}, r"crop to 8x16: frame size 8x16 is outside 16\.\."),
        ({"scale": (8, 16)}, r"scale to 8x16: frame size 8x16 is outside 16\.\."),
        ({"scale": (20000, 16)}, r"outside 16\.\.16384"),
    ],
)
def test_impossible_parts(tmp_path, options, words):
    path = save(tmp_path / "a.y4m", video(SMALL))
    with pytest.raises(ConfigError, match=words):
        open_source(path, SourceSpec(**options))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": (8, 16)}, r"size of 8x16: frame size 8x16 is outside 16\.\."),
        ({"size": (16, 16, 3)}, r"size is \(16, 16, 3\); write a list of 2"),
        ({"fps": Fraction(0)}, "fps is 0; give a Fraction above 0"),
        ({"pix_fmt": "yuv422p"}, "pix_fmt 'yuv422p'; choose one of: yuv420, .*rgb24"),
        ({"start": -1}, "start is -1; choose 0.."),
        ({"crop": (16, 16, -2, 0)}, r"crop 16x16\+-2\+0 starts outside the picture"),
        ({"crop": (16, 16)}, r"crop is \(16, 16\); write a list of 4"),
        ({"crop": (0, 16, 0, 0)}, "crop to 0x16"),
        ({"scale": (0, 16)}, "scale to 0x16"),
    ],
)
def test_a_spec_refuses_what_no_source_can_have(options, words):
    with pytest.raises(ConfigError, match=words):
        SourceSpec(**options)


def planes_of(picture):
    """Planes of a picture of PyAV, without padding."""
    sample = np.dtype("<u2" if "10" in picture.format.name else np.uint8)
    lines = (np.frombuffer(p, sample).reshape(-1, p.line_size // sample.itemsize) for p in picture.planes)
    return [each[: p.height, : p.width].astype(int) for each, p in zip(lines, picture.planes, strict=True)]


@pytest.mark.parametrize(
    "format, name",
    [
        (VideoFormat(32, 48, YUV420, 8), "yuv420p"),
        (VideoFormat(32, 48, YUV420, 10), "yuv420p10le"),
        (VideoFormat(33, 47, YUV444, 8), "yuv444p"),
        (VideoFormat(33, 47, YUV444, 10), "yuv444p10le"),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(24, 16), (64, 44), (36, 32)])
def test_scale_is_swscale_bicubic(tmp_path, format, name, size):
    path = save(tmp_path / "a.y4m", video(format, 2))
    with av.open(path) as container:
        wanted = [planes_of(p.reformat(*size, format=name, interpolation=EXACT)) for p in container.decode(video=0)]
    frames, source = load(path, scale=size)
    assert (source.format.width, source.format.height, source.n_frames) == (*size, 2)
    for frame, expected in zip(frames, wanted, strict=True):
        for mine, other in zip(frame.planes, expected, strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("depth", [8, 10])
def test_scaling_rgb_keeps_flat_colours_and_the_peak(tmp_path, depth):
    form = VideoFormat(32, 48, RGB, depth)
    planes = tuple(np.full((32, 48), v, np.uint16) for v in (form.peak, 7, 100))
    from coolvid.media.pixels import Scaler

    scaled = Scaler(VideoFormat(21, 77, RGB, depth)).resize(Frame(planes, form))
    assert [set(np.unique(p)) for p in scaled.planes] == [{form.peak}, {7}, {100}]
    noisy = Scaler(VideoFormat(21, 77, RGB, depth)).resize(video(form, 1)[0])
    assert max(int(p.max()) for p in noisy.planes) <= form.peak


def test_crop_comes_before_scale_and_both_after_start(tmp_path):
    path = save(tmp_path / "a.y4m", video(SMALL, 4))
    save(tmp_path / "b.y4m", load(path, start=2, crop=(20, 16, 4, 2))[0])
    both, source = load(path, start=2, crop=(20, 16, 4, 2), scale=(32, 32))
    assert both == load(tmp_path / "b.y4m", scale=(32, 32))[0]
    assert (source.n_frames, source.name, source.fps) == (2, "a.y4m", RATE)


def test_scaling_to_the_size_it_has_changes_nothing(tmp_path):
    path = save(tmp_path / "a.y4m", frames := video(SMALL))
    assert load(path, scale=(48, 32))[0] == frames


# ---------------------------------------------------------------- turned, interlaced

CAN_TURN = hasattr(av.VideoStream, "set_display_rotation")
TURNS = [
    (90, False, np.rot90),
    (180, False, lambda a: a[::-1, ::-1]),
    (-90, False, lambda a: np.rot90(a, -1)),
    (0, True, np.fliplr),
]


@pytest.mark.skipif(not CAN_TURN, reason="needs a PyAV that writes display matrices")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("degrees, mirrored, turn", TURNS, ids=lambda value: "" if callable(value) else str(value))
def test_turned_videos_are_read_upright(tmp_path, suffix, degrees, mirrored, turn):
    shown = pictures(2, "yuv420p")
    upright = mux(tmp_path / f"upright{suffix}", shown, "libx264")
    turned = mux(
        tmp_path / f"turned{suffix}", shown, "libx264",
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )  # fmt: skip
    stored, (frames, source) = load(upright)[0], load(turned)
    assert (source.format.width, source.format.height) == ((48, 64) if abs(degrees) == 90 else (64, 48))
    for before, after in zip(stored, frames, strict=True):
        for a, b in zip(before.planes, after.planes, strict=True):
            np.testing.assert_array_equal(b, turn(a))


@pytest.mark.skipif(not CAN_TURN, reason="needs a PyAV that writes display matrices")
def test_what_cannot_be_turned_is_refused(tmp_path):
    mux(tmp_path / "a.mkv", pictures(1, "yuv420p"), "ffv1", prepare=lambda s: s.set_display_rotation(45))
    with pytest.raises(InputError, match=r"a\.mkv.*rotated by 45 degrees.*multiples of 90"):
        open_source(tmp_path / "a.mkv")
    mux(tmp_path / "b.mkv", pictures(1, "yuv420p", 65, 48), "ffv1", prepare=lambda s: s.set_display_rotation(180))
    with pytest.raises(InputError, match=r"b\.mkv.*odd size \(65x48\)"):
        open_source(tmp_path / "b.mkv")


def test_interlaced_video_is_refused(tmp_path):
    mux(tmp_path / "tv.mp4", pictures(2, "yuv420p"), "libx264", options={"x264-params": "interlaced=1"})
    with pytest.raises(InputError, match=r"tv\.mp4: frame 0 is interlaced.*ffmpeg -i FILE -vf bwdif"):
        open_source(tmp_path / "tv.mp4")


# ---------------------------------------------------------------- files of others

FOREIGN = [
    ("a.webm", "libvpx-vp9", "yuv420p", VideoFormat(48, 64, YUV420, 8)),
    ("b.webm", "libvpx", "yuv420p", VideoFormat(48, 64, YUV420, 8)),
    ("c.avi", "mpeg4", "yuv420p", VideoFormat(48, 64, YUV420, 8)),
    ("d.ts", "libx264", "yuv420p", VideoFormat(48, 64, YUV420, 8)),
    ("e.mov", "libx264", "yuv444p10le", VideoFormat(48, 64, YUV444, 10)),
    ("f.mp4", "libx265", "yuv420p10le", VideoFormat(48, 64, YUV420, 10)),
    ("g.mp4", "mpeg4", "yuv420p", VideoFormat(48, 64, YUV420, 8)),
    ("h.mkv", "ffv1", "yuv422p", VideoFormat(48, 64, YUV444, 8)),
    ("i.mkv", "ffv1", "bgra", VideoFormat(48, 64, RGB, 8)),
    ("j.avi", "mjpeg", "yuvj420p", VideoFormat(48, 64, YUV420, 8)),
]


@pytest.mark.parametrize("name, codec, pix_fmt, format", FOREIGN, ids=lambda v: v if isinstance(v, str) else "")
def test_files_of_other_programs(tmp_path, name, codec, pix_fmt, format):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"bf": "2"} if codec == "mpeg4" else {"x265-params": "log-level=error"} if codec == "libx265" else {}
    mux(tmp_path / name, pictures(12, pix_fmt), codec, options=options)
    frames, source = load(tmp_path / name)
    assert (len(frames), source.n_frames, source.fps, source.format) == (12, 12, RATE, format)


def test_an_mp4_without_its_index_says_so(tmp_path):
    path = mux(tmp_path / "a.mp4", pictures(12, "yuv420p"), "libx264")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"a\.mp4 is truncated: an mp4 without its index"):
        open_source(path)


# ---------------------------------------------------------------- colours

COLORS = [
    ColorInfo(1, 1, 1, 1),
    ColorInfo(6, 6, 6, 1),
    ColorInfo(5, 6, 5, 2),
    ColorInfo(9, 16, 9, 1),
    ColorInfo(9, 18, 9, 2),
    ColorInfo(2, 2, 2, 0),
]


@pytest.mark.parametrize("color", COLORS, ids=str)
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("size", [(32, 48), (64, 80)])
def test_colours_go_through_files(tmp_path, suffix, depth, color, size):
    path = save(tmp_path / f"a{suffix}", video(VideoFormat(*size, YUV420, depth), 2), color=color)
    if size == (64, 80) and depth == 10 and color.range == 0:  # H.265 has no "unspecified"
        color = replace(color, range=1)
    assert load(path)[1].color == color


@pytest.mark.parametrize("range_", [0, 1, 2])
@pytest.mark.parametrize("pixel_format", [YUV420, YUV444])
@pytest.mark.parametrize("depth", [8, 10])
def test_y4m_carries_the_range(tmp_path, pixel_format, depth, range_):
    path = save(
        tmp_path / "a.y4m", video(VideoFormat(32, 48, pixel_format, depth), 1), color=ColorInfo(1, 1, 1, range_)
    )
    assert load(path)[1].color == ColorInfo(range=range_)
