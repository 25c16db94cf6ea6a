"""The coding plan: order, type and references of every frame. Pure; no pixels are involved.

Anchors (I and P) come first, each P predicted from the anchor before it; the frames between two anchors are B frames
in a dyadic hierarchy: the middle one refers to both anchors, the middle of each half to its two neighbours, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from coolvid.errors import ConfigError
from coolvid.picture.types import FrameType
from coolvid.values import Within, check_fields

from .networks import STORED_FRAMES


@dataclass(frozen=True)
class StructureConfig:
    """The positions of I, P and B frames. gop: frames of a B hierarchy (1: all intra). intra_period: frames from one I
    frame to the next, 0: only the first. intra_pos, p_pos: display positions, which override both."""

    gop: Annotated[int, Within(1, 4096)] = 8
    intra_period: Annotated[int, Within(0, 1_000_000)] = 0
    low_delay: bool = False
    intra_pos: tuple[int, ...] = ()
    p_pos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.intra_period % self.gop and not self.low_delay:
            raise ConfigError(
                f"intra_period {self.intra_period} is not a multiple of gop {self.gop}; "
                f"try {self.gop * max(1, round(self.intra_period / self.gop))}"
            )


Anchors = dict[int, FrameType]


@dataclass(frozen=True)
class CodingStep:
    """One frame in coding order.

    references: display indices, all coded earlier; a B frame names the past one first.
    depth: 0 for I, 1 for P, 2 and more for B (one more for each level of the hierarchy).
    predictor: display index of the frame whose networks this one may inherit, coded earlier; None: no frame's.
    """

    coding_index: int
    display_index: int
    frame_type: FrameType
    references: tuple[int, ...]
    depth: int
    predictor: int | None = None


class CodingStructure:
    """The rules that turn a StructureConfig into coding steps."""

    @staticmethod
    def plan(n_frames: int, structure: StructureConfig) -> tuple[CodingStep, ...]:
        """All frames of a video in coding order; the last frame is always an anchor.

        Raises ConfigError when there is no frame, or when explicit positions do not fit the video.
        """
        if n_frames < 1:
            raise ConfigError(f"{n_frames} frames to code; a video has at least 1")
        anchors = _explicit(n_frames, structure) if _is_explicit(structure) else _regular(n_frames, structure)
        steps = tuple(CodingStep(index, *each) for index, each in enumerate(_walk(anchors)))
        return tuple(replace(step, predictor=_predictor(steps[: step.coding_index], step)) for step in steps)


plan = CodingStructure.plan


def _is_explicit(structure: StructureConfig) -> bool:
    return bool(structure.intra_pos or structure.p_pos)


def _regular(n_frames: int, structure: StructureConfig) -> Anchors:
    """Anchors every gop frames (every frame with low_delay) and at the end; I every intra_period frames."""
    spacing = 1 if structure.low_delay else structure.gop
    if spacing == 1 and not structure.low_delay:
        return dict.fromkeys(range(n_frames), FrameType.I)
    anchors = dict.fromkeys((*range(0, n_frames, spacing), n_frames - 1), FrameType.P)
    anchors.update(dict.fromkeys(range(0, n_frames, structure.intra_period or n_frames), FrameType.I))
    return anchors


def _explicit(n_frames: int, structure: StructureConfig) -> Anchors:
    """Anchors at the given positions; frame 0 is I, and the last frame is P unless it is given."""
    if structure.low_delay:
        raise ConfigError("low_delay cannot be combined with intra_pos or p_pos; choose one of the two")
    intra = {0, *_positions("intra_pos", structure.intra_pos, n_frames)}
    predicted = _positions("p_pos", structure.p_pos, n_frames)
    if both := intra & predicted:
        why = "the first frame is always intra" if both == {0} else "it is also in intra_pos"
        raise ConfigError(f"p_pos has frame {min(both)}, but {why}; take it out of p_pos")
    anchors = dict.fromkeys((*predicted, n_frames - 1), FrameType.P) | dict.fromkeys(intra, FrameType.I)
    return dict(sorted(anchors.items()))


def _positions(what: str, positions: tuple[int, ...], n_frames: int) -> set[int]:
    """Display indices; negative positions count from the end, -1 is the last frame."""
    for position in positions:
        if not -n_frames <= position < n_frames:
            raise ConfigError(f"{what} has frame {position}; choose {-n_frames}..{n_frames - 1} for {n_frames} frames")
    return {position % n_frames for position in positions}


def _walk(anchors: Anchors) -> Iterator[tuple[int, FrameType, tuple[int, ...], int]]:
    """(display index, type, references, depth) in coding order: each anchor, then the B frames before it."""
    previous = -1
    for anchor, frame_type in anchors.items():
        if frame_type is FrameType.I:
            yield anchor, frame_type, (), 0
        else:
            yield anchor, frame_type, (previous,), 1
        if previous >= 0:
            yield from _between(previous, anchor, depth=2)
        previous = anchor


def _between(past: int, future: int, depth: int) -> Iterator[tuple[int, FrameType, tuple[int, ...], int]]:
    """The B frames strictly between two coded frames, every reference before its users."""
    if future - past < 2:
        return
    middle = (past + future) // 2
    yield middle, FrameType.B, (past, future), depth
    yield from _between(past, middle, depth + 1)
    yield from _between(middle, future, depth + 1)


def _predictor(before: Sequence[CodingStep], step: CodingStep) -> int | None:
    """The frame that `step` may inherit networks from, given all steps before it.

    A decoder must still keep its networks: it is one of the last STORED_FRAMES steps, after the last I frame. So that
    frames can be coded side by side, P frames inherit from P frames alone, and a B frame from a frame of lower depth or
    of an earlier group: the latest one of the same depth, else the deepest one above, a reference if possible.
    """
    last_intra = max((i for i, each in enumerate(before) if each.frame_type is FrameType.I), default=-1)
    anchor = max((i for i, each in enumerate(before) if each.frame_type is not FrameType.B), default=-1)
    kept = before[max(last_intra + 1, len(before) - STORED_FRAMES) :]
    if step.frame_type is FrameType.B:
        fitting = [each for each in kept if each.coding_index < anchor or each.depth < step.depth]
    else:
        fitting = [each for each in kept if each.frame_type is step.frame_type]

    def rank(each: CodingStep) -> tuple[bool, bool, int, bool, int]:
        is_above = each.depth < step.depth
        nearness = each.depth if is_above else -each.depth
        return each.depth == step.depth, is_above, nearness, each.display_index in step.references, each.coding_index

    return max(fitting, key=rank).display_index if fitting else None
