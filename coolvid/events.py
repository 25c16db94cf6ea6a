"""What happens during an encode or decode, as frozen facts. The core tells, the command line draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .types import FrameType


@dataclass(frozen=True)
class EncodeStarted:
    n_frames: int
    config: Any
    kernels: str


@dataclass(frozen=True)
class FrameStarted:
    coding_index: int
    display_index: int
    frame_type: FrameType
    references: tuple[int, ...]
    total_iterations: int


@dataclass(frozen=True)
class Progress:
    """A validation during training. loss: MSE + lambda * bpp; psnr_db: of the float forward; rate_bpp: all streams."""

    display_index: int
    phase: str
    iteration: int
    total_iterations: int
    loss: float
    psnr_db: float
    rate_bpp: float


@dataclass(frozen=True)
class FrameDone:
    """A coded frame. bits: total and by part of the real packet. psnr_db over all samples of the decoded picture."""

    coding_index: int
    display_index: int
    frame_type: FrameType
    n_bytes: int
    bits_by_part: Mapping[str, int] = field(compare=False)
    psnr_db: float = 0.0
    float_psnr_db: float = 0.0
    loss: float = 0.0
    iterations: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True)
class EncodeDone:
    """A finished stream. digest: SHA-256 of all pictures it decodes to, see api.digest."""

    n_frames: int
    n_bytes: int
    psnr_db: float
    duration_s: float
    digest: str


@dataclass(frozen=True)
class FrameDecoded:
    display_index: int
    frame_type: FrameType
    duration_s: float


Event = EncodeStarted | FrameStarted | Progress | FrameDone | EncodeDone | FrameDecoded
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
