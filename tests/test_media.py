"""Files in, files out: exact where they can be, an error with a next step where they cannot."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coolvid.errors import InputError
from coolvid.media import SourceSpec, open_sink, open_source
from coolvid.media.raw import y4m_header
from coolvid.picture.quality import psnr
from coolvid.picture.types import ColorInfo, Frame, PixelFormat, VideoFormat

RATE = Fraction(30000, 1001)
UNSPECIFIED = ColorInfo()
BT709 = ColorInfo(primaries=1, transfer=1, matrix=1, range=1)
YUV420, YUV444, RGB = PixelFormat.YUV420, PixelFormat.YUV444, PixelFormat.RGB
YUV_FORMATS = [VideoFormat(h, w, p, b) for h, w in ((48, 64), (45, 67)) for p in (YUV420, YUV444) for b in (8, 10)]


def video(format: VideoFormat, n_frames: int = 3) -> list[Frame]:
    """A smooth moving slope with a little noise."""
    random = np.random.default_rng(1)
    frames = []
    for t in range(n_frames):
        planes = []
        for i, (h, w) in enumerate(format.plane_shapes):
            y, x = np.mgrid[0:h, 0:w]
            value = 0.5 + 0.3 * np.sin((x * (i + 1) + 2 * y + 3 * t) * 2 / w) + random.normal(0, 0.002, (h, w))
            planes.append((value.clip(0, 1) * format.peak).round().astype(np.uint16))
        frames.append(Frame(tuple(planes), format))
    return frames


def save(path: Path, frames: list[Frame], fps=RATE, color=UNSPECIFIED, n_frames=None) -> None:
    with open_sink(path, frames[0].format, fps, color, n_frames) as sink:
        for frame in frames:
            sink.write(frame)


def load(path: Path, **options):
    with open_source(path, SourceSpec(**options)) as source:
        return list(source), source


def raw_name(format: VideoFormat) -> str:
    return f"clip_{format.width}x{format.height}_29.97p_{format.pixel_format.value}_{format.bit_depth}b.yuv"


# ---------------------------------------------------------------- exact files


@pytest.mark.parametrize("format", YUV_FORMATS, ids=str)
def test_yuv_round_trip(tmp_path, format):
    frames, path = video(format), tmp_path / raw_name(format)
    save(path, frames)
    again, source = load(path)
    assert again == frames
    assert (source.fps, source.n_frames, source.format, source.name) == (RATE, 3, format, path.name)
    assert path.stat().st_size == 3 * format.n_samples * (1 if format.bit_depth == 8 else 2)


@pytest.mark.parametrize("format", YUV_FORMATS, ids=str)
@pytest.mark.parametrize("range_", [0, 1, 2])
def test_y4m_round_trip_through_another_reader(tmp_path, format, range_):
    frames, path = video(format), tmp_path / "clip.y4m"
    save(path, frames, color=ColorInfo(range=range_))
    again, source = load(path)
    assert again == frames
    assert (source.fps, source.n_frames, source.format) == (RATE, 3, format)
    if format.bit_depth == 8:
        assert source.color.range == range_


def test_y4m_header():
    format = VideoFormat(45, 67, YUV420, 10)
    expected = b"YUV4MPEG2 W67 H45 F30000:1001 Ip A1:1 C420p10 XCOLORRANGE=FULL\n"
    assert y4m_header(format, RATE, ColorInfo(range=2)) == expected


def test_rgb_raw_round_trip_is_packed(tmp_path):
    frames, path = video(VideoFormat(45, 67, RGB, 8)), tmp_path / "clip_67x45_25p_rgb_8b.rgb"
    save(path, frames)
    assert path.read_bytes()[:3] == bytes(int(plane[0, 0]) for plane in frames[0].planes)
    assert load(path)[0] == frames


def test_one_png(tmp_path):
    frames = video(VideoFormat(45, 67, RGB, 8), 1)
    save(tmp_path / "picture.png", frames)
    again, source = load(tmp_path / "picture.png")
    assert again == frames
    assert (source.n_frames, source.fps, source.format.pixel_format) == (1, Fraction(1), RGB)
    assert load(tmp_path / "picture.png", fps=Fraction(25))[1].fps == 25


@pytest.mark.parametrize("n_frames", [None, 3])
def test_several_png(tmp_path, n_frames):
    frames = video(VideoFormat(16, 20, RGB, 8))
    save(tmp_path / "p.png", frames, n_frames=n_frames)
    names = ["p_0000.png", "p_0001.png", "p_0002.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [load(tmp_path / name)[0][0] for name in names] == frames


@pytest.mark.parametrize("format", [*YUV_FORMATS, VideoFormat(16, 18, RGB, 10)], ids=str)
def test_png_of_everything_else_looks_the_same(tmp_path, format):
    save(tmp_path / "p.png", video(format, 1), color=ColorInfo(matrix=1, range=1))
    with av.open(tmp_path / "p.png") as container:
        picture = next(container.decode(video=0))
    assert (picture.width, picture.height) == (format.width, format.height)
    assert picture.format.name == ("rgb24" if format.bit_depth == 8 else "rgb48be")


@pytest.mark.parametrize("range_, white, black", [(1, 235, 16), (2, 255, 0), (0, 235, 16)])
def test_png_of_yuv_uses_the_range(tmp_path, range_, white, black):
    format = VideoFormat(16, 16, YUV420, 8)
    planes = [np.full(shape, 128, np.uint16) for shape in format.plane_shapes]
    planes[0][:] = black
    planes[0][:, 8:] = white
    save(tmp_path / "p.png", [Frame(tuple(planes), format)], color=ColorInfo(range=range_))
    green = load(tmp_path / "p.png")[0][0].planes[1]
    assert (green[:, :4] <= 1).all() and (green[:, -4:] >= 254).all()


# ---------------------------------------------------------------- lossy files

VIDEO_CASES = [
    (VideoFormat(48, 64, YUV420, 8), YUV420),
    (VideoFormat(45, 67, YUV420, 8), YUV444),
    (VideoFormat(45, 67, YUV444, 8), YUV444),
    (VideoFormat(48, 64, YUV420, 10), YUV420),
    (VideoFormat(45, 67, YUV420, 10), YUV444),
    (VideoFormat(16, 16, YUV420, 10), YUV420),
    (VideoFormat(64, 98, YUV420, 10), YUV420),
    (VideoFormat(65, 99, YUV444, 10), YUV444),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("format, stored", VIDEO_CASES, ids=str)
def test_video_keeps_size_rate_depth_and_picture(tmp_path, suffix, format, stored, capfd):
    frames = video(format, 5)
    save(tmp_path / f"clip{suffix}", frames, color=BT709)
    again, source = load(tmp_path / f"clip{suffix}")
    assert (source.fps, source.n_frames, len(again), source.color) == (RATE, 5, 5, BT709)
    f = source.format
    assert (f.width, f.height, f.bit_depth, f.pixel_format) == (format.width, format.height, format.bit_depth, stored)
    for before, after in zip(frames, again, strict=True):
        assert np.abs(before.planes[0].astype(int) - after.planes[0]).mean() < 0.01 * format.peak
        if stored is format.pixel_format:
            assert psnr(before, after) > 38
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(25), Fraction(25, 2), Fraction(60), Fraction(120000, 1001)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
def test_frame_rates_are_exact_fractions(tmp_path, suffix, fps):
    save(tmp_path / f"clip{suffix}", video(VideoFormat(16, 32, YUV420, 8), 12), fps=fps)
    assert load(tmp_path / f"clip{suffix}")[1].fps == fps
    save(tmp_path / f"one{suffix}", video(VideoFormat(16, 32, YUV420, 8), 1), fps=fps)
    assert load(tmp_path / f"one{suffix}")[1].fps == fps


@pytest.mark.parametrize("depth", [8, 10])
def test_rgb_video_becomes_yuv444_and_looks_the_same(tmp_path, depth):
    frames = video(VideoFormat(48, 64, RGB, depth))
    save(tmp_path / "clip.mp4", frames)
    with av.open(tmp_path / "clip.mp4") as container:
        pictures = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
    _, source = load(tmp_path / "clip.mp4")
    assert (source.format.pixel_format, source.color.matrix, source.color.range) == (YUV444, 1, 1)
    for frame, picture in zip(frames, pictures, strict=True):
        shown = np.stack(frame.planes, axis=-1) * (255 / frame.format.peak)
        assert np.abs(shown - picture).mean() < 4


def test_full_range_video_is_yuv420_with_range_2(tmp_path):
    frames = video(VideoFormat(48, 64, YUV420, 8))
    save(tmp_path / "clip.mp4", frames, color=ColorInfo(range=2))
    with av.open(tmp_path / "clip.mp4") as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuvj420p"
    again, source = load(tmp_path / "clip.mp4")
    assert (source.format.pixel_format, source.color.range) == (YUV420, 2)
    assert psnr(frames[0], again[0]) > 38


def test_unknown_colour_points_are_left_out(tmp_path):
    save(tmp_path / "clip.mp4", video(VideoFormat(16, 16, YUV420, 8)), color=ColorInfo(99, 98, 97, 2))
    assert load(tmp_path / "clip.mp4")[1].color == ColorInfo(2, 2, 2, 2)


# ---------------------------------------------------------------- formats of others


def write_video(path: Path, pictures: list[av.VideoFrame], codec: str = "ffv1", times=None, **colors) -> None:
    """A file as another program would make it; times in ms."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, pictures[0].format.name
        time_base = Fraction(1, 1000) if times else Fraction(1, 25)
        stream.codec_context.time_base = time_base
        for key, value in colors.items():
            setattr(stream.codec_context, key, value)
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base = times[index] if times else index, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def test_grey_is_420_with_neutral_chroma(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pictures = [av.VideoFrame.from_ndarray(grey, "gray") for _ in range(2)]
    write_video(tmp_path / "grey.mkv", pictures)
    frames, source = load(tmp_path / "grey.mkv")
    np.testing.assert_array_equal(frames[0].planes[0], grey)
    assert (frames[0].planes[1] == 128).all() and (frames[0].planes[2] == 128).all()
    assert (source.format.pixel_format, source.color.range) == (YUV420, 2)


@pytest.mark.parametrize("color_range", [1, 2])
def test_422_keeps_its_luma_and_its_range(tmp_path, color_range):
    packed = (np.arange(64 * 16) * 7 % 256).astype(np.uint8).reshape(64, 16)
    picture = av.VideoFrame.from_ndarray(packed, "yuv422p")
    write_video(tmp_path / "c.mkv", [picture], color_range=color_range)
    with av.open(tmp_path / "c.mkv") as container:
        luma = np.frombuffer(next(container.decode(video=0)).planes[0], np.uint8).reshape(32, -1)[:, :16]
    frames, source = load(tmp_path / "c.mkv")
    np.testing.assert_array_equal(frames[0].planes[0], luma)
    assert (source.format.pixel_format, source.color.range) == (YUV444, color_range)


def test_rgba_drops_alpha(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    random[..., 3] = 255
    write_video(tmp_path / "c.mov", [av.VideoFrame.from_ndarray(random, "rgba")], codec="png")
    frames, _ = load(tmp_path / "c.mov")
    np.testing.assert_array_equal(np.stack(frames[0].planes, axis=-1), random[..., :3])


def test_gbrp_has_its_planes_in_order(tmp_path):
    pixels = np.stack(video(VideoFormat(16, 24, RGB, 8), 1)[0].planes, axis=-1).astype(np.uint8)
    write_video(tmp_path / "c.mkv", [av.VideoFrame.from_ndarray(pixels, "rgb24")], codec="libx264rgb")
    with av.open(tmp_path / "c.mkv") as container:
        picture = next(container.decode(video=0))
        assert picture.format.name == "gbrp"
        expected = picture.to_ndarray(format="rgb24")
    np.testing.assert_array_equal(np.stack(load(tmp_path / "c.mkv")[0][0].planes, axis=-1), expected)


def test_twelve_bits_are_refused_with_the_name(tmp_path):
    write_video(tmp_path / "deep.mkv", [av.VideoFrame(16, 16, "yuv420p12le")])
    with pytest.raises(InputError, match=r"deep\.mkv.*yuv420p12le.*12 bits"):
        open_source(tmp_path / "deep.mkv")


# ---------------------------------------------------------------- frame rates


def test_variable_rate_is_refused_but_may_be_overridden(tmp_path):
    flat = [av.VideoFrame.from_ndarray(np.full((24, 16), 40 * i, np.uint8), "yuv420p") for i in range(4)]
    write_video(tmp_path / "phone.mkv", flat, times=[0, 33, 133, 166])
    with pytest.raises(InputError, match=r"phone\.mkv.*variable.*33\.00 to 100\.00 ms.*give a frame rate"):
        open_source(tmp_path / "phone.mkv")
    frames, source = load(tmp_path / "phone.mkv", fps=Fraction(30))
    assert (len(frames), source.fps) == (4, 30)


def test_a_stream_without_times_needs_a_rate(tmp_path):
    save(tmp_path / "clip.mp4", video(VideoFormat(16, 16, YUV420, 8)))
    with av.open(tmp_path / "clip.mp4") as source, av.open(tmp_path / "clip.h264", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(InputError, match=r"clip\.h264.*unknown.*give a frame rate"):
        open_source(tmp_path / "clip.h264")
    assert len(load(tmp_path / "clip.h264", fps=Fraction(25))[0]) == 3


# ---------------------------------------------------------------- raw files and options


def test_options_describe_a_file_without_a_telling_name(tmp_path):
    format = VideoFormat(45, 67, YUV420, 10)
    frames = video(format)
    save(tmp_path / "clip.yuv", frames)
    options = {"size": (67, 45), "fps": RATE, "pix_fmt": "yuv420p10le"}
    assert load(tmp_path / "clip.yuv", **options)[0] == frames
    (tmp_path / "clip.yuv").rename(tmp_path / "clip.bin")
    assert load(tmp_path / "clip.bin", **options)[0] == frames


def test_options_win_over_the_name(tmp_path):
    (tmp_path / "c_16x16_25p_yuv420_8b.yuv").write_bytes(bytes(32 * 16 * 3))
    source = load(tmp_path / "c_16x16_25p_yuv420_8b.yuv", size=(32, 16), fps=Fraction(50), pix_fmt="yuv444")[1]
    assert (source.format, source.fps) == (VideoFormat(16, 32, YUV444, 8), 50)


# ---------------------------------------------------------------- the clips next door

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder ../shared")
@pytest.mark.parametrize(
    "name, fps, n_frames, format",
    [
        ("clips/sparks_480x270_60p_yuv420_10b.yuv", 60, 5, VideoFormat(270, 480, YUV420, 10)),
        ("clips/carphone_176x144_30p_yuv420_8b.yuv", 30, 33, VideoFormat(144, 176, YUV420, 8)),
        ("images/kodim01.png", 1, 1, VideoFormat(512, 768, RGB, 8)),
    ],
)
def test_natural_clips_open(name, fps, n_frames, format):
    with open_source(SHARED / name) as source:
        assert (source.fps, source.n_frames, source.format) == (fps, n_frames, format)
        assert next(source).format == format
