"""Transfer of a coded frame's networks into the encoder of another frame."""

from __future__ import annotations

import torch

from coolvid.codec.coded_frame import CodedModule
from coolvid.codec.networks import FrameNetworks, fitted
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.frame_encoder import FrameEncoder

from .state import named_parameters
from .steps import dequantize


def warm_start(frame_encoder: FrameEncoder, networks: FrameNetworks) -> FrameEncoder:
    """The encoder, changed in place, with the parameters of a coded frame as the start of training.

    Modules that the coded frame lacks, or has in another size, stay unchanged. So does the synthesis if only one of the
    two has motion: a network that outputs whole pictures is a poor start for one that corrects predictions.
    """
    set_predictor(frame_encoder, networks)
    same_task = (networks.architecture.motion is None) == (frame_encoder.architecture.motion is None)
    for branch, coolchic in frame_encoder.branches.items():
        for module, source in networks.modules.get(branch, {}).items():
            if module != "synthesis" or same_task:
                _write_common(coolchic, module, source)
    return frame_encoder


def _write_common(coolchic: CoolChicEncoder, module: str, source: CodedModule) -> None:
    """Write the common part of two modules into the model."""
    own = named_parameters(coolchic, module)
    specs = [spec for spec in coolchic.tensors[module] if spec.name in source.parameters]
    with torch.no_grad():
        for name, value in dequantize(source, specs).items():
            if own[name].ndim == value.ndim:
                common = tuple(slice(min(pair)) for pair in zip(own[name].shape, value.shape, strict=True))
                own[name][common] = torch.from_numpy(value[common]).to(own[name])


def set_predictor(frame_encoder: FrameEncoder, networks: FrameNetworks | None) -> None:
    """Set the networks that the stream may predict the encoder's networks from; None for no prediction."""
    for branch, coolchic in frame_encoder.branches.items():
        known = {} if networks is None else networks.modules.get(branch, {})
        found = {name: fitted(known.get(name), specs) for name, specs in coolchic.tensors.items() if specs}
        coolchic.predict_from({name: module for name, module in found.items() if module is not None})
