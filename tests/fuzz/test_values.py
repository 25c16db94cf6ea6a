"""What goes into records, headers and option values comes out again; what does not fit is refused in one line."""

from dataclasses import replace

import pytest
from coolvid_cli.decode import parse_range
from coolvid_cli.options import parse_crop, parse_positions, parse_size
from hypothesis import assume, given
from hypothesis import strategies as st

from coolvid.bitstream.headers import COLOR, FRACTION, PLUGIN, VIDEO_FORMAT, StreamHeader
from coolvid.bitstream.packet import PacketHeader
from coolvid.bitstream.records import (
    BitReader,
    BitWriter,
    Flag,
    Golomb,
    Layout,
    Many,
    Maybe,
    OneOf,
    Signed,
    U,
    When,
    unzigzag,
    zigzag,
)
from coolvid.bitstream.stream import SyncPoint, pack_index, unpack_index
from coolvid.bitstream.values import MAX_INTEGER, Usual, Value, read_varint, write_varint
from coolvid.errors import MAX_SHOWN, CoolvidError, StreamError, printable
from coolvid.picture.rate import parse_fps
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.toml import make_config, parse_setting, read_config, setting_names
from coolvid.values import read_like
from fuzz.mutate import Parts, corpus, header_of

HEADERS = [Parts.of(stream).header for stream in corpus()]


def returned(call, *args):
    """What a call returns; None where it refuses in one line."""
    try:
        return call(*args)
    except CoolvidError as error:
        assert str(error).isprintable()
        return None


# -- numbers and bits --------------------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 35) - 1), st.binary())
def test_varints(value, rest):
    data = write_varint(value)
    assert read_varint(data + rest, 0) == (value, len(data))
    with pytest.raises(StreamError):
        read_varint(data[:-1], 0)


@given(st.binary(max_size=12), st.integers(0, 14))
def test_any_bytes_as_varint(data, at):
    found = returned(read_varint, data, at)
    assert found is None or (0 <= found[0] < 1 << 35 and at < found[1] <= len(data))


@given(st.integers(-(1 << 40), 1 << 40))
def test_zigzag(value):
    assert unzigzag(zigzag(value)) == value


PIECES = st.one_of(
    st.tuples(st.just("bits"), st.integers(0, 70)).flatmap(
        lambda piece: st.tuples(st.just("bits"), st.integers(0, (1 << piece[1]) - 1), st.just(piece[1]))
    ),
    st.tuples(st.just("golomb"), st.integers(0, (1 << 31) - 2), st.integers(0, 12)),
    st.tuples(st.just("bytes"), st.binary(max_size=9), st.none()),
)


@given(st.lists(PIECES, max_size=20))
def test_pieces_of_every_size_at_every_position(pieces):
    writer = BitWriter()
    for kind, value, size in pieces:
        if kind == "bytes":
            writer.write_bytes(value)
        else:
            (writer.write if kind == "bits" else writer.write_golomb)(value, size)
    reader = BitReader(writer.getvalue())
    for kind, value, size in pieces:
        if kind == "bytes":
            assert reader.read_bytes(len(value)) == value
        else:
            assert (reader.read if kind == "bits" else reader.read_golomb)(size) == value
    reader.finish()
    assert reader.position == writer.n_bits + -writer.n_bits % 8


# -- records, by their own declarations --------------------------------------------------------------------------------


@st.composite
def values_of(draw, code, known, fallback=None):
    """A value that a field code can write, after the fields in `known`."""
    match code:
        case U():
            return draw(st.integers(code.low, code.low + (1 << code.bits) - 1))
        case Golomb():
            return draw(st.integers(code.low, code.high))
        case Signed():
            return draw(st.integers(-code.limit, code.limit))
        case Flag():
            return draw(st.booleans())
        case OneOf():
            return draw(st.sampled_from(code.values))
        case Usual():
            return draw(st.one_of(st.sampled_from(code.values), values_of(code.otherwise, known)))
        case Maybe():
            return draw(st.one_of(st.none(), values_of(code.item, known)))
        case When():
            return draw(values_of(code.item, known)) if code.condition(known) else None
        case Many():
            count = code.count if isinstance(code.count, int) else None
            n = draw(st.integers(0, 4)) if hasattr(code.count, "read") else count or code.count(known)
            return tuple(draw(values_of(code.item, known)) for _ in range(n))
        case Value():
            return draw(OPTIONS if code.only is None else OPTIONS.filter(lambda value: isinstance(value, code.only)))
        case Layout():
            return draw(records(code))
    return fallback


@st.composite
def records(draw, layout, like=None):
    """A value with the fields of a layout; fields of other kinds are as in `like`."""
    known = {}
    for name, (code, _) in layout.parts.items():
        known[name] = draw(values_of(code, known, getattr(like, name, None)))
    made = returned(lambda: layout.cls(**known))
    assume(made is not None)
    return made


TEXTS = st.text(max_size=30)
OPTIONS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(1 - MAX_INTEGER, MAX_INTEGER - 1),
        st.floats(allow_nan=False),
        TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=20,
)


@given(st.data())
@pytest.mark.parametrize("layout", [VIDEO_FORMAT, COLOR, FRACTION, PLUGIN], ids=lambda layout: layout.name)
def test_parts_of_the_header(layout, data):
    if layout is PLUGIN:
        options = OPTIONS.filter(lambda value: isinstance(value, tuple))
        record = layout.cls(data.draw(TEXTS), data.draw(st.integers(0, 255)), data.draw(options))
    else:
        record = data.draw(records(layout))
    writer = BitWriter()
    layout.write(writer, record, {})
    reader = BitReader(writer.getvalue())
    assert layout.read(reader, {}) == record
    reader.finish()


@given(records(PacketHeader.layout()))
def test_packet_headers(header):
    assert PacketHeader.unpack(header.pack()) == header


@given(st.sampled_from(HEADERS).flatmap(lambda like: records(StreamHeader.layout(), like)), st.binary())
def test_stream_headers(header, rest):
    data = header.pack()
    assert StreamHeader.parse(data + rest) == (header, len(data))
    assert len(replace(header, n_frames=0).pack()) == len(data)


@given(st.binary(max_size=60))
def test_any_bytes_as_headers(data):
    for call in (PacketHeader.unpack, StreamHeader.unpack, lambda body: StreamHeader.unpack(header_of(body))):
        found = returned(call, data)
        assert found is None or type(found).unpack(found.pack()) == found


@given(OPTIONS)
def test_option_values(value):
    writer = BitWriter()
    code = Value()
    if returned(lambda: code.write(writer, value, {}) or True):
        assert code.read(BitReader(writer.getvalue()), {}) == value


@given(st.binary(max_size=40))
def test_any_bytes_as_option_values(data):
    value = returned(lambda: Value().read(BitReader(data), {}))
    assert isinstance(value, None | bool | int | float | str | tuple)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 40)), min_size=1, max_size=20))
def test_indices(steps):
    points, packet, offset = [], 0, 0
    for step, jump in steps:
        packet, offset = packet + step, offset + jump
        points.append(SyncPoint(packet, offset))
    data = pack_index(points)
    if all(offset < 1 << 35 for offset in (points[0].offset, *(jump for _, jump in steps))):
        assert unpack_index(data) == tuple(points)
    assert unpack_index(data[:-1]) is None and unpack_index(data + b"\0") is None


# -- text that people write --------------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=200))
def test_printable_text(text):
    shown = printable(text)
    assert shown.isprintable() and len(shown) <= MAX_SHOWN
    assert shown == text or len(text) > MAX_SHOWN or not text.isprintable() or text == shown


NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True)


@given(NAMES, st.lists(st.tuples(NAMES, st.integers()), max_size=3))
def test_plugin_choices_are_read_as_they_are_written(name, options):
    choice = PluginChoice.parse(":".join([name, *([",".join(f"{k}={v}" for k, v in options)] if options else [])]))
    assert PluginChoice.parse(str(choice)) == choice


READERS = (PluginChoice.parse, parse_setting, parse_range, parse_size, parse_crop, parse_fps, parse_positions)
WORDS = st.text(st.sampled_from("0123456789-+x:/.,=()[]{}'\"ae nfi_#\x1b\u0661"), max_size=24)


@given(st.one_of(WORDS, st.text(max_size=40)))
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__qualname__)
def test_any_text_as_an_option(read, text):
    returned(read, text)


@given(WORDS)
@pytest.mark.parametrize("default", [True, 3, 0.5, "a", (1, 2), ((1, True), (2, False))], ids=str)
def test_any_text_as_the_option_of_a_plugin(default, text):
    found = returned(read_like, text, default, "option")
    assert found is None or type(found) is type(default)


TOML_VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=8).map(lambda text: f'"{text}"'), WORDS
)
LINES = st.tuples(st.sampled_from([*setting_names(), "lmbda", "gop", "x"]), TOML_VALUES)


@given(st.lists(LINES, max_size=4))
def test_any_settings_file(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_text("\n".join(f"{name} = {value}" for name, value in lines), encoding="utf-8")
    layer = returned(read_config, path)
    if layer is not None:
        returned(make_config, [layer])
