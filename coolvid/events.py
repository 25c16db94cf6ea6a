"""Events of an encode or decode, as frozen records. The core reports them, the command line displays them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from .picture.types import FrameType, VideoFormat


@dataclass(frozen=True)
class PlannedFrame:
    """A frame to be coded. iterations: of its training, without early stops and second attempts."""

    display_index: int
    frame_type: FrameType
    iterations: int


@dataclass(frozen=True)
class EncodeStarted:
    """plan: all frames in coding order; an earlier run coded the first n_restored. source: "" for frames in memory.
    fps: frames per second. choice: what of the source was taken, in words, when there was a choice."""

    n_frames: int
    config: Any
    kernels: str
    plan: tuple[PlannedFrame, ...] = ()
    n_restored: int = 0
    format: VideoFormat | None = None
    fps: Fraction | None = None
    source: str = ""
    out: str = ""
    choice: str = ""


@dataclass(frozen=True)
class FrameStarted:
    coding_index: int
    display_index: int
    frame_type: FrameType
    references: tuple[int, ...]
    total_iterations: int


@dataclass(frozen=True)
class Progress:
    """A validation during training. loss: MSE + lambda * bpp; psnr_db: of the float model; rate_bpp: all streams."""

    display_index: int
    phase: str
    iteration: int
    total_iterations: int
    loss: float
    psnr_db: float
    rate_bpp: float


@dataclass(frozen=True)
class FrameDone:
    """A coded frame. bits: total and by part of the packet. psnr_db: over all samples of the decoded picture."""

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
    references: tuple[int, ...] = ()


@dataclass(frozen=True)
class FrameRestored:
    """A frame that an earlier run coded. Fields as in FrameDone, as far as the packet provides them."""

    coding_index: int
    display_index: int
    frame_type: FrameType
    references: tuple[int, ...]
    n_bytes: int
    bits_by_part: Mapping[str, int] = field(compare=False)
    psnr_db: float = 0.0


@dataclass(frozen=True)
class PartCut:
    """The part of an earlier run is kept only up to n_kept packets, because of this problem."""

    part: str
    n_kept: int
    problem: str


@dataclass(frozen=True)
class EncodeDone:
    """A finished stream. digest: SHA-256 of all decoded pictures, see api.digest. Rates are those of the file:
    rate_bpp in bits per luma pixel, bitrate_bps in bits per second."""

    n_frames: int
    n_bytes: int
    psnr_db: float
    duration_s: float
    digest: str
    rate_bpp: float = 0.0
    bitrate_bps: float = 0.0


@dataclass(frozen=True)
class TrialStarted:
    """An encode in the search for a target (see targets.py). number: from 1. is_short: with fewer iterations, only to
    guide the search."""

    number: int
    lmbda: float
    is_short: bool
    target: str


@dataclass(frozen=True)
class TrialDone:
    """Result of a trial. value: of the target's quantity; text: the same with its unit. is_met: within the
    tolerance."""

    number: int
    lmbda: float
    is_short: bool
    value: float
    text: str
    is_met: bool


@dataclass(frozen=True)
class TargetDone:
    """End of a search. The file comes from trial `number`, with the event `encode`. Other fields as in TrialDone."""

    number: int
    lmbda: float
    value: float
    text: str
    is_met: bool
    out: str
    encode: EncodeDone


@dataclass(frozen=True)
class DecodeStarted:
    """n_frames: to be written. n_decoded: to be decoded, including frames that those depend on."""

    n_frames: int
    n_decoded: int


@dataclass(frozen=True)
class NotStored:
    """The file `out` cannot hold these facts about showing its pictures, for example "pixel aspect 4:3"."""

    out: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class FrameDecoded:
    display_index: int
    frame_type: FrameType
    duration_s: float


@dataclass(frozen=True)
class PointStarted:
    """Start of a point of a rate curve. codec: for example x265:medium. setting: for example crf 26."""

    codec: str
    setting: str


@dataclass(frozen=True)
class PointDone:
    """A finished point (curves.Point). is_new: made now, not read from the folder."""

    point: Any
    is_new: bool


Event = (
    EncodeStarted
    | FrameStarted
    | Progress
    | FrameDone
    | FrameRestored
    | PartCut
    | EncodeDone
    | TrialStarted
    | TrialDone
    | TargetDone
    | DecodeStarted
    | NotStored
    | FrameDecoded
    | PointStarted
    | PointDone
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listener that ignores events."""
