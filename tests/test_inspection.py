"""The inside of frames: the same pictures and integers as decoding, and bits that add up."""

import math
from pathlib import Path

import numpy as np
import pytest

import coolvid
from coolvid import EncodeConfig, Frame, FrameType, PixelFormat, StructureConfig, VideoFormat
from coolvid.bitstream.stream import StreamReader
from coolvid.codec.networks import PRIOR, FrameNetworks, NetworkStore
from coolvid.decoding.frame import BLEND_BITS
from coolvid.decoding.packet import read_frame
from coolvid.decoding.schedule import decode_stream
from coolvid.encoding import candidates
from coolvid.errors import ConfigError, StreamError
from coolvid.events import FrameDecoded
from coolvid.study.inspection import inspect_frame, inspect_stream, packet_facts

FORMAT = VideoFormat(33, 50, PixelFormat.YUV420, 8)
CONFIG = EncodeConfig(preset="fast", iterations=20, lmbda=3e-4, structure=StructureConfig(gop=4), threads=1)


def moving(n_frames):
    """A texture that moves by 3 pixels a frame."""
    rng = np.random.default_rng(3)
    texture = np.kron(rng.integers(16, 236, (16, 32)), np.ones((4, 4))).astype(np.uint16)
    frames, shapes = [], FORMAT.plane_shapes
    for t in range(n_frames):
        planes = [texture[:h, 3 * t // s : 3 * t // s + w] for s, (h, w) in zip((1, 2, 2), shapes, strict=True)]
        frames.append(Frame(tuple(np.ascontiguousarray(plane) for plane in planes), FORMAT))
    return frames


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A stream without copies."""
    path = tmp_path_factory.mktemp("inspection") / "a.cvd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "copies_of", lambda job, objective: [])
        coolvid.encode_frames(moving(5), path, CONFIG)
    return path


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """A stream in which all but the I frame are copies."""
    path = tmp_path_factory.mktemp("copies") / "a.cvd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "COPY_TOLERANCE", math.inf)
        coolvid.encode_frames(moving(3), path, CONFIG)
    return path


@pytest.fixture(scope="module")
def frames(path):
    return {found.info.display_index: found for found in inspect_stream(path)}


def test_pictures_and_integers_are_those_of_the_decoder(path, frames):
    reader, networks = StreamReader(path), NetworkStore()
    pictures = list(decode_stream(reader))
    assert [frames[i].picture for i in range(5)] == pictures
    for i, info in enumerate(reader.packets):
        coded = read_frame(reader.read(i), reader.header, networks)
        networks.add(FrameNetworks.of(coded))
        for branch, coolchic in coded.coolchics.items():
            found = frames[info.display_index].coded.coolchics[branch]
            assert all(np.array_equal(a, b) for a, b in zip(coolchic.latents, found.latents, strict=True))


def test_bits_add_up(path, frames):
    facts = packet_facts(StreamReader(path))
    assert [each.info.n_bytes for each in facts] == [info.n_bytes for info in coolvid.read_info(path).packets]
    for each in facts:
        found = frames[each.info.display_index]
        assert dict(found.info.bits_by_part) == dict(each.info.bits_by_part)
        assert sum(each.info.bits_by_part.values()) == 8 * each.info.n_bytes
        assert found.coded.predictor == each.info.predictor and not each.info.is_copy
        assert each.unchanged <= each.info.bits_by_part.keys() - {"header"}
        assert all(each.info.bits_by_part[name] <= 16 for name in each.unchanged)
        assert (each.info.predictor is None) <= (not each.unchanged)
        assert "networks" not in each.info.bits_by_part
        total = 0.0
        for branch, bits in found.latent_bits.items():
            assert [b.shape for b in bits] == [g.shape for g in found.grids[branch]]
            asked = sum(b.sum() for b in bits)
            assert abs(asked - each.info.bits_by_part[f"{branch}.latents"]) <= 64
            total += asked
        assert found.bits_per_pixel().shape == (33, 50)
        assert found.bits_per_pixel().sum() == pytest.approx(total)
    assert frames[0].bits_per_pixel().max() > 0


def test_motion_is_there_for_predicted_frames_only(frames):
    for found in frames.values():
        n = found.info.frame_type.n_references
        assert found.parts.flow.shape == (n, 2, 33, 50)
        assert (found.parts.prediction is None) == (found.info.frame_type is FrameType.I)


def test_a_copy_has_a_prediction_and_nothing_else(copies):
    reader = StreamReader(copies)
    pictures = list(decode_stream(reader))
    assert [info.is_copy for info in reader.packets] == [False, True, True]
    facts = {each.info.display_index: each for each in packet_facts(reader)}
    for found in inspect_stream(copies):
        index, references = found.info.display_index, found.info.references
        assert found.picture == pictures[index] and found.info == facts[index].info
        assert found.coded.is_copy == found.info.is_copy == (index != 0)
        if index == 0:
            continue
        assert found.grids == found.latent_bits == found.coded.coolchics == {}
        assert facts[index].unchanged == frozenset() and facts[index].info.predictor is None
        assert dict(facts[index].info.bits_by_part) == {"header": 8 * found.info.n_bytes}
        assert not found.bits_per_pixel().any() and found.bits_per_pixel().shape == (33, 50)
        assert found.parts.prediction == found.picture
        for flow, (dy, dx) in zip(found.parts.flow, found.coded.global_translation, strict=True):
            assert (flow[0] == 64 * dx).all() and (flow[1] == 64 * dy).all()
        assert [plane.max() / (1 << BLEND_BITS) for plane in found.parts.weights] == [1.0, 0.5][: len(references)]


def test_an_intra_frame_may_start_from_the_prior(path, frames):
    facts = packet_facts(StreamReader(path))[0]
    assert facts.info.frame_type is FrameType.I and facts.info.predictor in (PRIOR, None)
    assert frames[0].coded.predictor == facts.info.predictor
    assert [each.info.display_index for each in inspect_stream(path, [0])] == [0]


def test_only_what_is_asked_for_and_what_it_needs(path, frames):
    seen = []
    found = list(inspect_stream(path, [3], listen=seen.append))
    assert [each.info.display_index for each in found] == [3]
    assert found[0].picture == frames[3].picture
    assert [event.display_index for event in seen if isinstance(event, FrameDecoded)][-1] == 3
    assert 1 not in {event.display_index for event in seen} or frames[3].info.predictor == 1


def test_a_frame_that_is_not_there(path):
    with pytest.raises(ConfigError, match=r"the stream has no frame 7; choose from 0\.\.4"):
        next(inspect_stream(path, [0, 7]))


def test_damage_is_found(path):
    reader = StreamReader(path)
    data = bytearray(reader.read(0))
    data[len(data) // 2] ^= 1
    with pytest.raises(StreamError, match="checksum"):
        inspect_frame(bytes(data), reader.header, [])
