"""Pictures: frame types, pixel formats, colour description, and Frame (integer planes).

A `Frame` holds integers, as files do and as decoding gives them. `as_tensor()` converts it to the floating-point
picture in [0, 1] that training uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError
from coolvid.values import Within, check_fields, instance

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 16
MAX_SIDE = 16384
MAX_PIXELS = 1 << 26
BIT_DEPTHS = (8, 10)

Plane = NDArray[np.uint16]


class FrameType(Enum):
    """How a frame is predicted; the value is its number of references."""

    I = 0  # noqa: E741 - the name in the field
    P = 1
    B = 2

    @property
    def n_references(self) -> int:
        return self.value

    @property
    def n_residue(self) -> int:
        """Outputs of the residue branch: three colour planes, then alpha, then beta."""
        return 3 + self.value

    @property
    def n_motion(self) -> int:
        """Outputs of the motion branch: one (x, y) flow per reference."""
        return 2 * self.value


class PixelFormat(Enum):
    """Arrangement of the three planes of a frame."""

    YUV420 = "yuv420"
    YUV444 = "yuv444"
    RGB = "rgb"

    @property
    def is_subsampled(self) -> bool:
        return self is PixelFormat.YUV420

    def plane_shapes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """(height, width) of each plane; chroma of 4:2:0 rounds up."""
        chroma = ((height + 1) // 2, (width + 1) // 2) if self.is_subsampled else (height, width)
        return (height, width), chroma, chroma


@dataclass(frozen=True)
class ColorInfo:
    """Colour description, ITU-T H.273 code points (2 = unspecified); range 1 = limited, 2 = full, 0 = unspecified."""

    primaries: Annotated[int, Within(0, 255)] = 2
    transfer: Annotated[int, Within(0, 255)] = 2
    matrix: Annotated[int, Within(0, 255)] = 2
    range: Annotated[int, Within(0, 2)] = 0

    def __post_init__(self) -> None:
        check_fields(self)


class DictTensorYUV(TypedDict):
    """A YUV picture as tensors in [0, 1]: y [1, 1, H, W]; u, v the same size or, for 4:2:0, half of it rounded up."""

    y: Tensor
    u: Tensor
    v: Tensor


@dataclass(frozen=True)
class VideoFormat:
    """The size and sample format of all frames of a video."""

    height: int
    width: int
    pixel_format: PixelFormat
    bit_depth: int

    def __post_init__(self) -> None:
        check_fields(self)
        if not (MIN_SIDE <= self.height <= MAX_SIDE and MIN_SIDE <= self.width <= MAX_SIDE):
            raise ConfigError(f"frame size {self.width}x{self.height} is outside {MIN_SIDE}..{MAX_SIDE} pixels a side")
        if self.height * self.width > MAX_PIXELS:
            raise ConfigError(f"frame size {self.width}x{self.height} has more than {MAX_PIXELS} pixels")
        if self.bit_depth not in BIT_DEPTHS:
            raise ConfigError(f"bit depth {self.bit_depth} is not one of {BIT_DEPTHS}")

    @property
    def peak(self) -> int:
        """The largest code value."""
        return (1 << self.bit_depth) - 1

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        return self.pixel_format.plane_shapes(self.height, self.width)

    @property
    def n_samples(self) -> int:
        return sum(h * w for h, w in self.plane_shapes)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: three planes of code values, uint16 [h, w] each, y-u-v or r-g-b."""

    planes: tuple[Plane, Plane, Plane]
    format: VideoFormat

    def __post_init__(self) -> None:
        instance("format", self.format, VideoFormat)
        found = [f"{np.asarray(plane).dtype} {list(np.shape(plane))}" for plane in self.planes]
        wanted = [f"uint16 {list(shape)}" for shape in self.format.plane_shapes]
        if found != wanted:
            raise ConfigError(f"planes are {', '.join(found)}; give arrays {', '.join(wanted)}")

    @property
    def height(self) -> int:
        return self.format.height

    @property
    def width(self) -> int:
        return self.format.width

    def __eq__(self, other: object) -> bool:
        """Same format and the same code values in every plane."""
        return (
            isinstance(other, Frame)
            and self.format == other.format
            and all(np.array_equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def as_tensor(self) -> DictTensorYUV | Tensor:
        """The picture in [0, 1]: a DictTensorYUV for 4:2:0, else a tensor [1, 3, H, W] (float32)."""
        import torch

        y, u, v = (torch.from_numpy(p.astype(np.float32) / self.format.peak)[None, None] for p in self.planes)
        if self.format.pixel_format.is_subsampled:
            return DictTensorYUV(y=y, u=u, v=v)
        return torch.cat((y, u, v), dim=1)

    @classmethod
    def from_tensor(cls, picture: DictTensorYUV | Tensor, format: VideoFormat) -> Frame:
        """The frame of a picture in [0, 1]: rounded to code values, values outside clamped."""
        channels = (
            (picture["y"], picture["u"], picture["v"])
            if isinstance(picture, dict)
            else tuple(picture[:, i : i + 1] for i in range(3))
        )
        planes = tuple(
            (c.detach()[0, 0].double() * format.peak).round().clamp(0, format.peak).cpu().numpy().astype(np.uint16)
            for c in channels
        )
        return cls(planes, format)  # type: ignore[arg-type]
