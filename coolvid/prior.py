"""The prior: networks that come with the codec. A frame may predict its own from them, as from an earlier frame's.

They were trained once, on pictures that the project generates (sequences/prior.py), and belong to the stream format:
another prior.npz is another format version. The file is numpy's, without pickles; for frame type T, branch B, module M:

    T/B/M     weight shift, bias shift, then the activation scales
    T/B/M/P   parameter P, integers
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .coded import CodedModule
from .errors import UnsupportedStream
from .types import FrameType

Branches = Mapping[str, Mapping[str, CodedModule]]

_FILE = Path(__file__).with_name("prior.npz")
_SHA256 = "db06dc99f9f6e1d5adee5bc2ab0aab4a27be92883544187ea24567903adc17d3"


@cache
def prior_modules(frame_type: FrameType) -> Branches:
    """By branch and module. Raises UnsupportedStream when the installed file is not the one of this format."""
    arrays = _arrays()
    out: dict[str, dict[str, CodedModule]] = {}
    for place in (name for name in arrays if name.startswith(f"{frame_type.name}/") and name.count("/") == 2):
        _, branch, module = place.split("/")
        weight_shift, bias_shift, *scales = arrays[place].tolist()
        own = [name for name in arrays if name.startswith(f"{place}/")]
        parameters = {name.removeprefix(f"{place}/"): arrays[name].astype(np.int32) for name in own}
        out.setdefault(branch, {})[module] = CodedModule(parameters, weight_shift, bias_shift, tuple(scales))
    return out


def pack_prior(modules: Mapping[FrameType, Branches]) -> dict[str, Any]:
    """The arrays of the file, by name."""
    arrays: dict[str, Any] = {}
    for frame_type, branches in modules.items():
        for branch, own in branches.items():
            for name, module in own.items():
                place = f"{frame_type.name}/{branch}/{name}"
                arrays[place] = np.array([module.weight_shift, module.bias_shift, *module.scales], np.uint8)
                arrays.update({f"{place}/{key}": value for key, value in module.parameters.items()})
    return arrays


@cache
def _arrays() -> dict[str, Any]:
    data = _FILE.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise UnsupportedStream(f"{_FILE} is not the prior of this stream format; install coolvid anew")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
