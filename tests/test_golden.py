"""Streams of format 4 that release 0.1.0 wrote decode to the same pictures for ever: with and without kernels, with any
number of threads. A stream format change adds streams here; those of a refused format are refused by name."""

from pathlib import Path

import pytest

import coolvid
from coolvid import kernels
from coolvid.bitstream.headers import PLAIN_VERSION

FOLDER = Path(__file__).parent / "golden"

# I, P and B frames, copies, inherited networks; 10 bits and odd sides; 4:4:4 and common randomness; RGB; P frames alone
DIGESTS = {
    "orbit": "b0d592837649eb085896c1e0b35622730a3d2219e8e6d05aaecde345c97faee4",
    "drift": "27e6e89592c246b15ec7f749efbf3fdd450716bb245666e76e2d60d3b643221c",
    "weave": "5a2a18a0e5c7b5e64de061f244ad85a9925c507a0e381ca48922e083db571bb4",
    "card": "487abaa980fc419ec063bb14a0051ebcfa57cc77ec34b2444f9a94fbc8f21999",
    "sweep": "38477f060ae47197c86707c3fbda17918e19f78d93899356f6be54470db28ba8",
}


def test_every_stream_has_a_digest():
    assert {path.stem for path in FOLDER.iterdir()} == set(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_golden_streams_decode_to_the_same_pictures(name, threads):
    assert coolvid.digest(FOLDER / f"{name}.cvd", threads=threads) == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_they_do_without_kernels(name, monkeypatch):
    monkeypatch.setattr(kernels, "decode", None)
    assert coolvid.digest(FOLDER / f"{name}.cvd", threads=1) == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_they_are_of_this_format(name):
    assert (FOLDER / f"{name}.cvd").read_bytes()[4] == PLAIN_VERSION
