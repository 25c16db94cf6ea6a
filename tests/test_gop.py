"""Coding structures as tables, and what must hold for every one of them."""

import pytest

from coolvid.codec.gop import CodingStep, CodingStructure, StructureConfig, plan
from coolvid.errors import ConfigError
from coolvid.picture.types import FrameType


def written(steps):
    """'0I 4P<0 2B<0,4/2': display index, type, references, and the depth of a B frame."""
    out = []
    for s in steps:
        references = "<" + ",".join(map(str, s.references)) if s.references else ""
        depth = f"/{s.depth}" if s.frame_type is FrameType.B else ""
        out.append(f"{s.display_index}{s.frame_type.name}{references}{depth}")
    return " ".join(out)


CASES = [
    (1, {}, "0I"),
    (2, {}, "0I 1P<0"),
    (3, {}, "0I 2P<0 1B<0,2/2"),
    (5, {"gop": 4}, "0I 4P<0 2B<0,4/2 1B<0,2/3 3B<2,4/3"),
    (6, {"gop": 4}, "0I 4P<0 2B<0,4/2 1B<0,2/3 3B<2,4/3 5P<4"),
    (8, {"gop": 4}, "0I 4P<0 2B<0,4/2 1B<0,2/3 3B<2,4/3 7P<4 5B<4,7/2 6B<5,7/3"),
    (5, {"gop": 2}, "0I 2P<0 1B<0,2/2 4P<2 3B<2,4/2"),
    (5, {"gop": 2, "intra_period": 2}, "0I 2I 1B<0,2/2 4I 3B<2,4/2"),
    (6, {"gop": 2, "intra_period": 4}, "0I 2P<0 1B<0,2/2 4I 3B<2,4/2 5P<4"),
    (4, {"gop": 3}, "0I 3P<0 1B<0,3/2 2B<1,3/3"),
    (3, {"gop": 1}, "0I 1I 2I"),
    (4, {"low_delay": True}, "0I 1P<0 2P<1 3P<2"),
    (4, {"low_delay": True, "gop": 1}, "0I 1P<0 2P<1 3P<2"),
    (5, {"low_delay": True, "intra_period": 3}, "0I 1P<0 2P<1 3I 4P<3"),
    (5, {"intra_pos": (0, 4)}, "0I 4I 2B<0,4/2 1B<0,2/3 3B<2,4/3"),
    (5, {"intra_pos": (4,)}, "0I 4I 2B<0,4/2 1B<0,2/3 3B<2,4/3"),
    (5, {"p_pos": (2, 4)}, "0I 2P<0 1B<0,2/2 4P<2 3B<2,4/2"),
    (5, {"p_pos": (2,)}, "0I 2P<0 1B<0,2/2 4P<2 3B<2,4/2"),
    (5, {"p_pos": (1,), "intra_pos": (-1,), "gop": 1}, "0I 1P<0 4I 2B<1,4/2 3B<2,4/3"),
    (3, {"p_pos": (2, 1, 2)}, "0I 1P<0 2P<1"),
]


@pytest.mark.parametrize("n_frames, settings, expected", CASES)
def test_structure_is_these_steps(n_frames, settings, expected):
    steps = CodingStructure.plan(n_frames, StructureConfig(**settings))
    assert written(steps) == expected


STRUCTURES = [
    *({"gop": gop} for gop in (1, 2, 3, 4, 7, 8, 16, 32)),
    *({"gop": gop, "intra_period": gop * k} for gop in (2, 4, 8) for k in (1, 2, 3)),
    *({"low_delay": True, "intra_period": p} for p in (0, 1, 2, 5)),
    {"intra_pos": (0,)},
    {"p_pos": (-1,)},
]


@pytest.mark.parametrize("settings", STRUCTURES)
def test_every_structure_keeps_its_promises(settings):
    for n_frames in range(1, 70):
        steps = plan(n_frames, StructureConfig(**settings)) if n_frames > 1 or "p_pos" not in settings else ()
        assert [s.coding_index for s in steps] == list(range(len(steps)))
        assert sorted(s.display_index for s in steps) == list(range(len(steps)))
        seen = set()
        for step in steps:
            assert len(step.references) == step.frame_type.n_references
            assert set(step.references) <= seen, "a reference that is not coded yet"
            assert (step.depth, step.frame_type) in ((0, FrameType.I), (1, FrameType.P)) or step.depth >= 2
            if step.frame_type is FrameType.B:
                past, future = step.references
                assert past < step.display_index < future
            seen.add(step.display_index)


def test_hierarchy_of_a_full_gop_is_dyadic():
    depths = {s.display_index: s.depth for s in plan(17, StructureConfig(gop=16))}
    assert [depths[i] for i in range(17)] == [0, 5, 4, 5, 3, 5, 4, 5, 2, 5, 4, 5, 3, 5, 4, 5, 1]


def test_nothing_after_an_intra_frame_refers_before_it():
    for step in plan(41, StructureConfig(gop=8, intra_period=16)):
        start = step.display_index // 16 * 16
        assert all(r >= start for r in step.references)


def test_steps_are_values():
    assert CodingStep(0, 0, FrameType.I, (), 0) == plan(1, StructureConfig())[0]


INVALID = [
    (0, {}, "0 frames"),
    (4, {"intra_pos": (4,)}, r"intra_pos has frame 4; choose -4\.\.3"),
    (4, {"p_pos": (-5,)}, "p_pos has frame -5"),
    (4, {"p_pos": (0,)}, "the first frame is always intra"),
    (1, {"p_pos": (-1,)}, "the first frame is always intra"),
    (4, {"p_pos": (2,), "intra_pos": (2,)}, "frame 2, but it is also in intra_pos"),
    (4, {"p_pos": (2,), "low_delay": True}, "low_delay cannot be combined with"),
]


@pytest.mark.parametrize("n_frames, settings, message", INVALID)
def test_impossible_structures_are_refused(n_frames, settings, message):
    with pytest.raises(ConfigError, match=message):
        plan(n_frames, StructureConfig(**settings))
