"""Multiplications per decoded picture, by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coolvid.codec.architecture import Architecture
from coolvid.plugin.interfaces import NormativePlugin


@dataclass(frozen=True)
class Complexity:
    """Multiplications per picture by module; n_pixels: H * W."""

    macs: Mapping[str, float]
    n_pixels: int

    @property
    def total(self) -> float:
        return sum(self.macs.values())

    @property
    def per_pixel(self) -> float:
        return self.total / self.n_pixels

    def table(self, n_parameters: Mapping[str, int]) -> str:
        """One line per module: name, parameters, multiplications per picture."""
        lines = [f"{'module':<12}{'parameters':>12}{'MAC':>16}"]
        for name, macs in self.macs.items():
            lines.append(f"{name:<12}{n_parameters.get(name, 0):>12}{macs:>16.0f}")
        lines.append(f"{'total':<12}{sum(n_parameters.values()):>12}{self.total:>16.0f}")
        return "\n".join(lines)


def complexity_of(
    architecture: Architecture, plugins: Mapping[str, NormativePlugin], size: tuple[int, int]
) -> Complexity:
    """size: (height, width) of the picture."""
    grids = architecture.grids(*size)
    finest = grids[0].height * grids[0].width
    half_sizes = {(g.log2, g.is_hyper): ((g.height + 1) // 2) * ((g.width + 1) // 2) for g in grids}
    ifce = sum(
        half_sizes[level] * architecture.n_ifce * architecture.coarser(level[0]) for level in architecture.ifce_levels
    )
    macs = {
        "arm": plugins["arm"].macs() * sum(g.height * g.width for g in grids),
        "ifce": float(ifce),
        "synthesis": plugins["synthesis"].macs() * finest,
        "upsampling": plugins["upsampling"].macs() * finest,
    }
    return Complexity(macs, size[0] * size[1])
