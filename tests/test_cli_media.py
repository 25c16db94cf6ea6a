"""The formats of the field through the real commands: every odd input gives what is expected, or one clear line."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from coolvid_cli.decode import parse_range
from coolvid_cli.main import main

import coolvid
from coolvid.encoding import candidates
from coolvid.errors import ConfigError
from coolvid.events import DecodeStarted, FrameDecoded
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
BT709, HDR, UNSPECIFIED = ColorInfo(1, 1, 1, 1), ColorInfo(9, 16, 9, 1), ColorInfo()
IMAGE = ColorInfo(matrix=0, range=2)
YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
SMALL = VideoFormat(24, 32, YUV420, 8)
QUICK = ("--preset", "fast", "--iterations", 2, "--gop", 2, "--threads", 1, "--no-verify", "--quiet")


def video(format: VideoFormat, n_frames: int) -> list[Frame]:
    """A slope that moves."""
    frames = []
    for t in range(n_frames):
        grids = [np.mgrid[:h, :w] * (format.height / h) for h, w in format.plane_shapes]
        waves = [0.5 + 0.4 * np.sin((x + 2 * y + 3 * t) / (8 + i)) for i, (y, x) in enumerate(grids)]
        frames.append(Frame(tuple((w * format.peak).round().astype(np.uint16) for w in waves), format))
    return frames


def save(path: Path, n_frames: int = 3, format=SMALL, fps=NTSC, color=UNSPECIFIED) -> Path:
    with open_sink(path, format, fps, color) as sink:
        for frame in video(format, n_frames):
            sink.write(frame)
    return path


def mux(path: Path, codec: str, times=(0, 1, 2), time_base=1 / NTSC, options=None, name="yuv420p") -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=NTSC, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 32, 24, name, time_base
        for i, time in enumerate(times):
            pixels = np.full((24, 32, 3), 20 * i, np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=name)
            picture.pts, picture.time_base = time, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def load(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def invoke(*args, **options):
    return CliRunner().invoke(main, [str(a) for a in args], **options)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sequence(n_frames=3):
    Path("frames").mkdir()
    return save(Path("frames/%04d.png"), n_frames, VideoFormat(24, 32, RGB, 8))


# name, how it is made, source and options, what the stream then is: format, rate, colour, frames
GOOD = [
    ("deep", lambda: save(Path("a.y4m"), 2, VideoFormat(17, 19, YUV444, 10)), "a.y4m",
     (VideoFormat(17, 19, YUV444, 10), NTSC, UNSPECIFIED, 2)),
    ("odd raw", lambda: save(Path("a_33x19_23.976p_yuv420_10b.yuv"), 2, VideoFormat(19, 33, YUV420, 10)),
     "a_33x19_23.976p_yuv420_10b.yuv", (VideoFormat(19, 33, YUV420, 10), FILM, UNSPECIFIED, 2)),
    ("raw told", lambda: save(Path("a.yuv"), 2, VideoFormat(17, 19, YUV444, 8)),
     "a.yuv --size 19x17 --pix-fmt yuv444p --fps 24000/1001", (VideoFormat(17, 19, YUV444, 8), FILM, UNSPECIFIED, 2)),
    ("one frame", lambda: save(Path("a.mp4"), 1, fps=Fraction(50)), "a.mp4", (SMALL, Fraction(50), UNSPECIFIED, 1)),
    ("ntsc mp4", lambda: save(Path("a.mp4"), color=BT709), "a.mp4", (SMALL, NTSC, BT709, 3)),
    ("hdr mkv", lambda: save(Path("a.mkv"), 1, VideoFormat(24, 32, YUV420, 10), FILM, HDR), "a.mkv",
     (VideoFormat(24, 32, YUV420, 10), FILM, HDR, 1)),
    ("webm", lambda: mux(Path("a.webm"), "libvpx-vp9"), "a.webm --frames 2", (SMALL, NTSC, ColorInfo(2, 2, 2, 1), 2)),
    ("images", sequence, "frames/%04d.png", (VideoFormat(24, 32, RGB, 8), Fraction(25), IMAGE, 3)),
    ("image", lambda: sequence(1), "frames/0000.png", (VideoFormat(24, 32, RGB, 8), Fraction(1), IMAGE, 1)),
    ("full range", lambda: mux(Path("a.avi"), "mjpeg", name="yuvj420p"), "a.avi --frames 1",
     (SMALL, NTSC, ColorInfo(2, 2, 5, 2), 1)),
    ("variable, told", lambda: mux(Path("a.mkv"), "ffv1", (0, 33, 133), Fraction(1, 1000)), "a.mkv --fps 30",
     (SMALL, Fraction(30), UNSPECIFIED, 3)),
    ("part", lambda: save(Path("a.y4m"), 4), "a.y4m --start 1 --frames 2 --crop 20x18+4+6",
     (VideoFormat(18, 20, YUV420, 8), NTSC, UNSPECIFIED, 2)),
    ("scaled", lambda: save(Path("a.y4m"), 1), "a.y4m --crop 20x18+4+6 --scale 33x17",
     (VideoFormat(17, 33, YUV420, 8), NTSC, UNSPECIFIED, 1)),
]  # fmt: skip


@pytest.mark.parametrize("make, source, expected", [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_sources_become_streams_and_videos(make, source, expected):
    make()
    result = invoke("encode", *source.split(), "-o", "a.cvd", *QUICK)
    assert (result.exit_code, result.output) == (0, "")
    header = coolvid.read_info("a.cvd").header
    assert (header.format, header.fps, header.color, header.n_frames) == expected
    review = "out.mkv" if header.format.pixel_format is not RGB else "out.rgb"
    assert invoke("decode", "a.cvd", review, "--quiet").exit_code == 0
    if review == "out.mkv":
        with open_source(review) as video:
            assert (video.fps, video.n_frames, video.color) == (header.fps, header.n_frames, header.color)
            assert (video.format.height, video.format.width) == (header.format.height, header.format.width)
            assert video.format.bit_depth == header.format.bit_depth


def test_the_part_of_a_source_is_what_is_encoded():
    """Start, crop and standard input reach the coder: the same samples give the same bytes."""
    save(Path("a.y4m"), 4)
    with (
        open_source("a.y4m", SourceSpec(start=2, crop=(20, 18, 4, 6))) as source,
        open_sink("b.y4m", source.format, source.fps, source.color) as sink,
    ):
        for frame in source:
            sink.write(frame)
    assert invoke("encode", "a.y4m", "--start", 2, "--crop", "20x18+4+6", *QUICK).exit_code == 0
    piped = invoke("encode", "-", "-o", "b.cvd", *QUICK, input=Path("b.y4m").read_bytes())
    assert (piped.exit_code, piped.output) == (0, "")
    assert Path("a.cvd").read_bytes() == Path("b.cvd").read_bytes()


@pytest.mark.parametrize(
    "source, name", [("frames/%04d.png", "frames.cvd"), ("shot_%d.png", "shot.cvd"), ("a.b.mp4", "a.b.cvd")]
)
def test_streams_are_named_after_their_source(monkeypatch, source, name):
    seen = []

    def encode(source, out, *_, **__):
        seen.append(out)
        raise ConfigError("enough")

    monkeypatch.setattr(coolvid, "encode", encode)
    assert invoke("encode", source).exit_code == 2
    assert seen == [Path(name)]


def gap():
    sequence(4)
    Path("frames/0001.png").unlink()


def two_sizes():
    sequence(2)
    save(Path("frames/one.png"), 1, VideoFormat(24, 30, RGB, 8))
    Path("frames/one.png").rename("frames/0001.png")


def cut_off():
    path = save(Path("a.mp4"), 12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = [
    ("empty file", lambda: Path("a.mp4").touch(), "a.mp4", "a.mp4 is empty"),
    ("text", lambda: Path("a.mp4").write_text("a text\n" * 99), "a.mp4", "a.mp4 is not a readable video or image: "),
    ("cut off", cut_off, "a.mp4", "a.mp4 is truncated: an mp4 without its index (moov); copy or download it"),
    ("no file", lambda: None, "a.mp4", "no such file: a.mp4"),
    ("no folder", lambda: None, "frames/%04d.png", "no such folder: frames"),
    ("gap", gap, "frames/%04d.png", "frames/0001.png is missing from the sequence 0000.png to 0003.png"),
    ("two sizes", two_sizes, "frames/%04d.png", "frames/0001.png is 30x24 8-bit rgb, but frames/0000.png is 32x24"),
    ("late start", lambda: save(Path("a.y4m")), "a.y4m --start 3", "start is 3, but a.y4m has only 3 frames; choose"),
    ("crop outside", lambda: save(Path("a.y4m")), "a.y4m --crop 20x20+20+0",
     "crop 20x20+20+0 exceeds the picture, which is 32x24; 20x20+12+0 fits"),
    ("crop odd", lambda: save(Path("a.y4m")), "a.y4m --crop 20x20+3+0", "crop 20x20+3+0 starts at an odd position"),
    ("crop text", lambda: None, "a.y4m --crop 20x20", "cannot read crop '20x20'; write WIDTHxHEIGHT+X+Y, for example "),
    ("too small", lambda: save(Path("a.y4m")), "a.y4m --scale 8x8", "scale to 8x8: frame size 8x8 is outside"),
    ("variable", lambda: mux(Path("a.mkv"), "ffv1", (0, 33, 133), Fraction(1, 1000)), "a.mkv",
     "a.mkv: its frame rate is variable or unknown (frames last from 33.00 to 100.00 ms); make it constant"),
    ("interlaced", lambda: mux(Path("a.mp4"), "libx264", options={"x264-params": "interlaced=1"}), "a.mp4",
     "a.mp4: frame 0 is interlaced, but only progressive video is supported; deinterlace it first: ffmpeg"),
    ("12 bits", lambda: mux(Path("a.mkv"), "ffv1", name="yuv420p12le"), "a.mkv",
     "a.mkv: pixel format yuv420p12le (12 bits per sample) is not supported; convert it to 8 or 10 bits first"),
    ("empty pipe", lambda: None, "- -o a.cvd", "standard input is empty; use a pipe, for example ffmpeg"),
    ("size of a pipe", lambda: None, "- -o a.cvd --size 32x24", "size and pixel format are for raw files only; y4m"),
]  # fmt: skip


@pytest.mark.parametrize("make, source, message", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_what_cannot_be_encoded_is_one_line(make, source, message):
    make()
    before = sorted(Path().rglob("*"))
    result = invoke("encode", *source.split(), *QUICK)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"coolvid: error: {message}")
    assert result.stderr.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("args", ["-", "a.y4m -o -"])
def test_a_stream_needs_a_name(args):
    result = invoke("encode", *args.split())
    assert result.exit_code == 2
    assert "the stream needs a file name; give one, for example -o clip.cvd" in result.stderr


# ---------------------------------------------------------------- decoding a part


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """(path, its pictures): two intra periods, frames that inherit networks, no copies."""
    path = tmp_path_factory.mktemp("range") / "a.cvd"
    structure = coolvid.StructureConfig(gop=4, intra_period=4)
    config = coolvid.EncodeConfig(preset="fast", iterations=4, structure=structure, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "copies_of", lambda job, objective: [])
        coolvid.encode_frames(video(SMALL, 10), path, config, fps=NTSC, color=ColorInfo(1, 1, 1, 2))
    assert any(info.predictor is not None for info in coolvid.read_info(path).packets)
    coolvid.decode(path, path.with_suffix(".y4m"))
    return path, load(path.with_suffix(".y4m"))


@pytest.mark.parametrize("start", range(10))
def test_a_range_is_that_part_of_the_whole(stream, start):
    path, whole = stream
    for stop in range(start + 1, 11):
        seen = []
        assert (
            coolvid.decode(path, "part.y4m", frames=range(start, stop), threads=1, listen=seen.append) == stop - start
        )
        assert load(Path("part.y4m")) == whole[start:stop]
        n_decoded = sum(isinstance(event, FrameDecoded) for event in seen)
        assert seen[0] == DecodeStarted(stop - start, n_decoded)


def decoded_for(path, start, stop):
    """The frames that a range makes the decoder decode."""
    seen = []
    coolvid.digest(path, frames=range(start, stop), listen=seen.append)
    return sorted(e.display_index for e in seen if isinstance(e, FrameDecoded))


def test_a_range_decodes_only_what_it_needs(stream):
    needed = {(0, 1): [0], (4, 5): [4], (5, 6): [4, 5, 6, 8], (8, 10): [8, 9], (0, 10): list(range(10))}
    for (start, stop), indices in needed.items():
        assert decoded_for(stream[0], start, stop) == indices


def test_a_copy_of_one_reference_needs_only_that_one(tmp_path, monkeypatch):
    copies = candidates.copies_of
    monkeypatch.setattr(candidates, "COPY_TOLERANCE", math.inf)
    monkeypatch.setattr(candidates, "copies_of", lambda job, objective: copies(job, objective)[1:2])  # without the mean
    config = coolvid.EncodeConfig(preset="fast", iterations=4, structure=coolvid.StructureConfig(gop=2), threads=1)
    coolvid.encode_frames(video(SMALL, 3), tmp_path / "a.cvd", config)
    assert coolvid.read_info(tmp_path / "a.cvd").packets[2].references == (0, 0)
    assert decoded_for(tmp_path / "a.cvd", 1, 2) == [0, 1]


@pytest.mark.parametrize(
    "text, shown",
    [("2:5", range(2, 5)), (":3", range(3)), ("8:", range(8, 10)), ("-2:", range(8, 10)), ("7:99", range(7, 10))],
)
def test_ranges_are_slices(stream, text, shown):
    path, whole = stream
    result = invoke("decode", path, "part.yuv", "--range", text, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"part.yuv: {len(shown)} frames"
    Path("part.yuv").rename("part_32x24_30p_yuv420_8b.yuv")
    assert load(Path("part_32x24_30p_yuv420_8b.yuv")) == [whole[i] for i in shown]
    digests = {
        invoke("decode", path, "--digest", "--range", f"{shown.start}:{shown.stop}").stdout,
        invoke("decode", path, "--digest", f"--range={text}").stdout,
        coolvid.digest(path, frames=shown) + "\n",
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("10:", "range 10: contains no frame; "),
        ("5:5", "range 5:5 contains no frame; "),
        ("20:30", "range 20:30 contains no frame; "),
        ("7", "cannot read range '7'; write FIRST:END, for example 10:20 for frames 10 to 19"),
        ("1:9:2", "cannot read range '1:9:2'"),
        ("a:b", "cannot read range 'a:b'"),
    ],
)
def test_ranges_without_frames_are_one_line(stream, text, message):
    result = invoke("decode", stream[0], "part.yuv", "--range", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"coolvid: error: {message}")
    assert result.stderr.count("\n") == 1
    assert not Path("part.yuv").exists()


@pytest.mark.parametrize("frames", [range(0, 10, 2), range(-3, 2), range(10, 12), range(3, 3)])
def test_ranges_of_the_library_are_checked(stream, frames):
    with pytest.raises(ConfigError, match="frames"):
        coolvid.decode(stream[0], "part.yuv", frames=frames)


def test_parse_range():
    assert (parse_range("1:2"), parse_range(":"), parse_range("-3:")) == (slice(1, 2), slice(None), slice(-3, None))


# ---------------------------------------------------------------- decoding to everything


def test_standard_output_is_y4m_and_nothing_else(stream):
    path, whole = stream
    result = invoke("decode", path, "-", "--range", "3:6")
    assert (result.exit_code, result.stderr) == (0, "")
    Path("part.y4m").write_bytes(result.stdout_bytes)
    with open_source("part.y4m") as source:
        assert list(source) == whole[3:6]
        assert (source.fps, source.color.range) == (NTSC, 2)


def test_pictures_are_numbered_as_in_the_stream(stream):
    Path("out").mkdir()
    for target in ("out/%03d.png", "out/pic.png"):
        assert invoke("decode", stream[0], target, "--range", "8:10").exit_code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["008.png", "009.png", "pic_0008.png", "pic_0009.png"]
    assert invoke("decode", stream[0], "one.png", "--range", "8:9").exit_code == 0
    assert (Path("one.png").read_bytes(), Path("out/009.png").exists()) == (Path("out/008.png").read_bytes(), True)


def test_a_pipe_from_command_to_command(stream):
    """decode | encode | decode, as a shell runs them; then a reader that goes away."""
    code = "from coolvid_cli.main import main; main(prog_name='coolvid')"
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "decode", stream[0], "-", "--range", ":1"], stdout=subprocess.PIPE) as first:
        quick = [str(q) for q in QUICK]
        second = subprocess.run(
            [*command, "encode", "-", "-o", "b.cvd", *quick], stdin=first.stdout, capture_output=True, env=environment
        )
        first.stdout.close()
    assert (first.returncode, second.returncode, second.stdout, second.stderr) == (0, 0, b"", b"")
    header, other = coolvid.read_info("b.cvd").header, coolvid.read_info(stream[0]).header
    assert (header.n_frames, header.fps, header.format) == (1, NTSC, other.format)
    with subprocess.Popen(
        [*command, "decode", stream[0], "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1
