"""The frame formula, in integers, used by both sides: warp, blend, add the residue, round once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coolvid.architecture import Ports
from coolvid.coded import CodedFrame
from coolvid.color import DENSE_BITS, dense_planes, finish
from coolvid.errors import StreamError
from coolvid.fixedpoint import FLOW_BITS, PREDICTION_BITS, shift_round
from coolvid.interfaces import Integers
from coolvid.registry import build
from coolvid.types import Frame, VideoFormat

from .coolchic import decode_coolchic

BLEND_BITS = 12
_ONE = 1 << BLEND_BITS


def reconstruct_frame(coded: CodedFrame, references: Sequence[Frame], format: VideoFormat) -> Frame:
    """The decoded picture. references: one decoded frame per reference of the frame, in its order.

    I: residue. P: alpha * warp(reference) + residue. B: alpha * (beta * warp1 + (1 - beta) * warp2) + residue.
    Raises StreamError when references, translations or parameters do not fit.
    """
    _check(coded, references, format)
    raw, bits = decode_coolchic(coded.coolchics["residue"], format.height, format.width)
    dense = _residue(raw[:3], bits, coded.output_range, format)
    if references:
        flow, flow_bits = decode_coolchic(coded.coolchics["motion"], format.height, format.width)
        flow = shift_round(flow, flow_bits - FLOW_BITS).astype(np.int32)
        weights = [_blend_weight(plane, bits) for plane in raw[3:]]
        predicted = weights[0] * _prediction(coded, references, flow, weights[1:])
        dense += shift_round(predicted, BLEND_BITS + PREDICTION_BITS - DENSE_BITS)
    return finish(dense, format)


def _check(coded: CodedFrame, references: Sequence[Frame], format: VideoFormat) -> None:
    expected = coded.frame_type.n_references
    if len(references) != expected or len(coded.global_translation) != expected:
        raise StreamError(
            f"frame {coded.display_index} has {len(references)} references and {len(coded.global_translation)} "
            f"global translations; a {coded.frame_type.name} frame has {expected}"
        )
    if any(reference.format != format for reference in references):
        raise StreamError(f"frame {coded.display_index} refers to a frame of another format")


def _residue(
    raw: Integers, bits: int, output_range: tuple[tuple[int, int], ...] | None, format: VideoFormat
) -> NDArray[np.int64]:
    """Residue outputs as code values with DENSE_BITS: 0 and 1 stand for the output range, or for 0 and the peak."""
    ranges = output_range or ((0, format.peak),) * 3
    low, high = (np.array(side, np.int64)[:, None, None] for side in zip(*ranges, strict=True))
    return shift_round(raw * (high - low), bits - DENSE_BITS) + (low << DENSE_BITS)


def _blend_weight(raw: Integers, bits: int) -> NDArray[np.int64]:
    """clamp(raw + 1/2, 0, 1) with BLEND_BITS."""
    return np.clip(shift_round(raw, bits - BLEND_BITS) + _ONE // 2, 0, _ONE)


def _prediction(
    coded: CodedFrame, references: Sequence[Frame], flow: Integers, beta: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Warped references [3, H, W], blended by beta when there are two; code values with PREDICTION_BITS."""
    record = coded.architecture.warper
    assert record is not None
    warper = build("warper", record, Ports(1, 1)).integer({})
    warped = [
        warper(translated(dense_planes(reference), *shift), flow[2 * i : 2 * i + 2])
        for i, (reference, shift) in enumerate(zip(references, coded.global_translation, strict=True))
    ]
    if not beta:
        return np.asarray(warped[0], dtype=np.int64)
    return shift_round(beta[0] * warped[0] + (_ONE - beta[0]) * warped[1], BLEND_BITS)


def translated(planes: Integers, dy: int, dx: int) -> Integers:
    """out[i, j] = planes[clamp(i + dy), clamp(j + dx)] for planes [C, H, W]."""
    _, height, width = planes.shape
    if dy == dx == 0:
        return planes
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    return planes[:, rows[:, None], columns]
