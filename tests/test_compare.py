"""Curves of coolvid and of other encoders: real encodes of tiny clips, kept points, and the figures made of them."""

import csv
import io
import json
import math
import shlex
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest
from click.testing import CliRunner
from coolvid_cli.compare import parse_lmbdas, parse_peers
from coolvid_cli.main import main

from coolvid import EncodeConfig, PixelFormat, StructureConfig, VideoFormat
from coolvid.errors import ConfigError, InputError, MissingExtra, OutputError
from coolvid.events import PointDone
from coolvid.media import SourceSpec, open_source
from coolvid.picture.quality import SequenceQuality, sequence_quality
from coolvid.study.compare import compare, cover, last_reaching
from coolvid.study.curves import BdRate, Comparison, Point, plot_comparison, write_comparison
from coolvid.study.peers import ENCODERS, NEVER, Peer, Placement, decode_peer, encode_peer, without_settings

TINY = Path(__file__).parents[1] / "sequences" / "tiny"
ORBIT = TINY / "orbit_96x64_30p_yuv420_8b.yuv"
DRIFT = TINY / "drift_67x45_25p_yuv420_10b.yuv"
WEAVE = TINY / "weave_64x48_24p_yuv444_8b.yuv"
CARD = TINY / "card_64x48.png"
QUICK = "--preset fast --iterations 8 --gop 1 --frames 2 --threads 1"
CONFIG = EncodeConfig(preset="fast", iterations=8, structure=StructureConfig(gop=1), n_frames=2, threads=1)


def point(codec: str, rate: float, psnr_db: float) -> Point:
    quality = SequenceQuality(2, psnr_db, (psnr_db, 40.0, 41.0), 0.9, None)
    return Point(codec, f"crf {rate:g}", "x.264", int(rate), rate / 100, quality, None, 1.5)


def parabola(codec: str, factor: float) -> list[Point]:
    return [point(codec, factor * 1000 * 2**i, 30 + 3.0 * i) for i in range(4)]


@pytest.mark.parametrize(
    "text, peer",
    [
        ("x264", Peer("x264", "medium")),
        ("x265:veryslow", Peer("x265", "veryslow")),
        (" svtav1", Peer("svtav1", "4")),
        ("svtav1:10", Peer("svtav1", "10")),
    ],
)
def test_peers_are_written_with_their_preset(text, peer):
    assert Peer.parse(text) == peer
    assert Peer.parse(str(peer)) == peer


@pytest.mark.parametrize("text, word", [("x266", "x264, x265, svtav1"), ("x265:medum", "medium"), ("svtav1:14", "13")])
def test_unknown_peers_name_the_choices(text, word):
    with pytest.raises(ConfigError, match=word):
        Peer.parse(text)


@pytest.mark.parametrize(
    "structure, placement",
    [
        (StructureConfig(), Placement(NEVER, 7)),
        (StructureConfig(gop=4, intra_period=12), Placement(12, 7)),
        (StructureConfig(gop=1), Placement(1, 0)),
        (StructureConfig(low_delay=True), Placement(NEVER, 0)),
        (StructureConfig(low_delay=True, intra_period=5), Placement(5, 0)),
    ],
)
def test_peers_place_frames_as_the_structure_does(structure, placement):
    assert Placement.of(structure) == placement


def test_peers_cannot_follow_explicit_positions():
    with pytest.raises(ConfigError, match="intra_pos"):
        Placement.of(StructureConfig(intra_pos=(3,)))


def test_the_note_of_x264_is_not_counted():
    sps, note, other_sei, picture = b"\x67\x01", b"\x06\x05\xff\x80", b"\x06\x06\x01", b"\x65\x88\x00\x01"
    units = [b"\x00\x00\x00\x01" + sps, b"\x00\x00\x01" + note, b"\x00\x00\x01" + other_sei, b"\x00\x00\x01" + picture]
    assert without_settings(b"".join(units)) == units[0] + units[2] + units[3]
    assert without_settings(picture) == picture


OPEN = Placement()


def peer_stream(path, out, name, placement=OPEN, n=3, **opening):
    peer = Peer.parse(name)
    target = out / f"clip{peer.encoder.suffix}"
    with open_source(path, SourceSpec(**opening)) as source:
        frames = list(islice(source, n))
        done = encode_peer(iter(frames), target, peer, 30, placement, source.fps, source.color)
        decoded = list(decode_peer(target, source.format, source.fps))
    return frames, decoded, done, target


@pytest.mark.parametrize("name", ["x264", "x265", "svtav1:10"])
@pytest.mark.parametrize("path", [ORBIT, DRIFT])
def test_peers_encode_and_decode(path, name, tmp_path):
    """8 bits of even size, and 10 bits of odd size."""
    frames, decoded, done, target = peer_stream(path, tmp_path, name, scale=(99, 71) if path == DRIFT else None)
    assert (done.n_frames, done.n_bytes) == (len(frames), target.stat().st_size)
    assert done.duration_s > 0
    quality = sequence_quality(zip(frames, decoded, strict=True))
    assert 30 < quality.psnr_db < 60
    assert sorted(p.name for p in tmp_path.iterdir()) == [target.name]


def test_the_same_encode_gives_the_same_bytes(tmp_path):
    for name in ("x264", "x265"):
        streams = [peer_stream(ORBIT, tmp_path, name)[3].read_bytes() for _ in range(6)]
        assert len(set(streams)) == 1
        assert b"x26" not in streams[0]


@pytest.mark.parametrize("path, name", [(WEAVE, "svtav1"), (CARD, "svtav1"), (CARD, "x264")])
def test_formats_a_peer_does_not_take(path, name, tmp_path):
    with pytest.raises(InputError, match=f"{name} does not encode"):
        peer_stream(path, tmp_path, name)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (96, 62)])
def test_pictures_too_small_for_x265_are_refused(size, tmp_path):
    with pytest.raises(InputError, match=f"x265 cannot encode {size[0]}x{size[1]} safely.*leave it out"):
        peer_stream(ORBIT, tmp_path, "x265", scale=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path, name", [(WEAVE, "x264"), (WEAVE, "x265"), (CARD, "x265")])
def test_other_formats_stay_what_they_are(path, name, tmp_path):
    frames, decoded, _, _ = peer_stream(path, tmp_path, name, scale=(96, 72))
    assert [f.format for f in decoded] == [f.format for f in frames]
    assert sequence_quality(zip(frames, decoded, strict=True)).psnr_db > 28


@pytest.mark.parametrize("name", ["x264", "x265", "svtav1:10"])
@pytest.mark.parametrize("placement, keys", [(Placement(1, 0), 5), (Placement(2), 3), (Placement(), 1)])
def test_an_intra_frame_every_period(name, placement, keys, tmp_path):
    target = peer_stream(ORBIT, tmp_path, name, placement, 5)[3]
    with av.open(str(target)) as container:
        types = [frame.pict_type for frame in container.decode(video=0)]
    assert types.count(av.video.frame.PictureType.I) == keys


@pytest.mark.parametrize("name", ["x264", "x265"])
def test_low_delay_has_no_b_frames(name, tmp_path):
    target = peer_stream(ORBIT, tmp_path, name, Placement(NEVER, 0), 5)[3]
    with av.open(str(target)) as container:
        assert av.video.frame.PictureType.B not in [frame.pict_type for frame in container.decode(video=0)]


@pytest.mark.parametrize("slope", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("target", [20, 31.3, 35, 44, 90])
def test_last_reaching_finds_the_last_crf(slope, target):
    asked = []

    def psnr_at(crf):
        asked.append(crf)
        return 50 - slope * crf

    reaching = [crf for crf in range(1, 52) if 50 - slope * crf >= target]
    assert last_reaching(psnr_at, target, range(1, 52)) == (reaching[-1] if reaching else 1)
    assert len(asked) == len(set(asked)) <= 10


@pytest.mark.parametrize("n_points", [4, 6])
@pytest.mark.parametrize("span", [(30.1, 38.7), (34.0, 34.6), (10.0, 36.0), (36.0, 90.0), (5.0, 6.0)])
def test_cover_reaches_over_both_ends_of_the_span(span, n_points):
    made = {}

    def point_at(crf):
        assert crf not in made, "encoded twice"
        made[crf] = point("x264", 10000 / crf, 50 - 0.45 * crf)
        return made[crf]

    found = cover(point_at, range(1, 52), span, n_points)
    psnrs = [p.psnr_db for p in found]
    assert psnrs == sorted(psnrs, reverse=True)
    assert max(psnrs) >= span[1] or made[1] in found
    assert min(psnrs) <= span[0] or made[51] in found
    assert len(found) >= (n_points if span[0] > 27.05 and span[1] < 49.55 else 3)


def test_bd_rate_of_two_curves():
    rate = BdRate.of(parabola("coolvid:fast", 0.8), parabola("x265:medium", 1))
    assert (rate.codec, rate.anchor, rate.psnr_span_db) == ("coolvid:fast", "x265:medium", (30, 39))
    assert rate.percent == pytest.approx(-20)


def test_bd_rate_takes_the_cheapest_of_equal_points_and_no_lossless_one():
    own, other = parabola("a", 0.8), parabola("b", 1)
    more = [*other, point("b", 99000, 33.0), point("b", 999000, math.inf)]
    assert BdRate.of(own, more).percent == pytest.approx(-20)


def test_bd_rate_says_why_there_is_none():
    far = [point("x264:medium", 1000 * 2**i, 60 + i) for i in range(3)]
    rate = BdRate.of(parabola("a", 1), far)
    assert rate.percent is None
    assert "share no PSNR" in rate.problem
    assert "two or more" in BdRate.of(parabola("a", 1)[:1], far).problem


def test_points_survive_json():
    for each in (point("x264:medium", 3, 31.5), point("x264:medium", 3, math.inf)):
        text = json.dumps(each.to_json(), allow_nan=False)
        assert Point.from_json(json.loads(text)) == each


def comparison() -> Comparison:
    own, other = parabola("coolvid:fast", 0.8), parabola("x265:medium", 1)
    format = VideoFormat(64, 96, PixelFormat.YUV420, 8)
    return Comparison("orbit.yuv", format, Fraction(30), 2, (*own, *other), (BdRate.of(own, other),))


def test_plot_is_a_png(tmp_path):
    pytest.importorskip("matplotlib")
    plot_comparison(comparison(), tmp_path / "a.png")
    with open_source(tmp_path / "a.png") as source:
        picture = next(source)
    assert min(picture.width, picture.height) > 600
    assert len(set(picture.planes[0].ravel().tolist())) > 10
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_matplotlib_costs_only_the_plot(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    assert all(path.exists() for path in write_comparison(comparison(), tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'coolvid\[plot\]'"):
        plot_comparison(comparison(), tmp_path / "a.png")


def test_files_go_to_folders_that_can_be_written(tmp_path):
    with pytest.raises(OutputError, match="does not exist; create it"):
        write_comparison(comparison(), tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot create the folder"):
        compare(ORBIT, tmp_path / "file", [1e-3], [], CONFIG)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run of the command, real encodes and all."""
    out = tmp_path_factory.mktemp("run") / "compare"
    options = f"--lmbda 1e-2,1e-4 --against x264,svtav1:10 {QUICK} -o {shlex.quote(str(out))}"
    result = CliRunner().invoke(main, ["compare", str(ORBIT), *shlex.split(options)])
    assert result.exit_code == 0, result.output
    return out, result.stdout


def run_again(out, lmbdas=(1e-2, 1e-4), config=CONFIG, **options):
    """compare() with what is in the folder; (comparison, codec and setting of points that were made anew)."""
    new = []

    def listen(event):
        if isinstance(event, PointDone) and event.is_new:
            new.append((event.point.codec, event.point.setting))

    peers = [Peer.parse("x264"), Peer.parse("svtav1:10")]
    return compare(ORBIT, out, lmbdas, peers, config, listen=listen, **options), new


def test_the_command_prints_points_and_savings(made):
    out, text = made
    lines = text.splitlines()
    title = next(i for i, line in enumerate(lines) if line.split()[:3] == ["codec", "setting", "bytes"])
    rows = [line.split() for line in lines[title + 1 :] if line][:4]
    assert rows[0][:3] == ["coolvid:fast", "lmbda", "0.01"]
    assert rows[1][:3] == ["coolvid:fast", "lmbda", "0.0001"]
    assert rows[2][0] == "x264:medium"
    assert sum(line.startswith("BD-rate of coolvid:fast against") for line in lines) == 2
    assert str(out / "comparison.csv") in lines[-1] or str(out / "comparison.csv") in lines[-2]


def test_csv_and_json_hold_what_was_measured(made):
    out, _ = made
    rows = list(csv.DictReader(io.StringIO((out / "comparison.csv").read_text())))
    stored = json.loads((out / "comparison.json").read_text())
    points = [p for curve in stored["curves"] for p in curve["points"]]
    assert stored["source"]["name"] == ORBIT.name
    assert stored["source"]["n_frames"] == 2
    assert [int(row["bytes"]) for row in rows] == [p["n_bytes"] for p in points]
    for row, kept in zip(rows, points, strict=True):
        stream = out / "streams" / kept["stream"]
        assert stream.stat().st_size == int(row["bytes"])
        assert float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (96 * 64 * 2), abs=1e-5)
        assert float(row["kbps"]) == pytest.approx(8 * int(row["bytes"]) * 15 / 1000, abs=1e-2)
        assert float(row["psnr_yuv"]) == pytest.approx(kept["quality"]["psnr_db"], abs=1e-4)
    assert {rate["anchor"] for rate in stored["bd_rates"]} == {"x264:medium", "svtav1:10"}


def test_what_is_there_is_not_made_again(made):
    out, _ = made
    found, new = run_again(out)
    assert new == []
    assert found.to_csv() == (out / "comparison.csv").read_text()
    assert run_again(out, config=EncodeConfig(**{**vars(CONFIG), "threads": 2}))[1] == []


def test_other_settings_are_made_beside_the_old_ones(made):
    out, _ = made
    before = set((out / "streams").iterdir())
    _, new = run_again(out, (1e-2, 1e-4), EncodeConfig(**{**vars(CONFIG), "seed": 1}))
    assert {name for name in new if name[0].startswith("coolvid")} == {
        ("coolvid:fast", "lmbda 0.01"),
        ("coolvid:fast", "lmbda 0.0001"),
    }
    assert before < set((out / "streams").iterdir())


def test_a_lost_measure_is_taken_from_the_stream(made):
    out, _ = made
    stored = json.loads((out / "comparison.json").read_text())
    stream = out / "streams" / stored["curves"][0]["points"][0]["stream"]
    record = stream.with_name(stream.name + ".json")
    kept, time = json.loads(record.read_text()), stream.stat().st_mtime_ns
    record.write_text("{")
    run_again(out)
    again = json.loads(record.read_text())
    assert again == {**kept, "duration_s": None}
    assert stream.stat().st_mtime_ns == time


def test_force_makes_everything_again(made, tmp_path):
    _, first = run_again(tmp_path, (1e-3,))
    assert first[0] == ("coolvid:fast", "lmbda 0.001")
    found, again = run_again(tmp_path, (1e-3,), force=True)
    assert again == first
    assert all("two or more" in rate.problem for rate in found.bd_rates)


def test_lists_on_the_command_line():
    assert parse_lmbdas("1e-2,3e-3") == (1e-2, 3e-3)
    assert parse_peers("x264,x265:slow") == (Peer("x264", "medium"), Peer("x265", "slow"))
    with pytest.raises(ConfigError, match="1e-2,3e-3"):
        parse_lmbdas("1e-2;3e-3")


def test_standard_input_cannot_be_read_again(tmp_path):
    with pytest.raises(InputError, match="several times"):
        compare("-", tmp_path, [1e-3], [Peer.parse("x264")], CONFIG)


def test_every_encoder_names_itself():
    assert all(name in CliRunner().invoke(main, ["compare", "--help"]).output for name in ENCODERS)
