"""The prior: networks that come with the codec. A frame may predict its own from them, as from an earlier frame's.

They were trained once, on pictures that sequences/prior.py generates, and are part of the stream format: another
prior.npz is another format version. The file is numpy's, without pickles; per frame type T and module M of branch B it has
    T         the FrameArchitecture, as the stream header writes it, bytes
    T/B/M     weight shift, bias shift, then the activation scales
    T/B/M/P   parameter P, integers
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .architecture import FrameArchitecture
from .bitstream.headers import FRAME
from .coded import CodedModule
from .errors import UnsupportedStream
from .networks import FrameNetworks
from .records import BitReader, BitWriter
from .types import FrameType

PRIOR_INDEX = -1
"""Stands in for the display index of the prior."""

_FILE = Path(__file__).with_name("prior.npz")
_SHA256 = "?"


@lru_cache(maxsize=1)
def prior_networks() -> Mapping[FrameType, FrameNetworks]:
    """The networks for each type of frame. Raises UnsupportedStream when the installed file is not the right one."""
    data = _FILE.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise UnsupportedStream(f"{_FILE} is not the prior of this format; install coolvid anew")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {kind: _unpacked(arrays, kind) for kind in FrameType if kind.name in arrays}


def pack_prior(networks: Mapping[FrameType, FrameNetworks]) -> dict[str, Any]:
    """The arrays of the file, by name."""
    arrays: dict[str, Any] = {}
    for kind, own in networks.items():
        writer = BitWriter()
        FRAME.write(writer, own.architecture, {})
        arrays[kind.name] = np.frombuffer(writer.getvalue(), np.uint8)
        for branch, modules in own.modules.items():
            for name, module in modules.items():
                place = f"{kind.name}/{branch}/{name}"
                arrays[place] = np.array([module.weight_shift, module.bias_shift, *module.scales], np.uint8)
                arrays.update({f"{place}/{key}": value for key, value in module.parameters.items()})
    return arrays


def _unpacked(arrays: Any, kind: FrameType) -> FrameNetworks:
    architecture: FrameArchitecture = FRAME.read(BitReader(arrays[kind.name].tobytes()), {})
    modules: dict[str, dict[str, CodedModule]] = {}
    for place in (name for name in arrays if name.startswith(f"{kind.name}/") and name.count("/") == 2):
        _, branch, name = place.split("/")
        weight_shift, bias_shift, *scales = arrays[place].tolist()
        own = [key for key in arrays if key.startswith(f"{place}/")]
        parameters = {key.removeprefix(f"{place}/"): arrays[key].astype(np.int32) for key in own}
        modules.setdefault(branch, {})[name] = CodedModule(parameters, weight_shift, bias_shift, tuple(scales))
    return FrameNetworks(PRIOR_INDEX, architecture, modules)
