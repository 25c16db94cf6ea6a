"""What must hold for any bytes: a picture or a CoolvidError with a printable line, and no more time than allowed."""

from contextlib import contextmanager
from itertools import islice
from unittest.mock import patch

from coolvid import kernels
from coolvid.bitstream.stream import StreamReader
from coolvid.decoding.schedule import decode_stream
from coolvid.errors import MAX_MESSAGE, CoolvidError
from coolvid.picture.digest import picture_digest
from coolvid.study.inspection import inspect_stream, packet_facts

MAX_PIXELS = 1 << 14
MAX_FRAMES = 9


def listed(reader):
    """What `info` shows; the table of sync points is not decoded, but read."""
    return [(info, sorted(info.bits_by_part.items())) for info in reader.packets], reader.sync_points


def unpacked(reader):
    """All networks."""
    return [(each.info, sorted(each.unchanged)) for each in packet_facts(reader)]


def decoded(reader):
    """The digest of each picture, in display order."""
    return [picture_digest(each) for each in islice(decode_stream(reader, threads=1), MAX_FRAMES)]


def inspected(reader):
    """As decoded(), with everything that the report shows; frames come in coding order."""
    found = {each.info.display_index: each for each in islice(inspect_stream(reader), MAX_FRAMES)}
    return [(picture_digest(found[i].picture), found[i].bits_per_pixel().sum() >= 0)[0] for i in sorted(found)]


LOOKS = (listed, decoded, unpacked, inspected)


def outcome(look, data: bytes):
    """What a look at the stream returns, or the CoolvidError, by type and message."""
    try:
        return look(StreamReader(data, max_pixels=MAX_PIXELS))
    except CoolvidError as error:
        line = str(error)
        assert line.isprintable() and 0 < len(line) <= MAX_MESSAGE, repr(line)
        return type(error), line


@contextmanager
def plain_python():
    """Without kernels."""
    with patch.object(kernels, "decode", None):
        yield


def examine(data: bytes, in_depth: bool = False) -> str:
    """List and decode the stream; in_depth: also inspect it, and compare pictures and errors with plain Python.

    Returns "pictures" or the name of the error of decoding. Raises AssertionError.
    """
    found = {look: outcome(look, data) for look in (LOOKS if in_depth else LOOKS[:2])}
    if in_depth:
        with plain_python():
            assert outcome(decoded, data) == found[decoded]
        if isinstance(found[decoded], list) and len(found[decoded]) < MAX_FRAMES:
            assert found[inspected] == found[decoded]
    return "pictures" if isinstance(found[decoded], list) else found[decoded][0].__name__
