"""Networks from which later frames may predict theirs: the store, identical in encoder and decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coolvid.errors import StreamError
from coolvid.picture.types import FrameType

from .architecture import FrameArchitecture
from .coded_frame import CodedFrame, CodedModule, TensorSpec
from .prior import prior_modules

STORED_FRAMES = 8
PRIOR = -1
"""Stands for the prior in place of a predictor's display index."""

Branches = Mapping[str, Mapping[str, CodedModule]]


@dataclass(frozen=True, eq=False)
class FrameNetworks:
    """The modules of one coded frame, by branch and name, unchanged ones included."""

    display_index: int
    architecture: FrameArchitecture
    modules: Branches

    @classmethod
    def of(cls, frame: CodedFrame) -> FrameNetworks:
        """The networks of this frame."""
        modules = {name: coolchic.modules for name, coolchic in frame.coolchics.items()}
        return cls(frame.display_index, frame.architecture, modules)

    @classmethod
    def prior(cls, architecture: FrameArchitecture) -> FrameNetworks:
        """The networks that come with the codec, for an I frame of this architecture."""
        return cls(PRIOR, architecture, {"residue": prior_modules()})


class NetworkStore:
    """Networks of the last STORED_FRAMES coded frames, back to the last I frame."""

    def __init__(self, frames: Iterable[FrameNetworks] = ()) -> None:
        self._frames: deque[FrameNetworks] = deque(maxlen=STORED_FRAMES)
        for each in frames:
            self.add(each)

    @property
    def frames(self) -> tuple[FrameNetworks, ...]:
        """The frames, last coded first."""
        return tuple(reversed(self._frames))

    def add(self, networks: FrameNetworks) -> None:
        """Add the frame just coded, which is not a copy; an I frame removes all others."""
        if networks.architecture.frame_type is FrameType.I:
            self._frames.clear()
        self._frames.append(networks)

    def find(self, display_index: int, architecture: FrameArchitecture) -> FrameNetworks:
        """The networks of a predictor, or the prior for an I frame. Raises StreamError for any other frame."""
        if display_index == PRIOR and architecture.frame_type is FrameType.I:
            return FrameNetworks.prior(architecture)
        found = next((each for each in self._frames if each.display_index == display_index), None)
        if found is None:
            known = sorted(each.display_index for each in self._frames)
            raise StreamError(f"a packet inherits networks of frame {display_index}; those of {known} are kept")
        return found


def same_parameters(a: CodedModule, b: CodedModule) -> bool:
    """Whether two modules have equal integers and steps; scales do not count."""
    return (
        (a.weight_shift, a.bias_shift) == (b.weight_shift, b.bias_shift)
        and a.parameters.keys() == b.parameters.keys()
        and all(np.array_equal(values, b.parameters[name]) for name, values in a.parameters.items())
    )


def fits(module: CodedModule | None, specs: Sequence[TensorSpec]) -> bool:
    """Whether a module has exactly these tensors."""
    if module is None or len(module.parameters) != len(specs):
        return False
    return all(s.name in module.parameters and module.parameters[s.name].shape == s.shape for s in specs)


def fitted(module: CodedModule | None, specs: Sequence[TensorSpec]) -> CodedModule | None:
    """A module in tensors of these specs: the values at indices that a tensor of the same name has, too, and zeros
    elsewhere. None if no tensor has the same name and number of dimensions."""
    if module is None or fits(module, specs):
        return module
    parameters, found = {}, False
    for spec in specs:
        parameters[spec.name] = values = np.zeros(spec.shape, np.int32)
        source = module.parameters.get(spec.name)
        if source is not None and source.ndim == values.ndim:
            common = tuple(slice(min(a, b)) for a, b in zip(source.shape, values.shape, strict=True))
            values[common] = source[common]
            found = True
    return CodedModule(parameters, module.weight_shift, module.bias_shift, module.scales) if found else None
