"""The architecture of a Cool-chic, as far as the decoder must know it: grids, contexts and plugins.

Pure values: the encoder derives them from CoolChicEncoderParameter, the decoder reads them from the stream header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coolvid.errors import ConfigError
from coolvid.picture.types import FrameType

MAX_RESOLUTION = 10
MAX_CONTEXT = 40
MAX_FEATURES = 64
FINAL_UPSAMPLINGS = ("nearest", "bilinear", "bicubic")

# The 40 causal neighbours (dy, dx) inside a 9x9 window, in decreasing order of use.
_PRIORITY = (
    (38, 35, 30, 25, 23, 31, 36, 37, 39),
    (33, 28, 21, 20, 6, 15, 22, 29, 34),
    (32, 18, 12, 10, 5, 9, 14, 19, 27),
    (24, 13, 8, 2, 1, 3, 11, 17, 26),
    (16, 7, 4, 0),
)
NEIGHBOURS: tuple[tuple[int, int], ...] = tuple(
    (dy, dx) for _, dy, dx in sorted((p, i - 4, j - 4) for i, row in enumerate(_PRIORITY) for j, p in enumerate(row))
)


def wave_delay(n_context: int) -> int:
    """The lag of a row, in columns, relative to the row above, with which all its contexts are decoded in time."""
    return max([1] + [dx // -dy + 1 for dy, dx in NEIGHBOURS[:n_context] if dy < 0])


@dataclass(frozen=True)
class Grid:
    """One latent grid of ceil(frame size / 2**log2) positions."""

    log2: int
    height: int
    width: int
    is_hyper: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a module.

    arm: n_in contexts -> 2. ifce: n_in stacked grids -> n_out features. upsampling: n_in grids -> n_in planes.
    synthesis: n_in planes, of which the last n_noise are common randomness -> n_out. warper: one plane -> one plane.
    """

    n_in: int
    n_out: int
    n_noise: int = 0


@dataclass(frozen=True)
class PluginRecord:
    """A plugin as a stream names it; options are nested tuples of int, bool, float and str."""

    name: str
    version: int
    options: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One Cool-chic. Resolutions are inclusive ranges (finest, coarsest) of log2 downsampling; None: absent."""

    latent_resolution: tuple[int, int]
    hyperlatent_resolution: tuple[int, int] | None
    ifce_resolution: tuple[int, int] | None
    n_ifce: int
    n_context: int
    common_randomness: bool
    final_upsampling: str
    n_out: int
    arm: PluginRecord
    upsampling: PluginRecord
    synthesis: PluginRecord

    def __post_init__(self) -> None:
        spans = (self.latent_resolution, self.hyperlatent_resolution, self.ifce_resolution)
        for span in spans:
            if span is not None and not 0 <= span[0] <= span[1] <= MAX_RESOLUTION:
                raise ConfigError(f"resolution range {span} must be ascending within 0..{MAX_RESOLUTION}")
        if not 1 <= self.n_context <= MAX_CONTEXT:
            raise ConfigError(f"{self.n_context} spatial contexts; choose 1..{MAX_CONTEXT}")
        if not 0 <= self.n_ifce <= MAX_FEATURES or bool(self.n_ifce) != (self.ifce_resolution is not None):
            raise ConfigError(f"{self.n_ifce} IFCE features for resolutions {self.ifce_resolution}")
        if self.final_upsampling not in FINAL_UPSAMPLINGS:
            raise ConfigError(f"final upsampling '{self.final_upsampling}'; choose one of {FINAL_UPSAMPLINGS}")
        if not 1 <= self.n_out <= 8:
            raise ConfigError(f"{self.n_out} outputs; choose 1..8")

    def grids(self, height: int, width: int) -> tuple[Grid, ...]:
        """All grids, finest first; at one resolution the normal grid, then the hyper grid. Coded in reverse order."""
        out = []
        for log2 in range(MAX_RESOLUTION + 1):
            for span, is_hyper in ((self.latent_resolution, False), (self.hyperlatent_resolution, True)):
                if span is not None and span[0] <= log2 <= span[1]:
                    out.append(Grid(log2, -(-height >> log2), -(-width >> log2), is_hyper))
        return tuple(out)

    @property
    def n_planes(self) -> int:
        """The number of normal grids, which is that of the upsampled planes."""
        return self.latent_resolution[1] - self.latent_resolution[0] + 1

    def coarser(self, log2: int) -> int:
        """The number of grids coarser than `log2`, hyper ones included, but at least 1: the inputs of its IFCE map."""
        spans = (self.latent_resolution, self.hyperlatent_resolution)
        return max(1, sum(max(0, s[1] - max(log2 + 1, s[0]) + 1) for s in spans if s is not None))

    @property
    def ifce_levels(self) -> tuple[tuple[int, bool], ...]:
        """(log2, is_hyper) of every grid that has an IFCE map, finest first."""
        if self.ifce_resolution is None:
            return ()
        low, high = self.ifce_resolution
        return tuple((g.log2, g.is_hyper) for g in self.grids(1, 1) if low <= g.log2 <= high)

    @property
    def arm_ports(self) -> Ports:
        return Ports(self.n_context + self.n_ifce, 2)

    @property
    def upsampling_ports(self) -> Ports:
        return Ports(self.n_planes, self.n_planes)

    @property
    def synthesis_ports(self) -> Ports:
        noise = self.n_planes if self.common_randomness else 0
        return Ports(self.n_planes + noise, self.n_out, noise)


@dataclass(frozen=True)
class FrameArchitecture:
    """The architecture of a frame: one entry of the stream header's table, to which packets refer by index."""

    frame_type: FrameType
    residue: Architecture
    motion: Architecture | None
    warper: PluginRecord | None

    def __post_init__(self) -> None:
        if (self.motion is None) != (self.frame_type is FrameType.I) or (self.warper is None) != (self.motion is None):
            raise ConfigError(f"an {self.frame_type.name} frame with motion {self.motion} and warper {self.warper}")
        if self.residue.n_out != self.frame_type.n_residue:
            raise ConfigError(f"residue of a {self.frame_type.name} frame has {self.residue.n_out} outputs")
        if self.motion is not None and self.motion.n_out != self.frame_type.n_motion:
            raise ConfigError(f"motion of a {self.frame_type.name} frame has {self.motion.n_out} outputs")

    @property
    def branches(self) -> dict[str, Architecture]:
        """Cool-chics by name, in stream order."""
        return {"residue": self.residue} | ({"motion": self.motion} if self.motion is not None else {})
