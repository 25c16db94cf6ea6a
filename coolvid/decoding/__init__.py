"""Decoding in integers: from coded integers to a Frame. Encoder and decoder both use this formula."""

from .contexts import ContextModel
from .coolchic import choose_scales, decode_coolchic
from .frame import FrameParts, PreparedFrame, finished_frame, frame_parts, prepared_frame, reconstruct_frame
from .noise import common_noise

__all__ = [
    "ContextModel",
    "FrameParts",
    "PreparedFrame",
    "choose_scales",
    "common_noise",
    "decode_coolchic",
    "finished_frame",
    "frame_parts",
    "prepared_frame",
    "reconstruct_frame",
]
