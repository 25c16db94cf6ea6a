"""The frame formula in integers, for encoder and decoder: warp, blend, add the residue, round once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.codec.architecture import Ports
from coolvid.codec.coded_frame import CodedFrame
from coolvid.codec.fixed_point import FLOW_BITS, PREDICTION_BITS, Integers, shift_round
from coolvid.errors import StreamError
from coolvid.picture.color import DENSE_BITS, dense_planes, finish
from coolvid.picture.types import Frame, VideoFormat
from coolvid.plugin.contract import check_integers
from coolvid.plugin.registry import build

from .coolchic import Flow, decode_coolchic, decode_flow, decode_planes

BLEND_BITS = 12
MAX_BITS = 15
_ONE = 1 << BLEND_BITS

Ranges = tuple[tuple[int, int], ...]


def reconstruct_frame(coded: CodedFrame, references: Sequence[Frame], format: VideoFormat, threads: int = 1) -> Frame:
    """The decoded picture. references: the decoded frame of each reference, in order. threads: the number that share
    its rows; the picture never depends on it.

    I: residue. P: alpha * warp(reference) + residue. B: alpha * (beta * warp1 + (1 - beta) * warp2) + residue.
    A copy: the mean of the references, which may be the same frame twice.
    Raises StreamError when references, translations or parameters do not fit.
    """
    _check(coded, references, format)
    return finished_frame(prepared_frame(coded, format, threads), references, format)


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """The part of a frame that needs no references: the outputs of the residue branch with their fractional bits, and
    the flow of P and B frames; a copy has neither."""

    coded: CodedFrame
    raw: NDArray[Any] | None = None
    bits: int = 0
    flow: Flow | None = None


def prepared_frame(coded: CodedFrame, format: VideoFormat, threads: int = 1) -> PreparedFrame:
    """The part of reconstruct_frame() that needs no references. Raises StreamError for parameters that do not fit."""
    if coded.is_copy:
        return PreparedFrame(coded)
    size = format.height, format.width
    raw, bits = decode_planes(coded.coolchics["residue"], *size, threads)
    motion = coded.coolchics.get("motion")
    return PreparedFrame(coded, raw, bits, None if motion is None else decode_flow(motion, *size, threads))


def finished_frame(prepared: PreparedFrame, references: Sequence[Frame], format: VideoFormat) -> Frame:
    """The rest of reconstruct_frame(). Raises StreamError for references or translations that do not fit."""
    coded, raw, bits = prepared.coded, prepared.raw, prepared.bits
    _check(coded, references, format)
    if raw is None:
        return copied(references, coded.global_translation, format)
    predictions = [] if prepared.flow is None else _predictions(coded, prepared.flow, references, format)
    return _picture(raw, bits, coded.output_range or ((0, format.peak),) * 3, predictions, format)


def _picture(raw: NDArray[Any], bits: int, ranges: Ranges, predictions: Sequence[Any], format: VideoFormat) -> Frame:
    """composed(), by the compiled kernel where there is one."""
    if kernels.decode is None or not 0 <= bits <= MAX_BITS:
        return composed(raw, bits, ranges, predictions, format)
    planes = kernels.decode.compose(raw, bits, ranges, predictions, format.peak, format.pixel_format.is_subsampled)
    return Frame(planes, format)


def copied(references: Sequence[Frame], shifts: Sequence[tuple[int, int]], format: VideoFormat) -> Frame:
    """The mean of one or two references, each moved by its shift (dy, dx)."""
    if kernels.decode is None:
        return plain_copied(references, shifts, format)
    planes = [each.planes for each in references]
    return Frame(kernels.decode.mean(planes, shifts, format.peak, format.pixel_format.is_subsampled), format)


def plain_copied(references: Sequence[Frame], shifts: Sequence[tuple[int, int]], format: VideoFormat) -> Frame:
    """copied() in numpy: the reference of the compiled kernel."""
    moved = [translated(dense_planes(each), *shift) for each, shift in zip(references, shifts, strict=True)]
    total = np.array(moved, np.int64).sum(axis=0)
    return finish((total << DENSE_BITS) // len(moved), format)


@dataclass(frozen=True, eq=False)
class FrameParts:
    """The components of a P or B frame, for inspection; empty for an I frame.

    prediction: the references, warped and blended. weights: int64 [H, W] with BLEND_BITS, alpha and, for B, beta.
    flow: int32 [n, 2, H, W] with FLOW_BITS, per reference x and y, global translation included, into the reference.
    """

    prediction: Frame | None
    weights: tuple[NDArray[np.int64], ...]
    flow: Integers


def frame_parts(coded: CodedFrame, references: Sequence[Frame], format: VideoFormat) -> FrameParts:
    """The components that reconstruct_frame() combines. Raises StreamError."""
    _check(coded, references, format)
    height, width = format.height, format.width
    if not references:
        return FrameParts(None, (), np.zeros((0, 2, height, width), np.int32))
    shifts = np.array(coded.global_translation, np.int32)[:, ::-1, None, None] << FLOW_BITS
    if coded.is_copy:
        weights = tuple(np.full((height, width), each, np.int64) for each in (_ONE, _ONE // 2)[: len(references)])
        still = np.zeros((len(references), 2, height, width), np.int32)
        return FrameParts(copied(references, coded.global_translation, format), weights, still + shifts)
    raw, bits = decode_coolchic(coded.coolchics["residue"], height, width)
    weights = tuple(_blend_weight(plane, bits) for plane in raw[3:])
    flow = decode_flow(coded.coolchics["motion"], height, width)
    blended = _blended(_predictions(coded, flow, references, format), weights[1:])
    prediction = finish(shift_round(blended, PREDICTION_BITS - DENSE_BITS), format)
    return FrameParts(prediction, weights, flow.dense(height, width).reshape(-1, 2, height, width) + shifts)


def composed(raw: Integers, bits: int, ranges: Ranges, predictions: Sequence[Integers], format: VideoFormat) -> Frame:
    """The picture from the residue branch's outputs [3 + n, H, W] and n warped references with PREDICTION_BITS.

    In numpy: the reference of the compiled kernel.
    """
    dense = _residue(raw[:3], bits, ranges)
    if predictions:
        alpha, *beta = (_blend_weight(plane, bits) for plane in raw[3:])
        blended = _blended(predictions, beta)
        dense += shift_round(alpha * blended, BLEND_BITS + PREDICTION_BITS - DENSE_BITS)
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


def _residue(raw: Integers, bits: int, ranges: Ranges) -> NDArray[np.int64]:
    """Residue outputs as code values with DENSE_BITS: 0 and 1 are the ends of the plane's range."""
    low, high = (np.array(side, np.int64)[:, None, None] for side in zip(*ranges, strict=True))
    return shift_round(raw * (high - low), bits - DENSE_BITS) + (low << DENSE_BITS)


def _blend_weight(raw: Integers, bits: int) -> NDArray[np.int64]:
    """clamp(raw + 1/2, 0, 1) with BLEND_BITS."""
    return np.clip(shift_round(raw, bits - BLEND_BITS) + _ONE // 2, 0, _ONE)


def _predictions(coded: CodedFrame, flow: Flow, references: Sequence[Frame], format: VideoFormat) -> list[NDArray[Any]]:
    """References moved by their global translation and warped, integers [3, H, W] with PREDICTION_BITS."""
    record = coded.architecture.warper
    assert record is not None
    plugin = build("warper", record, Ports(1, 1))
    form = plugin.integer({})
    out: list[NDArray[Any]] = []
    for i, (reference, shift) in enumerate(zip(references, coded.global_translation, strict=True)):
        vectors = slice(2 * i, 2 * i + 2)
        made = plugin.of_frame(form, reference, shift, flow.vectors[vectors], flow.log2)
        if made is None:
            dense = flow.dense(format.height, format.width)[vectors]
            made = form(translated(dense_planes(reference), *shift), dense)
        check_integers("warper", plugin.name, made, (3, format.height, format.width))
        out.append(made)
    return out


def _blended(predictions: Sequence[Integers], beta: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The prediction, or beta times the first and 1 - beta times the second."""
    if not beta:
        return np.asarray(predictions[0], dtype=np.int64)
    return shift_round(beta[0] * predictions[0] + (_ONE - beta[0]) * predictions[1], BLEND_BITS)


def translated(planes: Integers, dy: int, dx: int) -> Integers:
    """out[i, j] = planes[clamp(i + dy), clamp(j + dx)] for planes [C, H, W]."""
    _, height, width = planes.shape
    if dy == dx == 0:
        return planes
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    return planes[:, rows[:, None], columns]
