"""The manager: which operating points are tried for a frame, and what is kept of them."""

from dataclasses import replace

import pytest

import coolvid
from coolvid import EncodeConfig, PixelFormat, StructureConfig, VideoFormat
from coolvid.events import EncodeStarted, FrameDone
from coolvid.picture.types import FrameType
from coolvid.settings.config import frame_architecture
from coolvid.settings.presets import frame_configs
from pictures import waves

FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
ONE = EncodeConfig(
    lmbda=1e-4, preset="fast", intra="lop", residue="lop", iterations=40, structure=StructureConfig(gop=2), threads=1
)


def encoded(config, folder, name):
    """(stream, events) of three frames."""
    seen = []
    path = folder / f"{name}.cvd"
    done = coolvid.encode_frames(waves(FORMAT, 3), path, config, listen=seen.append)
    assert coolvid.digest(path) == done.digest
    return path, seen


def first_loss(events):
    return next(event.loss for event in events if isinstance(event, FrameDone))


def test_the_best_operating_point_of_every_frame_is_kept(tmp_path):
    """The I frame, which refers to nothing, is that of the better point."""
    single = {name: encoded(replace(ONE, intra=name), tmp_path, name) for name in ("lop", "mop")}
    path, seen = encoded(replace(ONE, intra="lop,mop", residue="vlop, mop"), tmp_path, "both")
    losses = {name: first_loss(events) for name, (_, events) in single.items()}
    assert first_loss(seen) == pytest.approx(min(losses.values()), rel=2e-3)  # the number of the entry may take bits
    kept = coolvid.read_info(path)
    used = kept.header.configurations[kept.packets[0].configuration]
    best = coolvid.read_info(single[min(losses, key=losses.get)][0])
    assert used == best.header.configurations[best.packets[0].configuration]
    assert [c.frame_type.name for c in kept.header.configurations] == list("IIPPBB")


def test_the_work_of_all_points_is_planned_and_done(tmp_path):
    _, alone = encoded(ONE, tmp_path, "one")
    _, seen = encoded(replace(ONE, intra="lop,mop"), tmp_path, "two")
    plans = [next(e for e in events if isinstance(e, EncodeStarted)).plan for events in (alone, seen)]
    done = [[e for e in events if isinstance(e, FrameDone)] for events in (alone, seen)]
    assert plans[1][0].iterations == 2 * plans[0][0].iterations
    assert [p.iterations for p in plans[1][1:]] == [p.iterations for p in plans[0][1:]]
    assert done[1][0].iterations == 2 * done[0][0].iterations == plans[1][0].iterations


COPIES = [
    # which of two pictures every frame is, references of frame 1 in its packet
    ("AAB", (0, 0)),
    ("ABB", (2, 2)),
    ("AAA", (0, 2)),
]


@pytest.mark.parametrize("order, references", COPIES)
def test_a_frame_like_one_of_its_references_is_a_copy_of_that_one(tmp_path, order, references):
    pictures = dict(zip("AB", waves(FORMAT, 5, grain=0.05)[::4], strict=False))
    path, seen = tmp_path / "a.cvd", []
    done = coolvid.encode_frames([pictures[name] for name in order], path, ONE, listen=seen.append)
    kept = next(info for info in coolvid.read_info(path).packets if info.display_index == 1)
    told = next(event for event in seen if isinstance(event, FrameDone) and event.display_index == 1)
    assert kept.is_copy and kept.references == told.references == references and kept.n_bytes <= 24
    assert coolvid.digest(path) == done.digest


TRIED = [
    # settings, frame type, operating points: residue, motion
    ({"preset": "medium"}, FrameType.P, [("mop", "mop")]),
    ({"preset": "slow"}, FrameType.B, [("mop", "mop")]),
    ({"preset": "placebo"}, FrameType.P, [("mop", "mop"), ("hop", "mop")]),
    ({"preset": "placebo", "residue": "lop"}, FrameType.B, [("lop", "mop")]),
    ({"residue": "vlop, lop,vlop", "motion": "lop,mop"}, FrameType.B,
     [("vlop", "lop"), ("vlop", "mop"), ("lop", "lop"), ("lop", "mop")]),
]  # fmt: skip


@pytest.mark.parametrize("settings, frame_type, points", TRIED)
def test_presets_and_options_say_what_is_tried(settings, frame_type, points):
    made = frame_configs(EncodeConfig(**settings), frame_type, frame_type.value, (64, 64))
    wanted = [
        frame_configs(EncodeConfig(residue=residue, motion=motion), frame_type, frame_type.value, (64, 64))
        for residue, motion in points
    ]
    assert [frame_architecture(each) for each in made] == [frame_architecture(each) for (each,) in wanted]
