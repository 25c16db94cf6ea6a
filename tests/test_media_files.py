"""Real files: names that look like something else, several streams, headers that are wrong, and all kinds of images."""

import io
import os
import shutil
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from click.testing import CliRunner
from coolvid_cli.main import main
from media_files import mux, pictures, remux, with_cover
from PIL import Image, ImageCms, ImageOps

import coolvid
from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.events import EncodeStarted
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.media.numbering import find_images
from coolvid.picture.types import ColorInfo, PixelFormat, VideoFormat
from pictures import noise

YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
SMALL, COLOURED = VideoFormat(48, 64, YUV420, 8), VideoFormat(48, 64, RGB, 8)
QUICK = ("--preset", "fast", "--iterations", 2, "--gop", 1, "--threads", 1, "--no-verify")
CASES = Path(__file__).parents[1] / "../shared/cases/sources"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the project")
GOPS = {"g": "8", "keyint_min": "8", "bf": "0", "sc_threshold": "0"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(path, limit=0, **options):
    with open_source(path, SourceSpec(**options), limit) as source:
        return list(source), source


def invoke(*args):
    return CliRunner().invoke(main, [str(each) for each in args])


def image(seed: int = 1, size=(48, 64)) -> Image.Image:
    """A picture of random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def rgb(frame) -> np.ndarray:
    return np.stack(frame.planes, -1)


# ---------------------------------------------------------------- side data


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112], tags[0x927C] = orientation, b"maker note" * 9
    return tags


@pytest.mark.parametrize("kind", ["png", "tiff", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_with_exif_are_upright(kind, orientation):
    image().save(f"a.{kind}", exif=exif(orientation), **({"quality": 95, "subsampling": 0} if kind == "jpg" else {}))
    (frame,), source = load(f"a.{kind}")
    wanted = ImageOps.exif_transpose(Image.open(f"a.{kind}"))
    assert (source.format.width, source.format.height) == wanted.size
    if source.format.pixel_format is RGB:
        np.testing.assert_array_equal(rgb(frame), np.asarray(wanted))
    elif kind == "jpg":  # both decoders may round the inverse transform their own way
        luma = np.asarray(ImageOps.exif_transpose(Image.open("a.jpg")).convert("L")).astype(int)
        assert np.abs(frame.planes[0] - luma).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_images_with_a_colour_profile(mode):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for index in range(3):
        image(index).convert(mode).save(f"{index}.png", icc_profile=profile, exif=exif(1))
    assert len(load("%d.png")[0]) == 3
    (frame,), _ = load("0.png")
    if mode != "L":
        np.testing.assert_array_equal(rgb(frame), np.asarray(Image.open("0.png").convert("RGB")))


# ---------------------------------------------------------------- frame counts


def with_edit_list(path: Path) -> Path:
    """An mp4 of 16 frames in groups of 4, of which its edit list shows 0.2 s."""
    data = bytearray(mux(path, pictures(16), options={"g": "4", "bf": "0"}).read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = (200).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def starts_inside(path: Path) -> Path:
    return remux(path, mux(Path("whole.mp4"), pictures(20), options=GOPS), 3)


def with_empty_chunk(path: Path) -> Path:
    return mux(path, pictures(6), codec="ffv1", times=[0, 1, 2, 4, 5, 6])


def with_appendix(path: Path) -> Path:
    """A photo after which a smaller picture follows, as phones store depth."""
    small = io.BytesIO()
    image(2, (24, 32)).save(small, "JPEG")
    image().save(path)
    path.write_bytes(path.read_bytes() + small.getvalue())
    return path


def animated(path: Path) -> Path:
    image().save(path, save_all=True, append_images=[image(2), image(3)], duration=40)
    return path


def fragmented(path: Path) -> Path:
    whole = mux(Path("whole.mp4"), pictures(8), options=GOPS)
    return remux(path, whole, 0, {"movflags": "frag_keyframe+empty_moov"})


# name, how it is made, options, number of frames, what is said of the choice
COUNTS = [
    ("head.mp4", with_edit_list, {}, 5, ""),
    ("null.avi", with_empty_chunk, {"fps": Fraction(25)}, 6, ""),
    ("late.mp4", starts_inside, {}, 12, "12 of its 17 frames can be decoded"),
    ("late.ts", starts_inside, {}, 12, "12 of its 17 frames can be decoded"),
    ("late.mkv", starts_inside, {"start": 2}, 10, "12 of its 17 frames can be decoded"),
    ("photo.jpg", with_appendix, {}, 1, ""),
    ("a.gif", animated, {}, 3, ""),
    ("a.png", animated, {}, 3, ""),
    ("f.mp4", fragmented, {}, 8, ""),
]


@pytest.mark.parametrize("name, make, options, n_frames, choice", COUNTS, ids=[c[0] for c in COUNTS])
def test_frames_are_those_that_can_be_decoded(name, make, options, n_frames, choice):
    frames, source = load(make(Path(name)), **options)
    assert (source.n_frames, len(frames), source.choice) == (n_frames, n_frames, choice)
    if source.fps != 1:
        assert source.fps == 25


SHARED = [
    ("exif.jpg", {}, 1, SMALL, 1),
    ("icc.png", {}, 1, COLOURED, 1),
    ("icc/%d.png", {}, 2, COLOURED, 25),
    ("icc", {}, 2, COLOURED, 25),
    ("head.mp4", {}, 5, SMALL, 25),
    ("null.avi", {"fps": Fraction(25)}, 8, SMALL, 25),
    ("cover_first.mp4", {}, 6, SMALL, 25),
    ("starts_inside_gop.mp4", {}, 16, SMALL, 25),
]


@needs_cases
@pytest.mark.parametrize("name, options, n_frames, format, fps", SHARED, ids=[s[0] for s in SHARED])
def test_small_files_with_known_values(name, options, n_frames, format, fps):
    frames, source = load(CASES / name, **options)
    assert (len(frames), source.n_frames, source.format, source.fps) == (n_frames, n_frames, format, fps)
    if format is COLOURED:
        first = next(iter(find_images(CASES / name))) if n_frames > 1 else CASES / name
        np.testing.assert_array_equal(rgb(frames[0]), np.asarray(Image.open(first).convert("RGB")))


def test_an_empty_chunk_makes_the_rate_variable():
    with pytest.raises(InputError, match=r"null\.avi: its frame rate is variable or unknown \(frames last from 40"):
        open_source(with_empty_chunk(Path("null.avi")))


def test_a_limit_is_as_if_the_source_ended_there():
    path = mux(Path("a.mkv"), pictures(8), options={"bf": "2"})
    whole, _ = load(path)
    for options, limit in (({}, 3), ({"start": 2}, 3), ({"start": 6}, 5), ({}, 99)):
        frames, source = load(path, limit, **options)
        assert frames == whole[options.get("start", 0) :][:limit]
        assert (source.n_frames, source.fps) == (len(frames), 25)
    for index in range(4):
        image(index).save(f"{index}.png")
    Path("3.png").write_bytes(b"no picture")
    assert len(load("%d.png", 2, start=1)[0]) == 2
    with pytest.raises(InputError, match=r"3\.png"):
        open_source("%d.png", SourceSpec(start=1), 3)


def breaks(path: Path, make, share: float) -> Path:
    data = make(path).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def faststart(path: Path) -> Path:
    return remux(path, mux(Path("whole.mp4"), pictures(12)), 0, {"movflags": "faststart"})


BROKEN = [
    ("a.mp4", faststart, 0.9, r"a\.mp4 is truncated: it contains \d of 12 frames"),
    ("f.mp4", fragmented, 0.7, r"f\.mp4 is truncated: it breaks off after \d frames?; copy"),
    (
        "a.mkv",
        lambda path: mux(path, pictures(12)),
        0.9,
        r"a\.mkv is truncated: it breaks off after \d frames; give",
    ),
    ("two.mkv", lambda path: mux(path, pictures(12), pictures(12)), 0.7, r"two\.mkv is truncated: it breaks off after"),
    ("a.avi", lambda path: mux(path, pictures(12), codec="mpeg4"), 0.9, r"a\.avi is truncated: it contains \d+ of 12"),
    ("a.jpg", lambda path: image().save(path) or path, 0.6, r"a\.jpg is not a readable video or image"),
    ("a.png", lambda path: image().save(path) or path, 0.6, r"a\.png (is not a readable|contains no)"),
]


@pytest.mark.parametrize("name, make, share, words", BROKEN, ids=[b[0] for b in BROKEN])
def test_only_what_breaks_off_is_said_to(name, make, share, words):
    assert load(make(Path(name)))[0]
    with pytest.raises(InputError, match=words):
        open_source(breaks(Path(name), make, share))


# ---------------------------------------------------------------- refused before training


def mixed_sizes():
    os.mkdir("frames")
    for index in range(3):
        image(index, (48, 64) if index < 2 else (48, 66)).save(f"frames/{index}.png")
    return "frames/%d.png", r"frames/2\.png is 66x48 8-bit rgb, but frames/0\.png is 64x48 8-bit rgb; convert"


def damaged_image():
    os.mkdir("frames")
    for index in range(3):
        image(index).save(f"frames/{index}.png")
    Path("frames/2.png").write_bytes(Path("frames/2.png").read_bytes()[:400])
    return "frames", r"frames/2\.png (is not|contains no)"


def several_in_one():
    os.mkdir("frames")
    image().save("frames/0.gif")
    animated(Path("frames/1.gif"))
    return (
        "frames/*.gif",
        r"frames/1\.gif contains several pictures; a sequence is made of images with",
    )


def changes_size():
    data = b""
    for part in (pictures(3), pictures(2, width=80)):
        context = av.CodecContext.create("mpeg2video", "w")
        context.width, context.height, context.pix_fmt, context.framerate = part[0].width, 48, "yuv420p", 25
        context.time_base = Fraction(1, 25)
        data += b"".join(bytes(packet) for picture in (*part, None) for packet in context.encode(picture))
    Path("a.m2v").write_bytes(data)
    return "a.m2v", r"a\.m2v: the format changes at frame \d, from 64x48 8-bit yuv420 to 80x48 8-bit yuv420; cut"


@pytest.mark.parametrize("make", [mixed_sizes, damaged_image, several_in_one, changes_size])
def test_refused_before_training(make):
    source, words = make()
    before, seen = sorted(Path().rglob("*")), []
    with pytest.raises(InputError, match=words):
        coolvid.encode(source, "out.cvd", coolvid.EncodeConfig(preset="fast"), listen=seen.append)
    assert (seen, sorted(Path().rglob("*"))) == ([], before)


# ---------------------------------------------------------------- the stream that is meant

TWO = (pictures(3), pictures(5, width=80))
STREAMS = [
    ("a.mkv", TWO, (0, 0), 80, "1 (h264, 80x48), not 0 (h264, 64x48)"),  # FFmpeg's best has more frames
    ("a.mkv", TWO, (Disposition.default, 0), 64, "0 (h264, 64x48), not 1 (h264, 80x48)"),
    ("a.mkv", TWO, (0, Disposition.default), 80, "1 (h264, 80x48), not 0 (h264, 64x48)"),
    ("a.mkv", TWO, (Disposition.default,) * 2, 80, "1 (h264, 80x48), not 0 (h264, 64x48)"),
    ("a.mp4", TWO, (0, Disposition.default), 80, "1 (h264, 80x48), not 0 (h264, 64x48)"),
]


@pytest.mark.parametrize("name, streams, dispositions, width, choice", STREAMS)
def test_the_default_stream_or_the_best(name, streams, dispositions, width, choice):
    frames, source = load(mux(Path(name), *streams, dispositions=dispositions))
    assert (source.format.width, source.choice) == (width, f"stream {choice}")
    assert len(frames) == source.n_frames == {64: 3, 80: 5}[width]
    for number, wanted in ((0, 64), (1, 80)):
        assert load(name, stream=number)[1].format.width == wanted


def test_cover_art_is_never_the_video():
    frames, source = load(with_cover(Path("a.mp4"), pictures(6)))
    assert (len(frames), source.format, source.fps) == (6, SMALL, 25)
    assert source.choice == "stream 1 (h264, 64x48), not 0 (mjpeg, 100x100, a cover picture)"
    with pytest.raises(ConfigError, match=r"stream 0 of a\.mp4 is no video; choose one of: 1 \(h264, 64x48\)$"):
        open_source("a.mp4", SourceSpec(stream=0))
    with pytest.raises(InputError, match=r"b\.mp4 contains no video, only a cover picture"):
        open_source(with_cover(Path("b.mp4"), []))


@pytest.mark.parametrize(
    "source, spec, words",
    [
        ("a.y4m", {"stream": 1}, r"stream 1 of a\.y4m is no video; choose one of: 0 \(rawvideo, 64x48\)"),
        ("%d.png", {"stream": 2}, r"stream 2 of 0\.png is no video; choose one of: 0"),
        ("a_64x48_25p_yuv420_8b.yuv", {"stream": 0}, "raw files have no streams; leave it out"),
    ],
)
def test_numbers_of_streams_that_are_not_there(source, spec, words):
    for name in ("a.y4m", "a_64x48_25p_yuv420_8b.yuv"):
        with open_sink(name, SMALL, Fraction(25), ColorInfo()) as sink:
            sink.write(noise(SMALL, 1)[0])
    image().save("0.png")
    with pytest.raises(ConfigError, match=words):
        open_source(source, SourceSpec(**spec))
    assert invoke("encode", source, "--stream", spec["stream"], "-o", "a.cvd").exit_code == 2


@pytest.mark.parametrize("number", [-1, 1.0, "0", True])
def test_a_stream_is_a_whole_number(number):
    with pytest.raises(ConfigError, match=r"stream is .*; (write a whole number |choose )0\.\."):
        SourceSpec(stream=number)


def test_the_first_line_of_an_encode_names_the_choice():
    mux(Path("a.mkv"), pictures(1, width=32), pictures(1, width=48), dispositions=(0, Disposition.default))
    result = invoke("encode", "a.mkv", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("1 frame (stream 1 (h264, 48x48), not 0 (h264, 32x48)), I frames with ")
    result = invoke("encode", "a.mkv", "--stream", 0, "-o", "b.cvd", *QUICK)
    assert result.output.startswith("1 frame (stream 0 (h264, 32x48), not 1 (h264, 48x48)), I frames with ")
    assert [coolvid.read_info(name).header.format.width for name in ("a.cvd", "b.cvd")] == [48, 32]
    assert invoke("report", "b.cvd", "--source", "a.mkv", "--stream", 0, "-o", "b.html").exit_code == 0
    result = invoke("report", "b.cvd", "--stream", 0)
    assert (result.exit_code, "--stream describes a source" in result.output) == (2, True)


# ---------------------------------------------------------------- names

FILE_NAMES = [
    "12:30.mp4", "./12:30.mp4", "2026-01-26T20:57:04Z.mp4", "http:clip.mp4", "file:clip.mp4", "concat:a|b.mp4",
    "pipe:0.mp4", "50%done.mp4", "100%d.mp4", "shot%04d.mp4", "all*.mp4", "what?.mp4", "[1].mp4", "-clip.mp4",
    "é ü.mp4",
]  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return mux(tmp_path_factory.mktemp("film") / "a.mp4", pictures(3))


@pytest.mark.parametrize("name", FILE_NAMES)
def test_names_are_files(film, name):
    shutil.copy(film, name)
    assert len(load(name)[0]) == len(load(Path(name).absolute())[0]) == 3


@pytest.mark.parametrize("name", ["t:1.png", "pic%03d.png", "50%d.png", "*.png", "http:1.png"])
def test_names_of_images_are_files(name):
    image().save("0.png")
    image(2).save("other.png")
    os.rename("other.png", name)
    (frame,), source = load(name)
    np.testing.assert_array_equal(rgb(frame), np.asarray(image(2)))
    assert (source.fps, source.choice) == (1, "")


@pytest.mark.parametrize("name", ["12:31.mp4", "http:o.mkv", "file:a.mp4", "50%d.mp4", "t:2.y4m", "a*b.mp4"])
def test_names_are_files_when_written(name):
    with open_sink(name, SMALL, Fraction(25), ColorInfo()) as sink:
        for frame in noise(SMALL):
            sink.write(frame)
    assert [path.name for path in Path().iterdir()] == [name]
    assert len(load(name)[0]) == 3


def test_numbered_images_in_a_folder_with_a_colon():
    os.mkdir("2026:05")
    with open_sink("2026:05/%d.png", COLOURED, Fraction(25), ColorInfo()) as sink:
        for frame in (frames := noise(COLOURED)):
            sink.write(frame)
    assert load("2026:05/%d.png")[0] == load("2026:05")[0] == load("2026:05/*.png")[0] == frames


@pytest.mark.parametrize(
    "args", [("encode", "{}"), ("encode", "a.mp4", "-o", "{}"), ("decode", "a.cvd", "{}"), ("info", "{}")]
)
def test_names_that_are_not_utf_8_are_refused(film, args):
    name = os.fsdecode(b"clip\xff.mp4")
    shutil.copy(film, "a.mp4")
    before = sorted(Path().iterdir())
    result = invoke(*(each.format(name) for each in args))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "coolvid: error: the name b'clip\\xff.mp4' is not UTF-8; rename the file\n"
    assert sorted(Path().iterdir()) == before
    with pytest.raises(InputError, match="is not UTF-8"):
        open_source(name)
    with pytest.raises(OutputError, match="is not UTF-8"):
        open_sink(name, SMALL, Fraction(25), ColorInfo())


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4"])
def test_a_playlist_opens_no_address(name):
    Path(name).write_text(PLAYLIST)
    with pytest.raises(InputError, match=f"{name} is not a readable video or image"):
        open_source(name)


@pytest.mark.parametrize(
    "source, made, name",
    [
        ("50%done.mp4", "50%done.mp4", "50%done.cvd"),
        ("100%d.mp4", "100%d.mp4", "100%d.cvd"),
        ("frames", "frames/1.png", "frames.cvd"),
        ("frames/", "frames/1.png", "frames.cvd"),
        ("frames/*.png", "frames/1.png", "frames.cvd"),
        ("frames/%d.png", "frames/1.png", "frames.cvd"),
        ("shot_*.png", "shot_1.png", "shot.cvd"),
        ("t:1.png", "t:1.png", "t:1.cvd"),
    ],
)
def test_streams_are_named_after_their_source(monkeypatch, source, made, name):
    Path(made).parent.mkdir(exist_ok=True)
    Path(made).touch()
    seen = []
    monkeypatch.setattr(coolvid, "encode", lambda source, out, *_, **__: seen.append(out) or 1 / 0)
    invoke("encode", source)
    assert seen == [Path(name)]


# ---------------------------------------------------------------- several images


@pytest.mark.parametrize("given, names", [("frames", "1 2 10"), ("frames/*.png", "1 2 10"), ("frames/1*.png", "1 10")])
def test_images_in_natural_order(given, names):
    os.mkdir("frames")
    for index in (10, 1, 2):
        image(index).save(f"frames/a{index}.png")
    for other in ("notes.txt", ".a0.png"):
        Path(f"frames/{other}").write_text("no picture")
    given = given.replace("1*", "a1*")
    frames, source = load(given)
    numbers = names.split()
    for frame, number in zip(frames, numbers, strict=True):
        np.testing.assert_array_equal(rgb(frame), np.asarray(image(int(number))))
    assert source.choice == f"{len(numbers)} images, a1.png to a10.png"
    assert (source.fps, load(given, start=1)[0]) == (25, frames[1:])


def test_the_first_line_says_how_many_images():
    seen = []
    for index in range(3):
        image(index, (16, 16)).save(f"{index}.png")
    config = coolvid.EncodeConfig(preset="fast", iterations=2, n_frames=1, threads=1)
    coolvid.encode("*.png", "a.cvd", config, listen=seen.append)
    (started,) = [event for event in seen if isinstance(event, EncodeStarted)]
    assert (started.n_frames, started.choice) == (1, "3 images, 0.png to 2.png")


@pytest.mark.parametrize(
    "given, words",
    [
        ("mixed", r"mixed holds images of several kinds \(\.jpg, \.png\); choose one, for example 'mixed/\*\.jpg'"),
        ("empty", "empty is a folder without images; give a file, or a folder of images such as .png"),
        ("mixed/*.tif", r"no file matches mixed/\*\.tif; check the pattern"),
        ("none/*.png", "no such folder: none"),
        ("mixed/[a].png", r"no such file: mixed/\[a\]\.png"),
    ],
)
def test_folders_and_patterns_without_a_sequence(given, words):
    os.mkdir("empty")
    os.mkdir("mixed")
    for name in ("a.jpg", "a.png"):
        image().save(f"mixed/{name}")
    with pytest.raises(InputError, match=words):
        open_source(given)


def test_a_folder_that_cannot_be_listed(monkeypatch):
    os.mkdir("frames")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for given in ("frames", "frames/%d.png", "frames/*.png"):
        with pytest.raises(InputError, match="cannot list the folder frames: Permission denied"):
            open_source(given)


@pytest.mark.parametrize("modes", [("RGB", "L", "P"), ("L", "1", "RGB"), ("P", "LA", "RGBA"), ("L", "P")])
def test_grey_and_palette_images_in_a_coloured_sequence(modes):
    for index, mode in enumerate(modes):
        image(index).convert(mode).save(f"{index}.png")
    frames, source = load("%d.png")
    assert (source.format, source.n_frames) == (COLOURED, len(modes))
    for index, frame in enumerate(frames):
        wanted = Image.open(f"{index}.png")
        wanted = wanted.convert("RGBA").convert("RGB") if "A" in wanted.mode else wanted.convert("RGB")
        np.testing.assert_array_equal(rgb(frame), np.asarray(wanted))


def test_grey_images_alone_stay_grey():
    for index in range(2):
        image(index).convert("L").save(f"{index}.png")
    frames, source = load("%d.png")
    assert source.format == SMALL
    assert {int(v) for frame in frames for plane in frame.planes[1:] for v in np.unique(plane)} == {128}


def test_grey_photos_among_coloured_ones():
    for index, mode in enumerate(("L", "RGB")):
        image(index).convert(mode).save(f"{index}.jpg", subsampling=0)
    frames, source = load("%d.jpg")
    assert source.format == VideoFormat(48, 64, YUV444, 8)
    assert set(np.unique(frames[0].planes[1])) == {128}


# ---------------------------------------------------------------- every other kind of file: one line


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


def sound() -> bytes:
    with av.open("sound.wav", "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return Path("sound.wav").read_bytes()


def deep() -> bytes:
    Image.fromarray(np.zeros((48, 64), np.uint16)).save("deep.png")
    return Path("deep.png").read_bytes()


def y4m(header: str) -> bytes:
    return f"YUV4MPEG2 {header}\nFRAME\n".encode() + bytes(64 * 48 * 3 // 2)


NOT_READABLE = "is not a readable video or image"
ODD = [
    ("sound.wav", sound, "contains no video"),
    ("a.svg", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"></svg>', NOT_READABLE),
    ("a.pdf", lambda: b"%PDF-1.4\n1 0 obj <<>> endobj\n" * 50, NOT_READABLE),
    ("deep.png", deep, "16 bits per sample.* is not supported; convert it to 8 or 10 bits first"),
    ("large.png", lambda: png(30000, 30000), f"{NOT_READABLE}|frame size 30000x30000"),
    ("larger.png", lambda: png(2**31 - 1, 2**31 - 1), NOT_READABLE),
    ("empty.png", lambda: png(0, 0), NOT_READABLE),
    ("zero.y4m", lambda: y4m("W0 H0 F25:1"), r"frame size 0x0 is outside 16\.\.16384"),
    ("large.y4m", lambda: y4m("W1000000 H1000000 F25:1"), "frame size 1000000x1000000 is outside"),
    ("long.y4m", lambda: y4m(f"W{'9' * 20} H48 F25:1"), "frame size 9{20}x48 is outside"),
    ("negative.y4m", lambda: y4m("W-5 H48 F25:1"), "does not state its frame size"),
    ("sizeless.y4m", lambda: y4m("F25:1"), "does not state its frame size; its first line must contain"),
    ("rateless.y4m", lambda: y4m("W64 H48"), r"rateless\.y4m does not state its frame rate; give it \(--fps 30\)"),
    ("zero_rate.y4m", lambda: y4m("W64 H48 F0:0"), r"does not state its frame rate; give it \(--fps 30\)"),
    ("fast.y4m", lambda: y4m("W64 H48 F1000000:1"), r"frame rate 1000000 is not supported; choose 1/3600\.\.1000"),
    ("cut.y4m", lambda: b"YUV4MPEG2 W64 H48 F25:1", "not a readable|no picture"),
]


@pytest.mark.parametrize("name, content, words", ODD, ids=[o[0] for o in ODD])
def test_odd_files_are_one_line(name, content, words):
    Path(name).write_bytes(content())
    with pytest.raises(InputError, match=words) as caught:
        open_source(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_y4m_without_a_rate_takes_the_given_one(monkeypatch):
    Path("a.y4m").write_bytes(y4m("W64 H48"))
    assert load("a.y4m", fps=Fraction(24))[1].fps == 24
    for content, words in (
        (y4m("W64 H48"), "input does not state its frame rate"),
        (y4m("W0 H0"), "size 0x0"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(InputError, match=words):
            open_source("-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(y4m("W64 H48"))))
    assert load("-", fps=Fraction(24))[1].fps == 24


RAW = "of this raw file"
HOW = r", or name the file like NAME_352x288_30p_yuv420_8b\.yuv"


@pytest.mark.parametrize(
    "name, options, words",
    [
        (
            "a.yuv",
            {},
            f"frame size, frame rate and pixel format {RAW} are unknown; give --size 352x288 --fps 30 --pix-fmt ",
        ),
        (
            "a.yuv",
            {"fps": Fraction(25)},
            f"frame size and pixel format {RAW} are unknown; give --size 352x288 --pix-fmt ",
        ),
        ("a_16x16_yuv420_8b.yuv", {}, f"frame rate {RAW} is unknown; give --fps 30{HOW}"),
        ("a_16x16_30p.yuv", {}, f"pixel format {RAW} is unknown; give --pix-fmt yuv420p{HOW}"),
    ],
)
def test_all_that_a_raw_file_lacks_is_one_line(name, options, words):
    Path(name).write_bytes(bytes(384))
    with pytest.raises(InputError, match=words):
        open_source(name, SourceSpec(**options))


def test_one_frame_is_singular():
    Path("a.y4m").write_bytes(y4m("W64 H48 F25:1"))
    with pytest.raises(InputError, match=r"start is 3, but a\.y4m has only 1 frame; choose 0$"):
        open_source("a.y4m", SourceSpec(start=3))
