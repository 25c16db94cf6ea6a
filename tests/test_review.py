"""The video to judge a stream by: every picture where it belongs, every text whole."""

import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from coolvid_cli.main import main

import coolvid
from coolvid import ColorInfo, EncodeConfig, Frame, FrameType, PixelFormat, StructureConfig, VideoFormat
from coolvid.errors import ConfigError, InputError, MissingExtra
from coolvid.media import open_sink, open_source
from coolvid.study.review import Board, difference, make_review

pytest.importorskip("PIL")

FORMATS = {
    "even": VideoFormat(48, 64, PixelFormat.YUV420, 8),
    "odd10": VideoFormat(45, 67, PixelFormat.YUV420, 10),
    "full444": VideoFormat(48, 64, PixelFormat.YUV444, 8),
    "rgb": VideoFormat(33, 50, PixelFormat.RGB, 8),
}
CONFIG = EncodeConfig(preset="fast", iterations=4, structure=StructureConfig(gop=1), threads=1)
GAP = 8


def ramp(format: VideoFormat, phase: int) -> Frame:
    """A picture with a slope in every plane."""
    planes = []
    for k, (height, width) in enumerate(format.plane_shapes):
        slope = np.add.outer(np.arange(height), (k + 1) * np.arange(width)) * (format.peak // 200) + 40 + 9 * phase
        planes.append(np.minimum(slope, format.peak).astype(np.uint16))
    return Frame(tuple(planes), format)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """name -> (source, stream), two frames each."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for name, format in FORMATS.items():
        suffix = ".rgb" if format.pixel_format is PixelFormat.RGB else ".yuv"
        words = f"{format.width}x{format.height}_25p_{format.pixel_format.value}_{format.bit_depth}b"
        source, stream = folder / f"{name}_{words}{suffix}", folder / f"{name}.cvd"
        with open_sink(source, format, Fraction(25), ColorInfo()) as sink:
            for phase in range(2):
                sink.write(ramp(format, phase))
        coolvid.encode(source, stream, CONFIG)
        made[name] = source, stream
    return made


def frames_of(path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def decoded_of(stream, folder) -> list[Frame]:
    format = coolvid.read_info(stream).header.format
    words = f"{format.width}x{format.height}_25p_{format.pixel_format.value}_{format.bit_depth}b"
    path = folder / f"decoded_{words}{'.rgb' if format.pixel_format is PixelFormat.RGB else '.yuv'}"
    coolvid.decode(stream, path)
    return frames_of(path)


def tiles(board: Frame, source: VideoFormat) -> tuple[int, list[Frame], list[np.ndarray]]:
    """(scale, the three pictures without bars, luma of the three bars) of a row."""
    width = (board.width - 2 * GAP) // 3
    scale = width // (source.width + source.width % 2)
    height = (source.height + source.height % 2) * scale
    format, pictures, bars = VideoFormat(height, width, PixelFormat.YUV420, 8), [], []
    for i in range(3):
        left = i * (width + GAP)
        y, u, v = board.planes
        chroma = (plane[-height // 2 :, left // 2 : (left + width) // 2] for plane in (u, v))
        pictures.append(Frame((y[-height:, left : left + width], *chroma), format))
        bars.append(y[:-height, left : left + width])
    return scale, pictures, bars


def enlarged(plane, scale):
    return np.kron(plane, np.ones((scale, scale), dtype=np.uint16))


def test_the_three_pictures_are_source_decoded_and_difference(clips, tmp_path):
    source, stream = clips["even"]
    out = tmp_path / "review.y4m"
    assert make_review(stream, source, out, amplify=3) == 2
    for shown, a, b in zip(frames_of(out), frames_of(source), decoded_of(stream, tmp_path), strict=True):
        scale, pictures, _ = tiles(shown, FORMATS["even"])
        assert scale == 5
        for picture, expected in zip(pictures, (a, b, difference(a, b, 3)), strict=True):
            for found, plane in zip(picture.planes, expected.planes, strict=True):
                np.testing.assert_array_equal(found, enlarged(plane, scale))


def test_ten_bits_and_odd_sizes_are_shown_in_eight(clips, tmp_path):
    source, stream = clips["odd10"]
    make_review(stream, source, tmp_path / "review.y4m")
    a = frames_of(source)[0]
    scale, pictures, _ = tiles(frames_of(tmp_path / "review.y4m")[0], FORMATS["odd10"])
    luma, u = pictures[0].planes[0], pictures[0].planes[1]
    rounded = [np.minimum((plane + 2) // 4, 255) for plane in a.planes]
    np.testing.assert_array_equal(luma[: 45 * scale, : 67 * scale], enlarged(rounded[0], scale))
    np.testing.assert_array_equal(u, enlarged(rounded[1], scale))
    np.testing.assert_array_equal(luma[-1], luma[-1 - scale])


def test_444_keeps_its_luma_and_halves_its_chroma(clips, tmp_path):
    source, stream = clips["full444"]
    make_review(stream, source, tmp_path / "review.y4m")
    a = frames_of(source)[1]
    scale, pictures, _ = tiles(frames_of(tmp_path / "review.y4m")[1], FORMATS["full444"])
    np.testing.assert_array_equal(pictures[0].planes[0], enlarged(a.planes[0], scale))
    large = enlarged(a.planes[1], scale)
    means = (large[::2, ::2] + large[1::2, ::2] + large[::2, 1::2] + large[1::2, 1::2] + 2) // 4
    np.testing.assert_array_equal(pictures[0].planes[1], means)


def test_rgb_becomes_bt709(clips, tmp_path):
    source, stream = clips["rgb"]
    make_review(stream, source, tmp_path / "review.y4m")
    r, g, b = (plane / 255 for plane in frames_of(source)[0].planes)
    scale, pictures, _ = tiles(frames_of(tmp_path / "review.y4m")[0], FORMATS["rgb"])
    luma = np.round(16 + 219 * (0.2126 * r + 0.7152 * g + 0.0722 * b)).astype(np.uint16)
    np.testing.assert_array_equal(pictures[0].planes[0][: 33 * scale, : 50 * scale], enlarged(luma, scale))
    u = 128 + 224 * (b - (0.2126 * r + 0.7152 * g + 0.0722 * b)) / 1.8556
    assert np.abs(pictures[0].planes[1][: 16 * scale : scale, : 24 * scale : scale] - u[:32:2, :48:2]).max() < 8


@pytest.mark.parametrize("name", FORMATS)
def test_texts_are_there_and_whole(clips, name, tmp_path):
    source, stream = clips[name]
    make_review(stream, source, tmp_path / "review.y4m")
    for shown in frames_of(tmp_path / "review.y4m"):
        for bar in tiles(shown, FORMATS[name])[2]:
            upper, lower = bar[: len(bar) // 2], bar[len(bar) // 2 :]
            assert upper.max() > 200
            assert lower.max() > 200
            assert bar[:, -GAP:].max() == bar[:, : GAP - 1].max() == bar[-2:].max() == bar[0].max() == 16


@pytest.mark.parametrize("name", FORMATS)
def test_players_get_420_of_8_bits(clips, name, tmp_path):
    source, stream = clips[name]
    make_review(stream, source, tmp_path / "review.mp4")
    with open_source(tmp_path / "review.mp4") as video:
        assert (video.format.pixel_format, video.format.bit_depth, video.n_frames) == (PixelFormat.YUV420, 8, 2)


def packet(n_bytes):
    return SimpleNamespace(display_index=1, frame_type=FrameType.B, references=(0, 2), n_bytes=n_bytes)


@pytest.mark.parametrize("size, is_row, scale", [((1080, 1920), False, 1), ((288, 352), True, 1), ((17, 16), True, 20)])
@pytest.mark.parametrize("n_bytes", [10, 40_000_000])
def test_boards_of_all_sizes(size, is_row, scale, n_bytes):
    """Large pictures stand above each other; the text of a huge packet is smaller, but there."""
    format = VideoFormat(*size, PixelFormat.YUV420, 8)
    board = Board.of(format, [packet(n_bytes)], 4)
    assert (board.is_row, board.scale) == (is_row, scale)
    assert board.format.width <= 4096
    shown = board.draw(packet(n_bytes), ramp(format, 0), ramp(format, 1))
    assert shown.format == board.format
    bar = shown.planes[0][: board.bar_height]
    assert bar.max() > 200
    if not is_row:
        assert shown.planes[0].shape == (3 * (1080 + board.bar_height) + 2 * GAP, 1920)
        assert bar[:, -GAP:].max() == 16


def test_difference_is_amplified_around_grey_and_clipped():
    format = VideoFormat(16, 16, PixelFormat.YUV444, 10)
    a, b = (Frame(tuple(np.full((16, 16), v, np.uint16) for v in values), format) for values in
            ((500, 600, 0), (503, 598, 1023)))  # fmt: skip
    assert [int(plane[0, 0]) for plane in difference(a, b, 4).planes] == [512 + 12, 512 - 8, 1023]
    assert [int(plane[0, 0]) for plane in difference(a, a, 4).planes] == [512] * 3


def test_another_source_is_refused(clips, tmp_path):
    _, stream = clips["even"]
    with pytest.raises(InputError, match=r"64x48 8-bit yuv444, but even\.cvd is 64x48 8-bit yuv420"):
        make_review(stream, clips["full444"][0], tmp_path / "review.mp4")
    short = tmp_path / "short_64x48_25p_yuv420_8b.yuv"
    with open_sink(short, FORMATS["even"], Fraction(25), ColorInfo()) as sink:
        sink.write(ramp(FORMATS["even"], 0))
    with pytest.raises(InputError, match="has 1 frame, but the stream 2"):
        make_review(stream, short, tmp_path / "review.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [short.name]


@pytest.mark.parametrize("amplify", [0, -1, 1000, float("nan")])
def test_amplify_has_bounds(clips, amplify, tmp_path):
    with pytest.raises(ConfigError, match="amplify"):
        make_review(clips["even"][1], clips["even"][0], tmp_path / "review.mp4", amplify=amplify)


def test_a_missing_pillow_is_named(clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pip install 'coolvid\[review\]'"):
        make_review(clips["even"][1], clips["even"][0], tmp_path / "review.mp4")


def test_the_command_writes_beside_and_reads_as_encode_does(clips, tmp_path, monkeypatch):
    source, stream = clips["even"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["review", str(stream), "--source", str(source), "--amplify", "8"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "even_review.mp4: 2 frames"
    bare = tmp_path / "bare.yuv"
    bare.write_bytes(source.read_bytes())
    described = ["--size", "64x48", "--fps", "25", "--pix-fmt", "yuv420p", "-q", "-o", "b.mkv"]
    result = CliRunner().invoke(main, ["review", str(stream), "--source", str(bare), *described])
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "b.mkv").stat().st_size > 1000


def test_the_command_does_not_overwrite_its_inputs(clips):
    source, stream = clips["even"]
    for target in (source, stream):
        before = target.read_bytes()
        result = CliRunner().invoke(main, ["review", str(stream), "--source", str(source), "-o", str(target)])
        assert result.exit_code == 2
        assert target.read_bytes() == before
