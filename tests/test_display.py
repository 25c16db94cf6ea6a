"""Pixel shape, chroma siting and HDR metadata: read from every kind of source, kept in the stream, written or said."""

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from click.testing import CliRunner
from coolvid_cli.main import main

import coolvid
from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.stream import StreamReader
from coolvid.errors import ConfigError
from coolvid.events import NotStored
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.picture.types import (
    MAX_ASPECT_TERM,
    ChromaSiting,
    ColorInfo,
    DisplayInfo,
    LightLevel,
    MasteringDisplay,
    PixelFormat,
    VideoFormat,
    bounded_aspect,
)
from coolvid.study.report.summary import _format_facts
from pictures import noise

YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
LEFT, CENTER, TOP_LEFT, TOP = tuple(ChromaSiting)[1:]
RATE = Fraction(25)
P3 = ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450))
HDR = MasteringDisplay(P3, (1, 10_000_000))
LIGHT = LightLevel(1000, 400)
FULL = DisplayInfo(Fraction(4, 3), TOP_LEFT, HDR, LIGHT)
P3_WORDS = "R(0.68,0.32) G(0.265,0.69) B(0.15,0.06) W(0.3127,0.329), 0.0001 to 1000 cd/m²"
QUICK = ("--preset", "fast", "--iterations", 2, "--gop", 2, "--threads", 1, "--no-verify", "--quiet")


def small(pixel_format=YUV420, depth=8, width=96, height=64) -> VideoFormat:
    return VideoFormat(height, width, pixel_format, depth)


def mux(path: Path, codec="libx264", name="yuv420p", options=None, size=(96, 64), aspect=None, rotation=0) -> Path:
    """A video of two frames, or an image, as another program would make it."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, name
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(1 if codec == "mjpeg" else 2):
            picture = av.VideoFrame(*size, name)
            for plane in picture.planes:
                plane.update(bytes([60 + 30 * index]) * plane.buffer_size)
            picture.pts, picture.time_base = index, 1 / RATE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def y4m(path: Path, facts: str, n_bytes: int = 96 * 64 * 3 // 2) -> Path:
    path.write_bytes(f"YUV4MPEG2 W96 H64 F25:1 Ip {facts}\n".encode() + 2 * (b"FRAME\n" + bytes(n_bytes)))
    return path


def png(path: Path, *chunks: tuple[bytes, bytes]) -> Path:
    """A black image of 32x24 pixels with these chunks after its header."""
    parts = [(b"IHDR", struct.pack(">2I5B", 32, 24, 8, 2, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(24 * bytes(97))), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


def display(path: Path | str, **options) -> DisplayInfo:
    with open_source(path, SourceSpec(**options)) as source:
        return source.display


X264_HDR = "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):cll=1000,400"
X265_HDR = X264_HDR.replace("mastering-display", "master-display").replace("cll", "max-cll")
X264 = {"x264-params": X264_HDR, "chroma_sample_location": "topleft"}
X265 = {"x265-params": f"log-level=error:cutree=0:bframes=0:{X265_HDR}", "chroma_sample_location": "topleft"}
CENTERED = {"chroma_sample_location": "center"}
SOURCES = {
    "a.mp4": (lambda p: mux(p, options=X264, aspect=Fraction(4, 3)), FULL),
    "a.mkv": (lambda p: mux(p, options=X264, aspect=Fraction(4, 3)), FULL),
    "b.mp4": (lambda p: mux(p, "libx265", "yuv420p10le", X265, aspect=Fraction(4, 3)), FULL),
    "c.mp4": (mux, DisplayInfo(chroma_siting=LEFT)),
    "d.mp4": (lambda p: mux(p, options={"chroma_sample_location": "top"}), DisplayInfo(chroma_siting=TOP)),
    "e.mp4": (lambda p: mux(p, name="yuv444p", options=X264), DisplayInfo(mastering=HDR, light=LIGHT)),
    "f.mkv": (lambda p: mux(p, "ffv1"), DisplayInfo()),
    "g.mkv": (lambda p: mux(p, "ffv1", options=CENTERED), DisplayInfo(chroma_siting=CENTER)),
    "turned.mp4": (
        lambda p: mux(p, options=X264, aspect=Fraction(4, 3), rotation=90),
        replace(FULL, pixel_aspect=Fraction(3, 4), chroma_siting=ChromaSiting.UNSPECIFIED),
    ),
    "upside_down.mp4": (
        lambda p: mux(p, options=CENTERED, aspect=Fraction(4, 3), rotation=180),
        DisplayInfo(Fraction(4, 3), CENTER),
    ),
    "jpeg.y4m": (lambda p: y4m(p, "A1:1 C420jpeg"), DisplayInfo(chroma_siting=CENTER)),
    "mpeg2.y4m": (lambda p: y4m(p, "A0:0 C420mpeg2"), DisplayInfo(chroma_siting=LEFT)),
    "paldv.y4m": (lambda p: y4m(p, "A64:45 C420paldv"), DisplayInfo(Fraction(64, 45), TOP_LEFT)),
    "444.y4m": (lambda p: y4m(p, "A10:11 C444", 96 * 64 * 3), DisplayInfo(Fraction(10, 11))),
    "ten.y4m": (lambda p: y4m(p, "A1:1 C420p10", 96 * 64 * 3), DisplayInfo()),
    "photo.jpg": (lambda p: mux(p, "mjpeg", "yuvj420p"), DisplayInfo(chroma_siting=CENTER)),
    "dense.png": (lambda p: png(p, (b"pHYs", struct.pack(">2IB", 72, 36, 0))), DisplayInfo()),
    "hdr.png": (
        lambda p: png(
            p,
            (b"mDCV", struct.pack(">8H2I", *(number for point in P3 for number in point), 10_000_000, 1)),
            (b"cLLI", struct.pack(">2I", 10_000_000, 4_000_000)),
        ),
        DisplayInfo(mastering=HDR, light=LIGHT),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_sources_tell_how_they_are_shown(tmp_path, name):
    make, expected = SOURCES[name]
    assert display(make(tmp_path / name)) == expected


def test_numbered_images_and_standard_input_tell_it_too(tmp_path, monkeypatch):
    for i in range(2):
        mux(tmp_path / f"{i}.jpg", "mjpeg", "yuvj420p")
    assert display(tmp_path / "%d.jpg").chroma_siting is CENTER
    data = y4m(tmp_path / "a.y4m", "A4:3 C420paldv").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert display("-") == DisplayInfo(Fraction(4, 3), TOP_LEFT)


CUTS = [
    ({"crop": (32, 32, 0, 0)}, Fraction(4, 3)),
    ({"scale": (48, 32)}, Fraction(4, 3)),
    ({"scale": (128, 64)}, Fraction(1)),
    ({"scale": (64, 64)}, Fraction(2)),
    ({"crop": (64, 64, 0, 0), "scale": (64, 32)}, Fraction(2, 3)),
]


@pytest.mark.parametrize("options, aspect", CUTS)
def test_cuts_keep_the_shape_of_what_is_shown(tmp_path, options, aspect):
    found = display(y4m(tmp_path / "a.y4m", "A4:3 C420mpeg2"), **options)
    assert found == DisplayInfo(aspect, LEFT)


VIDEOS = [
    (small(), FULL, ()),
    (small(depth=10), FULL, ()),
    (small(YUV444), FULL, ("chroma siting topleft",)),
    (small(RGB, 10), FULL, ("chroma siting topleft",)),
    (small(width=49, height=33), FULL, ("chroma siting topleft",)),
    (small(), DisplayInfo(Fraction(1, 96), TOP, MasteringDisplay(P3), LightLevel(0, 1)), ()),
    (small(depth=10), DisplayInfo(Fraction(64), CENTER, MasteringDisplay(None, (0, 50_000)), LightLevel(1, 0)), ()),
    (small(), DisplayInfo(Fraction(1, 97)), ("pixel aspect 1:97",)),
    (small(), DisplayInfo(Fraction(65)), ("pixel aspect 65:1",)),
    (small(), DisplayInfo(Fraction(4096, 4095)), ()),
    (
        small(depth=10),
        DisplayInfo(mastering=MasteringDisplay(((5, 5),) * 4, (49_999, 50_000)), light=LightLevel(65535, 65535)),
        (),
    ),
    (small(), DisplayInfo(mastering=MasteringDisplay(((37000, 42000),) * 4, (50_000, 100_000_000))), ()),
]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("format, stated, lost", VIDEOS)
def test_videos_hold_it_or_say_so(tmp_path, format, stated, lost, suffix):
    path = tmp_path / f"a.{suffix}"
    with open_sink(path, format, RATE, ColorInfo(), display=stated) as sink:
        for frame in noise(format, 2, seed=1):
            sink.write(frame)
    assert sink.not_stored == lost
    kept = tuple(fact for fact in stated.facts if " ".join(fact) not in lost)
    found = display(path)
    if stated.chroma_siting is ChromaSiting.UNSPECIFIED:
        found = replace(found, chroma_siting=ChromaSiting.UNSPECIFIED)  # H.264 without it means left
    assert found.facts == kept


OTHERS = [
    ("a.y4m", small(), DisplayInfo(Fraction(10, 11), LEFT), b"A10:11 C420mpeg2", ()),
    ("a.y4m", small(), DisplayInfo(chroma_siting=TOP_LEFT), b"A1:1 C420paldv", ()),
    ("a.y4m", small(), DisplayInfo(chroma_siting=CENTER), b"A1:1 C420jpeg", ()),
    ("a.y4m", small(), DisplayInfo(), b"A1:1 C420jpeg", ()),
    ("a.y4m", small(), DisplayInfo(chroma_siting=TOP), b"A1:1 C420jpeg", ("chroma siting top",)),
    ("a.y4m", small(depth=10), DisplayInfo(Fraction(2), LEFT), b"A2:1 C420p10", ("chroma siting left",)),
    ("a.y4m", small(), DisplayInfo(light=LIGHT), b"A1:1 C420jpeg", ("light level MaxCLL 1000, MaxFALL 400 cd/m²",)),
    ("a.yuv", small(), DisplayInfo(Fraction(2), LEFT), b"", ("pixel aspect 2:1", "chroma siting left")),
    ("a.png", small(RGB), DisplayInfo(mastering=HDR), b"", (f"mastering display {P3_WORDS}",)),
]


@pytest.mark.parametrize("name, format, stated, words, lost", OTHERS)
def test_other_files_hold_it_or_say_so(tmp_path, name, format, stated, words, lost):
    with open_sink(tmp_path / name, format, RATE, ColorInfo(), display=stated) as sink:
        sink.write(noise(format, 1, seed=1)[0])
    assert sink.not_stored == lost
    assert words in (tmp_path / name).read_bytes().split(b"\n")[0]


def test_reserved_color_numbers_are_said_where_they_get_lost(tmp_path):
    color = ColorInfo(255, 1, 3, 1)
    with open_sink(tmp_path / "a.mp4", small(), RATE, color) as sink:
        sink.write(noise(small(), 1, seed=1)[0])
    assert sink.not_stored == ("colour primaries 255", "colour matrix 3")
    assert color.words == "primaries 255 (reserved), transfer 1, matrix 3 (reserved), range limited"


WRONG = [
    (lambda: ColorInfo(256), "colour primaries is 256"),
    (lambda: ColorInfo(range=3), "colour range .* is 3"),
    (lambda: DisplayInfo(Fraction(MAX_ASPECT_TERM + 1)), "pixel aspect ratio is 4097"),
    (lambda: DisplayInfo(Fraction(-1)), "pixel aspect ratio is -1"),
    (lambda: MasteringDisplay(), "needs colors or luminance"),
    (lambda: MasteringDisplay(((4, 5),) * 4), "x of a mastering display, .* is 4"),
    (lambda: MasteringDisplay(((5, 42001),) * 4), "y of a mastering display, .* is 42001"),
    (lambda: MasteringDisplay(None, (0, 49_999)), "greatest luminance .* is 49999"),
    (lambda: MasteringDisplay(None, (50_000, 50_000)), "least luminance .* is 50000"),
    (lambda: LightLevel(65536, 1), "MaxCLL is 65536"),
    (lambda: LightLevel(0, 0), "above 0"),
]  # fmt: skip


@pytest.mark.parametrize("make, words", WRONG)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


ASPECTS = [
    (Fraction(4, 3), Fraction(4, 3)),
    (Fraction(1280, 1281), Fraction(1280, 1281)),
    (Fraction(65535, 65534), Fraction(1)),
    (Fraction(1, 10**9), Fraction(1, MAX_ASPECT_TERM)),
    (Fraction(10**9), Fraction(MAX_ASPECT_TERM)),
]


@pytest.mark.parametrize("aspect, expected", ASPECTS)
def test_the_nearest_aspect_that_can_be_held(aspect, expected):
    assert DisplayInfo(bounded_aspect(aspect)).pixel_aspect == expected


SHARED = Path(__file__).parents[1] / "../shared/cases/streams"
GOLDEN = Path(__file__).parent / "golden"


def run(*args: object):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Path:
    """A stream of two frames that states everything."""
    folder = tmp_path_factory.mktemp("display")
    source = mux(folder / "a.mp4", options=X264, size=(32, 32), aspect=Fraction(4, 3))
    assert run("encode", source, "-o", folder / "a.cvd", *QUICK).exit_code == 0
    return folder / "a.cvd"


def test_a_stream_keeps_it(stream, tmp_path):
    assert stream.read_bytes()[4] == 5
    assert coolvid.read_info(stream).header.display == FULL
    shown = run("info", stream).stdout
    for name, value in FULL.facts:
        assert any(" ".join(line.split()) == f"{name} {value}" for line in shown.splitlines())
    for name in ("b.mp4", "b.mkv"):
        assert "cannot hold" not in run("decode", stream, tmp_path / name).stdout
        assert display(tmp_path / name) == FULL
    assert run("encode", tmp_path / "b.mkv", "-o", tmp_path / "b.cvd", "--scale", "32x24", *QUICK).exit_code == 0
    assert coolvid.read_info(tmp_path / "b.cvd").header.display == replace(FULL, pixel_aspect=Fraction(1))


def test_the_report_tells_it(stream):
    with StreamReader(stream) as reader:
        facts = dict(_format_facts(reader))
    assert {name: facts[name.capitalize()] for name, _ in FULL.facts} == dict(FULL.facts)


def test_no_picture_depends_on_it(tmp_path):
    data = (GOLDEN / "orbit.cvd").read_bytes()
    header, start = StreamHeader.parse(data)
    (tmp_path / "a.cvd").write_bytes(replace(header, display=FULL).pack() + data[start:])
    assert coolvid.digest(tmp_path / "a.cvd") == coolvid.digest(GOLDEN / "orbit.cvd")


def test_decode_says_in_one_line_what_a_file_cannot_hold(stream, tmp_path):
    line = f"cannot hold: pixel aspect 4:3; chroma siting topleft; mastering display {P3_WORDS}; light level MaxCLL"
    said = [each for each in run("decode", stream, tmp_path / "a.yuv").stdout.splitlines() if "cannot hold" in each]
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / 'a.yuv'} {line}")
    assert run("decode", stream, tmp_path / "b.yuv", "--quiet").output == ""
    piped = run("decode", stream, "-")
    assert piped.stdout_bytes.startswith(b"YUV4MPEG2 W32 H32 F25:1 Ip A4:3 C420paldv")
    assert piped.stderr.startswith("standard output cannot hold: mastering display")
    assert run("decode", stream, "-", "--quiet").stderr == ""


def test_frames_in_memory_can_have_it(tmp_path):
    form, told = VideoFormat(32, 32, YUV420, 8), []
    config = coolvid.EncodeConfig(preset="fast", iterations=1, threads=1, structure=coolvid.StructureConfig(gop=1))
    coolvid.encode_frames(noise(form, 1), tmp_path / "a.cvd", config, display=FULL)
    coolvid.decode(tmp_path / "a.cvd", tmp_path / "a.png", listen=told.append)
    assert [each for each in told if isinstance(each, NotStored)] == [
        NotStored(str(tmp_path / "a.png"), tuple(" ".join(fact) for fact in FULL.facts))
    ]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m", "-"])
@pytest.mark.parametrize("fps", [Fraction(1 << 32), Fraction(1, 1 << 32)])
def test_a_rate_that_a_file_cannot_hold_is_one_line(tmp_path, name, fps):
    data = (GOLDEN / "orbit.cvd").read_bytes()
    header, start = StreamHeader.parse(data)
    (tmp_path / "a.cvd").write_bytes(replace(header, fps=fps).pack() + data[start:])
    result = run("decode", tmp_path / "a.cvd", "-" if name == "-" else tmp_path / name)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert f"cannot hold fps {fps}" in result.stderr
    assert run("decode", tmp_path / "a.cvd", tmp_path / "a.yuv").exit_code == 0


@pytest.mark.skipif(not SHARED.exists(), reason="needs the streams beside the repository")
def test_a_stream_of_impossible_colors_is_refused_by_name(tmp_path):
    for arguments in (("info",), ("decode", "--digest")):
        result = run(arguments[0], SHARED / "col_255.cvd", *arguments[1:])
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "colour range" in result.stderr
