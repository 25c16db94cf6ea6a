"""Frame rates as people write them, and the bounds within which every kind of file holds them."""

from fractions import Fraction

import pytest

from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.picture.rate import MAX_FPS, MAX_TERM, MIN_FPS, parse_fps, problem_of
from coolvid.picture.types import ColorInfo, PixelFormat, VideoFormat
from pictures import noise

SMALL = VideoFormat(32, 48, PixelFormat.YUV420, 8)
FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)


@pytest.mark.parametrize(
    "text, rate",
    [
        ("25", 25),
        ("25.", 25),
        ("25.00", 25),
        ("12.5", Fraction(25, 2)),
        (".5", Fraction(1, 2)),
        ("30000/1001", NTSC),
        ("1/3600", MIN_FPS),
        ("1e3", MAX_FPS),
        ("23.976", FILM),
        ("23.98", FILM),
        ("23.97", FILM),
        ("23.976024", FILM),
        ("29.97", NTSC),
        ("29.970", NTSC),
        ("29.97003", NTSC),
        ("59.94", Fraction(60000, 1001)),
        ("119.88", Fraction(120000, 1001)),
        ("30.00", 30),
        ("29.98", Fraction(1499, 50)),
        ("24.0", 24),
    ],
)
def test_rates_as_people_write_them(text, rate):
    assert parse_fps(text) == rate


@pytest.mark.parametrize("text", ["", ".", "0", "0/1", "1/0", "-1", "nan", "inf", "fast", "1e999999999", "25 fps"])
def test_what_is_no_rate(text):
    with pytest.raises(ConfigError, match=r"cannot read frame rate '.*'; write frames per second, for example 25 or"):
        parse_fps(text)


OUTSIDE = [
    Fraction("1e-12"),
    Fraction(1, 3601),
    Fraction(1001),
    Fraction(2**32),
    Fraction(MAX_TERM + 1, MAX_TERM),
    Fraction(0.1),
]


@pytest.mark.parametrize("fps", OUTSIDE, ids=str)
def test_every_door_names_fps_and_the_bounds(tmp_path, fps):
    with pytest.raises(ConfigError, match=r"fps is .*; choose (1/3600\.\.1000|a rate whose numerator)"):
        SourceSpec(fps=fps)
    for name in ("a.mp4", "a.mkv"):
        with pytest.raises(OutputError, match=rf"{name}: \.m.. cannot hold fps .*; use \.yuv"):
            open_sink(tmp_path / name, SMALL, fps, ColorInfo())
    with pytest.raises(ConfigError, match="fps is"):
        parse_fps(f"{fps.numerator}/{fps.denominator}")


def test_a_file_with_a_rate_out_of_bounds_asks_for_another(tmp_path):
    path = tmp_path / "a.y4m"
    with open_sink(path, SMALL, Fraction(2000), ColorInfo()) as sink:
        sink.write(noise(SMALL, 1)[0])
    with pytest.raises(InputError, match=r"a\.y4m: frame rate 2000 is not supported; choose 1/3600\.\.1000 .*--fps"):
        open_source(path)
    assert open_source(path, SourceSpec(fps=Fraction(25))).fps == 25


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(
    "fps", [MIN_FPS, MAX_FPS, Fraction(MAX_TERM, MAX_TERM - 1), Fraction(138889, MAX_TERM), Fraction(10001, 36000001)]
)
def test_within_the_bounds_mp4_holds_every_rate(tmp_path, fps, depth):
    assert not problem_of(fps)
    format = VideoFormat(64, 64, PixelFormat.YUV420, depth)
    with open_sink(tmp_path / "a.mp4", format, fps, ColorInfo()) as sink:
        for frame in noise(format, 8):
            sink.write(frame)
    with open_source(tmp_path / "a.mp4") as source:
        assert (source.fps, source.n_frames) == (fps, 8)


@pytest.mark.parametrize("rate", ["4294967296:1", "2147483648:2147483647", "1001:1"])
def test_y4m_rates_beyond_what_ffmpeg_reads_are_refused_too(tmp_path, rate):
    path = tmp_path / "b.y4m"
    path.write_bytes(f"YUV4MPEG2 W16 H16 F{rate}\nFRAME\n".encode() + bytes(384))
    with pytest.raises(InputError, match=r"b\.y4m: frame rate .* is not supported"):
        open_source(path)
