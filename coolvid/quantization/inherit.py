"""Networks of a coded frame, put into the encoder of another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coolvid.bitstream.weights import module_bits
from coolvid.errors import ConfigError
from coolvid.model.coolchic import CoolChicEncoder
from coolvid.model.frame_encoder import FrameEncoder
from coolvid.modules import module_tensors
from coolvid.networks import FrameNetworks, parameter_names

from .state import QuantizedModule


def inherit(frame_encoder: FrameEncoder, networks: FrameNetworks, names: Collection[str]) -> FrameEncoder:
    """The encoder, changed in place, with these modules ("residue.arm", ...) of a coded frame: frozen and quantised.

    Names of modules without parameters are passed over. Raises ConfigError for networks of another architecture.
    """
    for name, taken in _modules(frame_encoder, networks).items():
        if name in names:
            coolchic = frame_encoder.branches[name.split(".")[0]]
            taken.write(coolchic)
            adopt(coolchic, taken)
    return frame_encoder


def warm_start(frame_encoder: FrameEncoder, networks: FrameNetworks) -> FrameEncoder:
    """The encoder, changed in place, with the parameters of a coded frame, from which training goes on."""
    for name, taken in _modules(frame_encoder, networks).items():
        taken.write(frame_encoder.branches[name.split(".")[0]])
    return frame_encoder


def adopt(coolchic: CoolChicEncoder, taken: QuantizedModule) -> None:
    """Declare a module inherited, whose values are already in the model."""
    taken.record(coolchic)
    coolchic.inherited |= {taken.name.split(".")[1]}


def _modules(frame_encoder: FrameEncoder, networks: FrameNetworks) -> dict[str, QuantizedModule]:
    """The modules of a coded frame that have parameters, by name."""
    if networks.architecture != frame_encoder.architecture:
        raise ConfigError(f"frame {networks.display_index} has another architecture; inherit from one of the same")
    return {
        name: inherited_module(frame_encoder.branches, networks, name) for name in parameter_names(networks.modules)
    }


def inherited_module(branches: Mapping[str, CoolChicEncoder], networks: FrameNetworks, name: str) -> QuantizedModule:
    """One module of a coded frame."""
    branch, module = name.split(".")
    return QuantizedModule(name, branches[branch].tensors[module], networks.modules[branch][module])


def network_bits(networks: FrameNetworks) -> dict[str, float]:
    """What each module of a coded frame costs when it is sent: what a frame like it may expect to pay."""
    tensors = {branch: module_tensors(each) for branch, each in networks.architecture.branches.items()}
    return {
        name: float(module_bits(networks.modules[branch][module], tensors[branch][module]))
        for name in parameter_names(networks.modules)
        for branch, module in [name.split(".")]
    }
