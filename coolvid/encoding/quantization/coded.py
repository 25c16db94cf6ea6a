"""A quantized frame encoder as integers, ready for packing."""

from __future__ import annotations

from collections.abc import Sequence

from coolvid.codec.coded_frame import MODULES, CodedCoolChic, CodedFrame
from coolvid.decoding.coolchic import choose_scales
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.frame_encoder import FrameEncoder

from .state import QuantizedModule


def code_frame(
    frame_encoder: FrameEncoder, display_index: int, references: Sequence[int], predictor: int | None = None
) -> CodedFrame:
    """The frame's integers, with activation scales chosen for its own latents.

    references: display indices of the frame encoder's references, in order. predictor: that of the frame whose
    networks predict these. Raises ConfigError unless quantize_model has run on this encoder.
    """
    height, width = frame_encoder.format.height, frame_encoder.format.width
    architecture = frame_encoder.architecture
    branches = frame_encoder.branches
    return CodedFrame(
        display_index=display_index,
        architecture=architecture,
        references=tuple(references),
        global_translation=tuple(frame_encoder.global_translation or ()),
        output_range=frame_encoder.output_range,
        coolchics={name: choose_scales(code_coolchic(each), height, width) for name, each in branches.items()},
        predictor=predictor,
    )


def code_coolchic(coolchic: CoolChicEncoder) -> CodedCoolChic:
    """Modules and latents of one Cool-chic, without scales. Raises ConfigError unless it is quantized."""
    modules = {name: QuantizedModule.of(coolchic, name).coded for name in MODULES}
    return CodedCoolChic(coolchic.architecture, modules, coolchic.quantized_latents())
