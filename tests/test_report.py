"""The report page: every frame, true figures and maps, nothing from elsewhere; and that it works in a browser."""

import base64
import io
import json
import math
import re
import shutil
import socket
import time
import tomllib
import zlib
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from coolvid_cli.main import main

import coolvid
from coolvid import EncodeConfig, Frame, PixelFormat, SourceSpec, StructureConfig, VideoFormat
from coolvid.encoding import candidates
from coolvid.errors import ConfigError, InputError, OutputError
from coolvid.media.still import still
from coolvid.picture.quality import SequenceQuality, psnr, ssim
from coolvid.picture.types import ColorInfo
from coolvid.study.curves import BdRate, Comparison, Point, write_comparison
from coolvid.study.inspection import inspect_stream
from coolvid.study.report.page import SCRIPTS, asset
from coolvid.study.report.points import read_points
from coolvid.study.report.views import PAGE_PIXELS, choose_divisor, reduce_plane

VIDEOS = {
    "b": (5, VideoFormat(33, 50, PixelFormat.YUV420, 8), StructureConfig(gop=4)),
    "low delay": (3, VideoFormat(16, 35, PixelFormat.YUV420, 10), StructureConfig(low_delay=True)),
    "intra": (2, VideoFormat(24, 32, PixelFormat.YUV444, 8), StructureConfig(gop=1)),
    "picture": (1, VideoFormat(21, 16, PixelFormat.RGB, 8), StructureConfig()),
    "copies": (3, VideoFormat(32, 48, PixelFormat.YUV420, 8), StructureConfig(gop=2)),
}
POINT = {"codec": "x", "setting": "crf 30", "n_bytes": 90, "bpp": 0.5, "quality": {"psnr_db": 31.0, "ssim": 0.9}}
VOID = {"meta", "link", "input", "br"}


def moving(n_frames, format):
    """Blocks that move by two pixels a frame."""
    rng = np.random.default_rng(5)
    texture = np.kron(rng.integers(16, 236, (9, 16)), np.ones((4, 4))) * (format.peak // 255)
    frames = []
    for t in range(n_frames):
        steps = (2 * t * w // format.width for _, w in format.plane_shapes)
        planes = (texture[:h, x : x + w] for x, (h, w) in zip(steps, format.plane_shapes, strict=True))
        frames.append(Frame(tuple(np.ascontiguousarray(plane, dtype=np.uint16) for plane in planes), format))
    return frames


def raw_bytes(frame):
    sample = "u1" if frame.format.bit_depth == 8 else "<u2"
    if frame.format.pixel_format is PixelFormat.RGB:
        return np.stack(frame.planes, axis=-1).astype(sample).tobytes()
    return b"".join(plane.astype(sample).tobytes() for plane in frame.planes)


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """A folder with NAME.cvd and its source NAME.yuv for each of VIDEOS. In "copies" all P and B frames are copies, in
    the others none is."""
    folder = tmp_path_factory.mktemp("report")
    for name, (n_frames, format, structure) in VIDEOS.items():
        config = EncodeConfig(preset="fast", iterations=20, lmbda=3e-4, structure=structure, threads=1)
        frames = moving(n_frames, format)
        with pytest.MonkeyPatch.context() as patch:
            if name == "copies":
                patch.setattr(candidates, "COPY_TOLERANCE", math.inf)
            else:
                patch.setattr(candidates, "copies_of", lambda job, objective: [])
            coolvid.encode_frames(frames, folder / f"{name}.cvd", config)
        (folder / f"{name}.yuv").write_bytes(b"".join(map(raw_bytes, frames)))
    return folder


def opening(name):
    format = VIDEOS[name][1]
    names = {("yuv420", 8): "yuv420p", ("yuv420", 10): "yuv420p10le", ("yuv444", 8): "yuv444p", ("rgb", 8): "rgb24"}
    pix_fmt = names[format.pixel_format.value, format.bit_depth]
    return {"source_spec": SourceSpec((format.width, format.height), Fraction(25), pix_fmt)}


class Page(HTMLParser):
    """A page that checks its own nesting. data: its JSON; rows: cells of the table of frames."""

    def __init__(self, path):
        super().__init__()
        self.text = Path(path).read_text(encoding="utf-8")
        self.open, self.tags, self.rows, self.scripts = [], [], [], []
        self.feed(self.text)
        self.close()
        assert not self.open
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        if self.open and self.open[-1] == "td":
            self.rows[-1].append(text)


def unpack(plane):
    """Inverse of how the page carries integers, in real units."""
    height, width = plane["height"], plane["width"]
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(plane["data"])), np.uint8).reshape(2, height, width)
    differences = (low.astype(np.uint16) | high.astype(np.uint16) << 8).astype(np.int16)
    return np.cumsum(differences, axis=1, dtype=np.int16) / plane["steps"]


@pytest.fixture(scope="module")
def page(streams):
    """The page of the stream with I, P and B frames, with everything a page can have."""
    points = streams / "points.json"
    points.write_text(json.dumps([POINT, {**POINT, "bpp": 1.0, "quality": {"psnr_db": 35.0}}]))
    out = streams / "b.html"
    coolvid.report(streams / "b.cvd", out, source=streams / "b.yuv", compare=points, **opening("b"))
    return Page(out)


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("with_source", [False, True])
def test_every_stream_becomes_a_page(streams, tmp_path, name, with_source):
    given = {"source": streams / f"{name}.yuv", **opening(name)} if with_source else {}
    done = coolvid.report(streams / f"{name}.cvd", tmp_path / "a.html", **given)
    page, n_frames = Page(tmp_path / "a.html"), VIDEOS[name][0]
    assert done.n_frames == n_frames and done.shown == tuple(range(n_frames)) and done.divisor == 1
    assert done.n_bytes == (tmp_path / "a.html").stat().st_size
    assert [frame["index"] for frame in page.data["frames"]] == list(range(n_frames))
    assert [row[0] for row in page.rows if row] == [str(i) for i in range(n_frames)]
    assert list(page.data["views"]) and sorted(page.data["views"]) == sorted(map(str, range(n_frames)))
    for view in page.data["views"].values():
        assert ("source" in view["pictures"]) == with_source


def test_nothing_comes_from_elsewhere(page):
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert links == ["data:,"]
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", page.text)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page.text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a vocabulary, not a place
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_figures_are_those_of_the_library(streams, page):
    info = {packet.display_index: packet for packet in coolvid.read_info(streams / "b.cvd").packets}
    for frame in page.data["frames"]:
        packet = info[frame["index"]]
        assert (frame["type"], tuple(frame["references"])) == (packet.frame_type.name, packet.references)
        assert frame["predictor"] == packet.predictor and sum(frame["bits"].values()) == 8 * packet.n_bytes
    assert [frame["depth"] for frame in page.data["frames"]] == [0, 3, 2, 3, 1]
    decoded = {found.info.display_index: found.picture for found in inspect_stream(streams / "b.cvd")}
    for i, original in enumerate(moving(*VIDEOS["b"][:2])):
        assert page.data["frames"][i]["psnr_db"] == pytest.approx(psnr(original, decoded[i]))
        assert page.data["frames"][i]["ssim"] == pytest.approx(ssim(original, decoded[i]))


def test_maps_are_the_integers_of_the_decoder(streams, page):
    for found in inspect_stream(streams / "b.cvd"):
        view = page.data["views"][str(found.info.display_index)]
        for branch, coolchic in found.coded.coolchics.items():
            for grid, latent, bits in zip(
                view["branches"][branch], coolchic.latents, found.latent_bits[branch], strict=True
            ):
                assert bool(latent.any()) == ("values" in grid)
                if latent.any():
                    assert np.array_equal(unpack(grid["values"]), latent)
                    assert np.abs(unpack(grid["bits"]) - bits).max() <= 1 / 32
        for flow, sent in zip(found.parts.flow, view["flow"], strict=True):
            assert np.array_equal(np.stack([unpack(sent["x"]), unpack(sent["y"])]), flow / 64)
        assert np.abs(unpack(view["bits"]) - found.bits_per_pixel()).max() <= 1 / 512
        assert list(view["weights"]) == ["alpha", "beta"][: len(found.info.references)]


def test_copies_have_motion_but_neither_latents_nor_networks(streams, tmp_path):
    coolvid.report(streams / "copies.cvd", tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    for frame in page.data["frames"]:
        view = page.data["views"][str(frame["index"])]
        assert frame["is_copy"] == (frame["type"] != "I") == (not view["branches"])
        if frame["is_copy"]:
            assert list(frame["bits"]) == ["header"] and frame["predictor"] is None and frame["unchanged"] == []
            assert not unpack(view["bits"]).any() and len(view["flow"]) == len(frame["references"])
            assert view["pictures"]["prediction"] == view["pictures"]["decoded"]


def test_a_copy_of_one_reference_shows_it_once(tmp_path, monkeypatch):
    copies = candidates.copies_of
    monkeypatch.setattr(candidates, "COPY_TOLERANCE", math.inf)
    monkeypatch.setattr(candidates, "copies_of", lambda job, objective: copies(job, objective)[1:2])  # without the mean
    config = EncodeConfig(preset="fast", iterations=20, lmbda=3e-4, structure=StructureConfig(gop=2), threads=1)
    coolvid.encode_frames(moving(3, VideoFormat(32, 48, PixelFormat.YUV420, 8)), tmp_path / "a.cvd", config)
    coolvid.report(tmp_path / "a.cvd", tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    view = data["views"]["1"]
    assert data["frames"][1]["is_copy"] and data["frames"][1]["references"] == [0]
    assert len(view["flow"]) == len(view["translation"]) == 1 and list(view["weights"]) == ["alpha"]


def test_pictures_are_lossless(streams):
    frame = moving(1, VideoFormat(21, 16, PixelFormat.RGB, 8))[0]
    mime, data = still(frame, ColorInfo())
    picture = next(av.open(io.BytesIO(data)).decode(video=0)).to_ndarray(format="rgb24")
    assert mime in ("image/webp", "image/png")
    assert np.array_equal(picture, np.stack(frame.planes, axis=-1))
    small = next(av.open(io.BytesIO(still(frame, ColorInfo(), 2)[1])).decode(video=0))
    assert (small.width, small.height) == (8, 11)


@pytest.mark.parametrize("height, width", [(33, 50), (16, 35), (34, 61)])
@pytest.mark.parametrize("divisor", [1, 2])
def test_a_still_does_not_depend_on_what_memory_held(height, width, divisor):
    """swscale, left to itself, reads a little beyond the rows of 4:2:0 at such sizes."""
    (frame,) = moving(1, VideoFormat(height, width, PixelFormat.YUV420, 8))
    expected = still(frame, ColorInfo(), divisor)
    sizes = np.random.default_rng(0).integers(1, 20_000, 100)
    kept = []
    for i, size in enumerate(sizes):
        kept = [*kept[-20:], np.full(size, i, np.uint8)]
        assert still(frame, ColorInfo(), divisor) == expected


@pytest.mark.parametrize(
    "how, wanted",
    [
        ("first", [[1, -7], [2, 5]]),
        ("mean", [[0.5, -2.5], [2, 5]]),
        ("sum", [[2, -5], [4, 5]]),
        ("extreme", [[4, -7], [2, 5]]),
    ],
)
def test_planes_get_smaller_by_blocks(how, wanted):
    plane = np.array([[1, -3, -7], [0, 4, 2], [2, 2, 5]])
    assert reduce_plane(plane, 2, how).tolist() == wanted
    assert reduce_plane(plane, 1, how) is plane


def test_long_and_large_streams_stay_within_bounds(streams, tmp_path, monkeypatch):
    hd = VideoFormat(1080, 1920, PixelFormat.YUV420, 8)
    assert choose_divisor(hd, 1) == 1 and choose_divisor(hd, 4) == 2
    assert 100 * 1080 * 1920 / choose_divisor(hd, 100) ** 2 <= PAGE_PIXELS
    monkeypatch.setattr("coolvid.study.report.views.PAGE_PIXELS", 1000)
    monkeypatch.setattr("coolvid.study.report.summary.MAX_CHOSEN", 3)
    done = coolvid.report(streams / "b.cvd", tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert (done.shown, done.divisor, len(page.data["frames"])) == ((0, 1, 4), 4, 5)
    view = page.data["views"]["1"]
    assert unpack(view["bits"]).shape == unpack(view["flow"][0]["x"]).shape == (9, 13)
    grids = view["branches"]["residue"]
    assert [grid["block"] for grid in grids if not grid["hyper"]][:3] == [4, 2, 1]


def test_words_from_outside_stay_words(streams, tmp_path):
    name = "<script>alert(1)</script>&.cvd".replace("/", "")
    (tmp_path / name).write_bytes((streams / "picture.cvd").read_bytes())
    points = tmp_path / "points.json"
    points.write_text(json.dumps([{**POINT, "codec": "</script><b>"}]))
    coolvid.report(tmp_path / name, tmp_path / "a.html", compare=points)
    page = Page(tmp_path / "a.html")
    assert page.data["name"] == name and page.data["curves"]["curves"][0]["codec"] == "</script><b>"
    assert "b" not in [tag for tag, _ in page.tags]


def test_points_come_from_a_comparison_or_a_list(tmp_path):
    quality = SequenceQuality(3, 31.5, (30.0, 40.0, 41.0), 0.9, None)
    points = tuple(Point("x", f"crf {i}", "x.obu", 10 * i, 0.1 * i, quality, 80.0) for i in (2, 1))
    rates = (BdRate("x", "y", None, None, "no overlap"),)
    comparison = Comparison("clip", VIDEOS["b"][1], Fraction(25), 3, points, rates)
    path = write_comparison(comparison, tmp_path)[1]
    found = read_points(path)
    same = {"psnr_db": 31.5, "ssim": 0.9, "vmaf": 80.0}
    points = [{"codec": "x", "setting": f"crf {i}", "bytes": 10 * i, "bpp": 0.1 * i, **same} for i in (1, 2)]
    assert found["curves"] == [{"codec": "x", "points": points}]
    assert found["bd_rates"] == [{"codec": "x", "anchor": "y", "percent": None}] and found["source"] == "clip"
    path.write_text(json.dumps([{"codec": "z", "bytes": 9, "bpp": 1, "vmaf": 90}, {"codec": "broken"}, 7]))
    point = {"codec": "z", "setting": "", "bytes": 9, "bpp": 1, "vmaf": 90}
    assert read_points(path)["curves"] == [{"codec": "z", "points": [point]}]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"curves": 3}', '[{"codec": "x", "bpp": 0, "ssim": 1}]'])
def test_files_without_points_are_refused(tmp_path, text):
    (tmp_path / "points.json").write_text(text)
    with pytest.raises(InputError, match="points"):
        read_points(tmp_path / "points.json")


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"frames": (0, 9)}, ConfigError, r"the stream has no frame 9; choose from 0\.\.4"),
        ({"frames": ()}, ConfigError, "name at least one"),
        ({"source": "intra.yuv", **opening("intra")}, ConfigError, "the stream 50x33 yuv420 8 bit"),
        ({"source": "short.yuv", **opening("b")}, InputError, r"short.yuv has 2 frames, but the stream 5; give"),
        ({"compare": "absent.json"}, InputError, "cannot read .*absent.json"),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_nothing(streams, tmp_path, given, error, message):
    size = (streams / "b.yuv").stat().st_size // 5
    (streams / "short.yuv").write_bytes((streams / "b.yuv").read_bytes()[: 2 * size])
    paths = {key: streams / value for key, value in given.items() if key in ("source", "compare")}
    with pytest.raises(error, match=message):
        coolvid.report(streams / "b.cvd", tmp_path / "a.html", **{**given, **paths})
    with pytest.raises(OutputError, match="does not exist; create it"):
        coolvid.report(streams / "b.cvd", tmp_path / "none" / "a.html")
    assert not list(tmp_path.iterdir())


def test_the_command(streams, tmp_path):
    def invoke(*args):
        return CliRunner().invoke(main, ["report", *map(str, args)])

    stream = tmp_path / "a.cvd"
    stream.write_bytes((streams / "b.cvd").read_bytes())
    source = ["--source", streams / "b.yuv", "--size", "50x33", "--fps", "25", "--pix-fmt", "yuv420p"]
    result = invoke(stream, "--frames", "0,-1", *source)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r".*a\.html: 5 frames, pictures of 0, 4, 0\.\d MB\n", result.output)
    assert list(Page(tmp_path / "a.html").data["views"]) == ["0", "4"]
    assert invoke(stream, "-q", "-o", tmp_path / "b.html").output == ""
    assert "say how" not in result.output and "give --source as well" in invoke(stream, "--start", "2").output
    refused = invoke(stream, "-o", stream)
    assert refused.exit_code == 2 and "is the input file" in refused.output


def test_assets_are_shipped():
    """Every asset is among the package data, and every script is one of the page's."""
    listed = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "study/report/assets/*" in listed["package-data"]["coolvid"]
    folder = Path(coolvid.__file__).parent / "study" / "report" / "assets"
    assert {path.stem for path in folder.glob("*.js")} == set(SCRIPTS)
    assert asset("page.html").startswith("<!doctype html>")


# In a browser ----------------------------------------------------------------------------------------------------

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGE_S = 60  # longest wait for the driver: to start Chromium, to load a page, to run a script
in_browser = pytest.mark.timeout(4 * PAGE_S)  # the first one also encodes the streams and starts Chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PAGE_S)  # selenium takes it for every answer of the driver, the start's too
    try:
        session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    finally:
        socket.setdefaulttimeout(before)
    session.set_page_load_timeout(PAGE_S)
    session.set_script_timeout(PAGE_S)
    yield session
    session.quit()


def show(browser, path, width=1280, scheme="light"):
    """Open a page at this width and colour scheme and wait until its picture is drawn; returns a way to ask it."""
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(Path(path).as_uri())

    def ask(script, *args):
        return browser.execute_script(f"return {script}", *args)

    wait(lambda: ask("document.getElementById('pair').dataset.frame"))
    return ask


def wait(condition, seconds=10):
    """The first true value of the condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.02)
    return value


def press(browser, target, keys):
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, target).send_keys(keys)


@in_browser
@pytest.mark.parametrize("name", ["b", "low delay", "intra", "picture", "copies"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_draw_without_errors_and_fit(browser, streams, page, tmp_path, name, width, scheme):
    path = streams / "b.html"
    if name != "b":
        path = tmp_path / "a.html"
        coolvid.report(streams / f"{name}.cvd", path)
    ask = show(browser, path, width, scheme)
    assert ask("innerWidth") == width
    assert ask("document.documentElement.scrollWidth") <= width
    ground = [int(value) for value in re.findall(r"\d+", ask("getComputedStyle(document.body).backgroundColor"))]
    assert (sum(ground) > 600) == (scheme == "light")
    assert ask("document.querySelectorAll('#timeline .bar').length") >= VIDEOS[name][0]
    assert ask("document.querySelectorAll('#chips input').length") == VIDEOS[name][0]
    assert (
        ask("frameOf.get(chosen.index).is_copy")
        == (name == "copies")
        == ask("document.getElementById('latents').hidden")
    )
    assert (ask("document.querySelectorAll('#latent-tiles canvas').length") >= 1) == (name != "copies")
    motion = {"b": 4, "low delay": 2, "copies": 2}.get(name, 0)
    assert ask("document.querySelectorAll('#motion-tiles figure').length") == motion
    assert ask("document.querySelectorAll('#curves-plot .mark').length") == (3 if name == "b" else 0)
    assert browser.get_log("browser") == []


@in_browser
def test_the_divider_moves_by_mouse_touch_and_keys(browser, streams, page):
    from selenium.webdriver import Keys

    ask = show(browser, streams / "b.html")
    at = "Number(document.getElementById('divider').getAttribute('aria-valuenow'))"
    assert ask(at) == 50
    press(browser, "#divider", Keys.ARROW_LEFT * 3)
    assert ask(at) == 44
    press(browser, "#divider", Keys.END)
    assert ask(at) == 100 and ask("document.getElementById('after').style.clipPath") == "inset(0px 0px 0px 100%)"
    ask("document.getElementById('divider').scrollIntoView({block: 'center'})")
    box = ask("Object.values(document.getElementById('pair').getBoundingClientRect().toJSON())")
    x, y = box[0] + box[2] / 4, box[1] + box[3] / 2
    for kind, place in (("mousePressed", box[0] + box[2] - 2), ("mouseMoved", x), ("mouseReleased", x)):
        event = {"type": kind, "x": place, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    assert abs(ask(at) - 25) <= 1
    touch = {"x": box[0] + box[2] * 0.6, "y": y}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
    for step in range(1, 6):
        moved = {"x": touch["x"] + step * box[2] * 0.04, "y": y}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [moved]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert abs(wait(lambda: ask(at) > 60 and ask(at)) - 80) <= 2
    press(browser, "#flip", Keys.ENTER)
    assert ask(at) == 0


@in_browser
def test_frames_are_picked_by_chip_button_key_and_click(browser, streams, page):
    from selenium.webdriver import Keys

    ask = show(browser, streams / "b.html")

    def is_shown(index):
        heading = ask("document.querySelector('#details h3').textContent")
        return ask("document.getElementById('pair').dataset.frame") == str(index) and heading.startswith(
            f"Frame {index},"
        )

    assert is_shown(ask("chosen.index"))
    press(browser, "#chips input[value='0']", Keys.SPACE)
    wait(lambda: is_shown(0))
    assert ask("document.getElementById('motion').hidden")
    press(browser, "#next", Keys.ENTER)
    wait(lambda: is_shown(1))
    assert not ask("document.getElementById('motion').hidden")
    press(browser, "#timeline .scroller", Keys.END)
    wait(lambda: is_shown(4))
    ask("document.querySelector('.hit[data-frame=\"2\"]').dispatchEvent(new MouseEvent('click'))")
    wait(lambda: is_shown(2))
    assert ask("document.querySelector('#chips input:checked').value") == "2"
    assert browser.get_log("browser") == []


NETWORKS_FROM = [
    ({"is_copy": False, "predictor": None}, "not predicted"),
    ({"is_copy": False, "predictor": -1}, "the prior"),
    ({"is_copy": False, "predictor": 0}, "frame 0"),
    ({"is_copy": True, "predictor": None}, "none: a copy of its references"),
]


@in_browser
@pytest.mark.parametrize("frame, words", NETWORKS_FROM)
def test_details_say_where_networks_come_from(browser, streams, tmp_path, frame, words):
    """Whatever the first frame's packet says: as if it said this."""
    path = tmp_path / "a.html"
    coolvid.report(streams / "copies.cvd", path)
    ask = show(browser, path)
    ask("(Object.assign(frames[0], arguments[0]), choose(0))", frame)
    wait(lambda: ask("document.getElementById('pair').dataset.frame") == "0")
    facts = ask("[...document.querySelectorAll('#details dt, #details dd')].map((each) => each.textContent)")
    assert facts[facts.index("networks from") + 1] == words
    arrows = ask("document.querySelectorAll('#timeline path.inherit').length")
    assert arrows == (1 if frame["predictor"] == 0 else 0)
    assert browser.get_log("browser") == []


@in_browser
def test_copies_show_motion_without_latents_and_intra_frames_the_reverse(browser, streams, tmp_path):
    coolvid.report(streams / "copies.cvd", tmp_path / "a.html")
    ask = show(browser, tmp_path / "a.html")
    for index in (1, 0, 2):
        ask(f"choose({index})")
        wait(lambda index=index: ask("document.getElementById('pair').dataset.frame") == str(index))
        assert ask("document.getElementById('latents').hidden") == (index != 0)
        assert ask("document.getElementById('motion').hidden") == (index == 0)
    assert browser.get_log("browser") == []


@in_browser
def test_a_frame_without_pictures_says_so(browser, streams, tmp_path):
    coolvid.report(streams / "b.cvd", tmp_path / "a.html", frames=(0, 4))
    ask = show(browser, tmp_path / "a.html")
    ask("choose(2)")
    assert "coolvid report --frames 2" in ask("document.getElementById('no-picture').textContent")
    assert ask("document.getElementById('stage').hidden") and ask("document.getElementById('latents').hidden")
    ask("choose(0)")
    wait(lambda: not ask("document.getElementById('stage').hidden"))


@in_browser
def test_drawn_pictures_and_maps_are_exact(browser, streams, page):
    ask = show(browser, streams / "b.html")
    index = ask("chosen.index")
    found = next(iter(inspect_stream(streams / "b.cvd", [index])))
    values = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "unpack(report.views[chosen.index].bits).then(({values, steps}) => done([...values].map((v) => v / steps)))"
    )
    assert np.abs(np.reshape(values, (33, 50)) - found.bits_per_pixel()).max() <= 1 / 512
    picture = next(av.open(io.BytesIO(still(found.picture, ColorInfo())[1])).decode(video=0)).to_ndarray(format="rgb24")
    ask("(document.getElementById('right').value = 'decoded', redraw())")
    drawn = "[...document.getElementById('after').getContext('2d').getImageData(0, 0, 50, 33).data]"
    wait(lambda: np.array_equal(np.reshape(ask(drawn), (33, 50, 4))[..., :3], picture))
    for layer in ("difference", "prediction", "flow0", "alpha", "bits"):
        ask(f"(document.getElementById('left').value = '{layer}', redraw())")
        words = {"flow0": "motion", "alpha": "mask", "bits": "bits per pixel"}.get(layer, layer)
        wait(lambda words=words: words in ask("document.getElementById('before-name').textContent"))
    assert browser.get_log("browser") == []


@in_browser
def test_colours_of_motion_are_those_of_the_wheel(browser, streams, page):
    ask = show(browser, streams / "b.html")
    hues = {name: ask(f"flowColor({x}, {y})") for name, x, y in (("right", 1, 0), ("none", 0, 0), ("left", -1, 0))}
    assert hues["none"] == [255, 255, 255]
    assert hues["right"] == [255, 0, 0] and hues["left"][0] == 0 and hues["left"][2] == 255


@in_browser
def test_the_theme_can_be_chosen(browser, streams, page):
    ask = show(browser, streams / "b.html", scheme="light")
    for theme, is_dark in (("dark", True), ("light", False)):
        browser.execute_script(
            "const select = document.getElementById('theme');"
            f"select.value = '{theme}'; select.dispatchEvent(new Event('change'))"
        )
        assert (ask("color('--ground')[0]") < 60) == is_dark
    browser.execute_script("localStorage.clear()")
