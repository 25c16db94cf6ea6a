"""Streams with right checksums and wrong contents: one line, exit code 2, and little time and memory."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from coolvid_cli import info as info_command
from coolvid_cli.main import main
from fuzz.mutate import GOLDEN, Parts, header_of, loose, opened, with_networks

import coolvid
from coolvid.bitstream.records import BitReader, BitWriter
from coolvid.bitstream.stream import StreamReader
from coolvid.decoding.memory import PROCESS_BYTES, decoding_bytes
from coolvid.decoding.schedule import decode_stream
from coolvid.errors import ConfigError, StreamError
from coolvid.media import SourceSpec, open_sink
from coolvid.picture.quality import psnr
from coolvid.picture.types import MAX_PIXELS, ColorInfo, FrameType, PixelFormat, VideoFormat
from coolvid.study.inspection import inspect_stream
from coolvid.study.report import report
from coolvid.study.report.quality import compare_with_source
from coolvid.study.review import make_review
from pictures import noise

SHARED = Path(__file__).parents[1] / "../shared/cases/streams"
FAR = 16_777_215
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202ered"


def invoke(*args):
    return CliRunner().invoke(main, [str(each) for each in args])


def card() -> Parts:
    return Parts.of((GOLDEN / "card.cvd").read_bytes())


def header_with(header, **changes) -> bytes:
    """A header in which any field has any value."""
    writer, copy = BitWriter(), loose(header)
    vars(copy).update(changes)
    header.layout().write(writer, copy, {})
    return header_of(writer.getvalue())


def renamed(name: str) -> bytes:
    """A stream whose ARM has this name."""
    parts = card()
    table = loose(parts.header.configurations)
    table[0].residue.arm.name = name
    return parts.joined(header_with(parts.header, configurations=table))


def packet_with(packet: bytes, **changes) -> bytes:
    """A packet with other header fields; without its latents if their sizes are among them."""
    reader, header, latents = opened(packet)
    writer = BitWriter()
    dataclasses.replace(header, **changes).write(writer)
    if "latent_sizes" in changes:
        return with_networks(writer, BitReader(reader.data[:latents], reader.position), b"")
    return with_networks(writer, reader, reader.data[latents:])


def of_no_packets() -> bytes:
    return dataclasses.replace(card().header, n_frames=0).pack()


def with_a_gap() -> bytes:
    """Two I frames, the first and the last that a stream can have, and no count of frames."""
    packet = card().packets[0]
    return of_no_packets() + packet + packet_with(packet, display_index=FAR)


def bomb(side: int = 4096) -> bytes:
    """Few bytes for a large picture: networks, and latents that are all zero."""
    parts = card()
    form = VideoFormat(side, side, parts.header.format.pixel_format, 8)
    header = dataclasses.replace(parts.header, format=form)
    return header.pack() + packet_with(parts.packets[0], latent_sizes=(0,))


@pytest.fixture
def stream(tmp_path):
    """A function that writes a stream and returns its path."""

    def write(data: bytes) -> Path:
        path = tmp_path / "hostile.cvd"
        path.write_bytes(data)
        return path

    return write


LOOKS = {
    "info": lambda path: ("info", path),
    "digest": lambda path: ("decode", path, "--digest"),
    "decode": lambda path: ("decode", path, path.with_suffix(".rgb")),
    "range": lambda path: ("decode", path, path.with_suffix(".rgb"), "--range", "-1:"),
    "report": lambda path: ("report", path),
}
REFUSED = {
    "no packets": (of_no_packets(), "the stream has no frames"),
    "gap": (with_a_gap(), f"frame 1 of 0..{FAR} is missing"),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", REFUSED)
def test_frames_that_are_missing_are_one_line(stream, look, name):
    data, words = REFUSED[name]
    path = stream(data)
    result = invoke(*LOOKS[look](path))
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_part_without_complete_frames_says_so(tmp_path):
    path = tmp_path / "a.cvd.part"
    path.write_bytes(card().header.pack())
    assert "0 of 1" in invoke("info", path).stdout
    result = invoke("decode", path, "--digest")
    assert result.exit_code == 2 and "no complete frame yet" in result.stderr


def test_a_part_with_a_gap_shows_the_frames_that_it_has(tmp_path):
    path, seen = tmp_path / "a.cvd.part", []
    path.write_bytes(with_a_gap())
    assert "2 of an unknown number" in invoke("info", path).stdout
    coolvid.decode(path, tmp_path / "a.rgb", listen=seen.append)
    assert seen[0] == coolvid.events.DecodeStarted(2, 2)


def test_frames_of_a_part_meet_their_own_originals(tmp_path):
    form = VideoFormat(48, 64, PixelFormat.RGB, 8)
    frames, source, part = noise(form, 4), tmp_path / "a.rgb", tmp_path / "a.cvd.part"
    with open_sink(source, form, Fraction(25), ColorInfo()) as sink:
        for frame in frames:
            sink.write(frame)
    spec = SourceSpec(size=(64, 48), fps=Fraction(25), pix_fmt="rgb24")
    packet = card().packets[0]
    part.write_bytes(of_no_packets() + packet + packet_with(packet, display_index=3))
    with StreamReader(part) as reader:
        found = compare_with_source(reader, source, spec, (3,), 1, coolvid.events.ignore)
        assert list(found.by_frame) == [0, 3] and found.pictures == {3: frames[3]}
        decoded = list(decode_stream(reader))
    assert found.by_frame[3]["psnr_db"] == psnr(frames[3], decoded[1])
    assert make_review(part, source, tmp_path / "a.mkv", source_spec=spec) == 2
    part.write_bytes(of_no_packets())
    with pytest.raises(StreamError, match="no complete frame"):
        make_review(part, source, tmp_path / "b.mkv", source_spec=spec)


NAMES = {
    "escapes": (ESCAPES, r"\x1b[2J\x1b]0;owned\x07\u202ered"),
    "lines": ("mlp\nframe 0 I", r"mlp\nframe 0 I"),
    "long": ("x" * 4000, "x" * 99 + "…"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_plugins_are_shown_escaped_and_cut(stream, name):
    given, shown = NAMES[name]
    path = stream(renamed(given))
    info = invoke("info", path)
    assert info.exit_code == 0, info.output
    assert f"residue {shown}+conv+separable" in info.stdout
    decoded = invoke("decode", path, "--digest")
    assert decoded.exit_code == 2 and f"the arm plugin '{shown}' (version 1)" in decoded.stderr
    for text in (info.output, decoded.output):
        assert text.replace("\n", "").isprintable() and "x" * 100 not in text


def test_names_of_files_are_shown_escaped(tmp_path):
    path = tmp_path / f"{ESCAPES}.cvd"
    path.write_bytes((GOLDEN / "card.cvd").read_bytes())
    texts = [
        invoke("info", path).output,
        invoke("info", tmp_path / f"no{ESCAPES}").output,
        invoke("info", "b", ESCAPES).output,
        invoke("info", f"--{ESCAPES}").output,
    ]
    assert invoke("report", path, "-q").exit_code == 0
    texts.append(path.with_suffix(".html").read_text()[:20_000])
    for text in texts:
        assert text.replace("\n", "").replace("\t", "").isprintable() and r"\x1b[2J" in text


def test_characters_that_the_terminal_lacks_are_escaped(tmp_path):
    path = tmp_path / "ü.cvd"
    path.write_bytes(renamed("x" * 200))
    result = CliRunner(charset="ascii").invoke(main, ["info", str(path)])
    assert result.exit_code == 0 and r"\xfc.cvd" in result.stdout and r"x\u2026+conv" in result.stdout


def test_a_bomb_is_allowed_by_default_and_refused_with_a_lower_limit(stream):
    path = stream(bomb())
    assert path.stat().st_size < 400 and StreamReader(path).header.format.width == 4096
    limit = 4096 * 4096 - 1
    calls = (
        lambda **options: coolvid.digest(path, **options),
        lambda **options: coolvid.decode(path, "never.y4m", **options),
        lambda **options: report(path, "never.html", **options),
        lambda **options: make_review(path, "never.mp4", "never.y4m", **options),
        lambda **options: list(inspect_stream(path, **options)),
    )
    for call in calls:
        with pytest.raises(StreamError, match=f"4096x4096 have {limit + 1} pixels, and max_pixels is {limit}"):
            call(max_pixels=limit)
    for look in ("digest", "decode", "report"):
        result = invoke(*LOOKS[look](path), "--max-pixels", limit)
        assert result.exit_code == 2 and "--max-pixels" in result.stderr and result.stderr.count("\n") == 1
    result = invoke("review", path, "--source", "none.mp4", "--max-pixels", limit)
    assert result.exit_code == 2 and "--max-pixels" in result.stderr


@pytest.mark.parametrize("given", [0, -1, MAX_PIXELS + 1, 2.5, True, "9", None])
def test_max_pixels_is_a_whole_number_within_what_the_format_allows(given):
    with pytest.raises(ConfigError, match=r"max_pixels is .*; choose a whole number 1\.\.67108864"):
        coolvid.digest(GOLDEN / "card.cvd", max_pixels=given)


def test_info_says_the_memory_that_decoding_needs(stream, monkeypatch):
    path = stream(bomb())
    assert "about 341 MB to decode" in invoke("info", path).stdout
    monkeypatch.setattr(info_command, "machine_bytes", lambda: 200_000_000)
    assert "about 341 MB to decode; this machine has only 200 MB" in invoke("info", path).stdout


def test_memory_counts_what_the_kernels_take():
    header = StreamReader(bomb()).header
    pixels = 4096 * 4096
    grids = sum((4096 >> log2) ** 2 for log2 in (*range(7), 4, 5, 6))
    residue = header.configurations[0].residue
    assert (residue.latent_resolution, residue.hyperlatent_resolution) == ((0, 6), (4, 6))
    assert decoding_bytes(header) == PROCESS_BYTES + 6 * pixels + 6 * pixels + 4 * grids
    orbit = StreamReader(GOLDEN / "orbit.cvd").header
    assert {each.frame_type for each in orbit.configurations} == set(FrameType)
    assert decoding_bytes(orbit) > PROCESS_BYTES


def test_too_little_memory_is_one_line(stream, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(coolvid, "digest", fail)
    result = invoke("decode", stream(bomb()), "--digest")
    assert result.exit_code == 2 and "not enough memory" in result.stderr and result.stderr.count("\n") == 1


SHARED_CASES = {
    "esc_plugin_name": (("info",), 0, r"\x1b[2J"),
    "long_plugin_name": (("decode", "--digest"), 2, "x" * 99 + "…"),
    "gap_unknown_n": (("info",), 2, "frame 1 of 0..16777215 is missing"),
    "no_packets": (("info",), 2, "no frames"),
    "bomb_odd_4096": (("decode", "--digest", "--max-pixels", 1 << 20), 2, "16777216 pixels"),
}


@pytest.mark.parametrize("name", SHARED_CASES)
def test_shared_cases(name):
    path = SHARED / f"{name}.cvd"
    if not path.exists():
        pytest.skip(f"no {path}")
    (command, *options), code, words = SHARED_CASES[name]
    result = invoke(command, path, *options)
    assert result.exit_code == code and words in result.output
    assert result.output.replace("\n", "").isprintable()
