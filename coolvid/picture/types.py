"""Pictures: frame types, pixel formats, colour and display description, and Frame (integer planes).

A `Frame` holds integers, as files do and as decoding gives them. `as_tensor()` converts it to the floating-point
picture in [0, 1] that training uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from coolvid.errors import ConfigError, within
from coolvid.values import check_fields, instance

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 16
MAX_SIDE = 16384
MAX_PIXELS = 1 << 26
BIT_DEPTHS = (8, 10)
MAX_ASPECT_TERM = 4096
COLOR_POINTS = {
    "primaries": frozenset((1, 2, *range(4, 13), 22)),
    "transfer": frozenset((1, 2, *range(4, 19))),
    "matrix": frozenset((*range(3), *range(4, 15))),
}
"""The code points of H.273 by field of ColorInfo."""

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
    """Colour description, ITU-T H.273 code points (2 = unspecified); range 1 = limited, 2 = full, 0 = unspecified.

    Code points that H.273 reserves are allowed; no video file can hold them. Raises ConfigError for other numbers.
    """

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    range: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "colour ")
        for name in COLOR_POINTS:
            within(f"colour {name}", getattr(self, name), 0, 255)
        within("colour range (0 unspecified, 1 limited, 2 full)", self.range, 0, 2)

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names of the code points that H.273 does not define."""
        return tuple(name for name, known in COLOR_POINTS.items() if getattr(self, name) not in known)

    @property
    def words(self) -> str:
        """For example: primaries 9, transfer 16, matrix 9, range limited."""
        reserved = self.reserved
        points = (f"{name} {getattr(self, name)}{' (reserved)' * (name in reserved)}" for name in COLOR_POINTS)
        return f"{', '.join(points)}, range {('unspecified', 'limited', 'full')[self.range]}"


class ChromaSiting(Enum):
    """Where the chroma samples of 4:2:0 lie in their block of 2x2 luma samples: the first of H.273's ChromaLocTypes."""

    UNSPECIFIED = "unspecified"
    LEFT = "left"
    CENTER = "center"
    TOP_LEFT = "topleft"
    TOP = "top"


Point = tuple[int, int]
"""(x, y), a chromaticity."""


@dataclass(frozen=True)
class MasteringDisplay:
    """The display that a video was graded on, within the limits of SMPTE ST 2086. Raises ConfigError beyond them.

    colors: chromaticities of red, green, blue and white in 1/50000, x in 5..37000 and y in 5..42000. luminance: (least,
    greatest) in 1/10000 cd/m², 0..50000 and 50000..100000000, different. None: not stated, which holds for one at most.
    """

    colors: tuple[Point, Point, Point, Point] | None = None
    luminance: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "mastering display ")
        if self.colors is None and self.luminance is None:
            raise ConfigError("a mastering display needs colors or luminance")
        for x, y in self.colors or ():
            within("chromaticity x of a mastering display, in 1/50000,", x, 5, 37000)
            within("chromaticity y of a mastering display, in 1/50000,", y, 5, 42000)
        if self.luminance is not None:
            least, greatest = self.luminance
            within("greatest luminance of a mastering display, in 1/10000 cd/m²,", greatest, 50000, 100_000_000)
            within("least luminance of a mastering display, in 1/10000 cd/m²,", least, 0, min(50000, greatest - 1))

    def __str__(self) -> str:
        """In words: R(0.68,0.32) G(0.265,0.69) B(0.15,0.06) W(0.3127,0.329), 0.0001 to 1000 cd/m²."""
        places = zip("RGBW", self.colors or (), strict=False)
        colors = " ".join(f"{letter}({x / 50000:g},{y / 50000:g})" for letter, (x, y) in places)
        span = " to ".join(f"{value / 10000:g}" for value in self.luminance or ())
        return ", ".join(filter(None, (colors, span and f"{span} cd/m²")))


@dataclass(frozen=True)
class LightLevel:
    """Content light level, CTA-861.3: MaxCLL and MaxFALL in cd/m², up to 65535. 0: not stated, which holds for one at
    most. Raises ConfigError."""

    max_cll: int
    max_fall: int

    def __post_init__(self) -> None:
        check_fields(self)
        within("MaxCLL", self.max_cll, 0, 0xFFFF)
        within("MaxFALL", self.max_fall, 0, 0xFFFF)
        if self.max_cll == self.max_fall == 0:
            raise ConfigError("a light level needs MaxCLL or MaxFALL above 0")

    def __str__(self) -> str:
        return f"MaxCLL {self.max_cll}, MaxFALL {self.max_fall} cd/m²"


@dataclass(frozen=True)
class DisplayInfo:
    """How players should show pictures, beside colour. The defaults: square pixels, nothing else stated.

    pixel_aspect: width / height of a pixel, two numbers of 1..MAX_ASPECT_TERM. Raises ConfigError.
    """

    pixel_aspect: Fraction = Fraction(1)
    chroma_siting: ChromaSiting = ChromaSiting.UNSPECIFIED
    mastering: MasteringDisplay | None = None
    light: LightLevel | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        within("numerator of the pixel aspect ratio", self.pixel_aspect.numerator, 1, MAX_ASPECT_TERM)
        within("denominator of the pixel aspect ratio", self.pixel_aspect.denominator, 1, MAX_ASPECT_TERM)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(name, value) in words of all that is stated."""
        aspect = f"{self.pixel_aspect.numerator}:{self.pixel_aspect.denominator}"
        stated = (
            ("pixel aspect", aspect if self.pixel_aspect != 1 else None),
            ("chroma siting", self.chroma_siting.value if self.chroma_siting is not ChromaSiting.UNSPECIFIED else None),
            ("mastering display", self.mastering),
            ("light level", self.light),
        )
        return tuple((name, str(value)) for name, value in stated if value is not None)


def bounded_aspect(aspect: Fraction) -> Fraction:
    """The nearest pixel aspect ratio > 0 that a DisplayInfo can hold."""
    if aspect > 1:
        return 1 / bounded_aspect(1 / aspect)
    return max(aspect.limit_denominator(MAX_ASPECT_TERM), Fraction(1, MAX_ASPECT_TERM))


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
