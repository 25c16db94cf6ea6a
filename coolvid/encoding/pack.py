"""pack(): a frame encoder that was trained by hand, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from coolvid.bitstream.headers import StreamHeader
from coolvid.codec.gop import CodingStep
from coolvid.picture.quality import psnr
from coolvid.picture.types import ColorInfo, Frame

from .job import FrameJob, FrameResult, Heritage
from .model.frame_encoder import FrameEncoder
from .objective import Objective
from .packing import Packer
from .quantization import code_frame


def header_of(
    *frame_encoders: FrameEncoder, fps: Fraction = Fraction(25), color: ColorInfo | None = None
) -> StreamHeader:
    """The header of a stream with frames of these encoders, all of one format."""
    return StreamHeader(
        format=frame_encoders[0].format,
        fps=fps,
        color=color or ColorInfo(),
        n_frames=0,  # the writer of the stream counts them
        gop=1,
        intra_period=0,
        low_delay=False,
        configurations=tuple(dict.fromkeys(each.architecture for each in frame_encoders)),
    )


def pack(
    frame_encoder: FrameEncoder,
    frame: Frame,
    references: Mapping[int, Frame] | None = None,
    *,
    display_index: int = 0,
    header: StreamHeader | None = None,
) -> FrameResult:
    """The packet of a quantized frame encoder, and its decoded picture.

    frame: the target. references: the decoded frames that the encoder was made with, in its order, by display index.
    header: of the stream, by default header_of(frame_encoder). The loss is the objective of frame_encoder.config.
    Raises ConfigError unless quantize_model() has run on this encoder.
    """
    config, given = frame_encoder.config, dict(references or {})
    step = CodingStep(len(given), display_index, config.frame_type, tuple(given), config.frame_type.value)
    job = FrameJob(
        step=step,
        frame=frame,
        references=tuple(given.values()),
        configs=(config,),
        header=header or header_of(frame_encoder),
        seed=frame_encoder.seed,
    )
    objective = Objective.of(config, frame)
    coded = code_frame(frame_encoder, display_index, step.references)
    made = Packer(job, objective).best(coded, psnr(frame_encoder.picture(), frame))
    return FrameResult(
        packet=made.packet,
        picture=made.picture,
        heritage=None if made.networks is None else Heritage(made.networks, made.loss, step.coding_index),
        loss=made.loss * objective.scale,
        distortion=objective.of_picture(made.picture),
        float_psnr_db=made.float_psnr_db,
    )
