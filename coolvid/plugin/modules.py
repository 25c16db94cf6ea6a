"""The modules of a Cool-chic, built from its architecture: the three plugins, and IFCE, which is part of the core."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from coolvid.codec.architecture import Architecture
from coolvid.codec.coded_frame import TensorSpec

from .interfaces import ArmPlugin, NormativePlugin, SynthesisPlugin, UpsamplingPlugin
from .registry import build


class Plugins(NamedTuple):
    """The plugins of one Cool-chic."""

    arm: ArmPlugin
    synthesis: SynthesisPlugin
    upsampling: UpsamplingPlugin

    def by_name(self) -> dict[str, NormativePlugin]:
        return self._asdict()


def build_plugins(architecture: Architecture) -> Plugins:
    """arm, synthesis and upsampling of this architecture. Raises MissingPlugin."""
    return _plugins(_Same(architecture))


class _Same:
    """An architecture as a key that is equal only to itself. By value, options of different types (1 and True) would be
    equal; and comparison is slow for a key that every frame looks up several times."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def __hash__(self) -> int:
        return id(self.architecture)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.architecture is other.architecture


@lru_cache(maxsize=64)
def _plugins(key: _Same) -> Plugins:
    architecture = key.architecture
    return Plugins(
        build("arm", architecture.arm, architecture.arm_ports),
        build("synthesis", architecture.synthesis, architecture.synthesis_ports),
        build("upsampling", architecture.upsampling, architecture.upsampling_ports),
    )


def ifce_tensors(architecture: Architecture) -> tuple[TensorSpec, ...]:
    """One linear map per grid with an IFCE, finest first: coarser grids -> n_ifce features."""
    out: list[TensorSpec] = []
    for i, (log2, _) in enumerate(architecture.ifce_levels):
        out.append(TensorSpec(f"maps.{i}.weight", (architecture.n_ifce, architecture.coarser(log2))))
        out.append(TensorSpec(f"maps.{i}.bias", (architecture.n_ifce,), "bias"))
    return tuple(out)


def module_tensors(architecture: Architecture) -> dict[str, tuple[TensorSpec, ...]]:
    """Parameters of every module, in stream order (coded.MODULES)."""
    plugins = build_plugins(architecture).by_name()
    tensors = {name: plugin.tensors() for name, plugin in plugins.items()}
    return dict(sorted({**tensors, "ifce": ifce_tensors(architecture)}.items()))


def module_n_scales(architecture: Architecture) -> dict[str, int]:
    """Number of activation scales in the stream per module; IFCE has none (its outputs have CONTEXT_BITS)."""
    plugins = build_plugins(architecture).by_name()
    return dict(sorted({**{name: plugin.n_scales() for name, plugin in plugins.items()}, "ifce": 0}.items()))
