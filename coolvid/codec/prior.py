"""The prior: networks that come with the codec, from which an I frame may predict its own.

They were trained once, on generated pictures (sequences/prior.py), and belong to the stream format: another prior.npz
is another format version. The file is in numpy's format, without pickles; for each module M it holds

    M      weight shift, bias shift, then the activation scales
    M/P    parameter P, integers
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coolvid.errors import UnsupportedStream

from .coded_frame import CodedModule

_FILE = Path(__file__).with_name("prior.npz")
_SHA256 = "0a787831f92206b6b580785dedb32891d9061599776500d315bb6e7e6439ff58"


@cache
def prior_modules() -> Mapping[str, CodedModule]:
    """The modules by name. Raises UnsupportedStream for a file of another format."""
    data = _FILE.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise UnsupportedStream(f"{_FILE} is not the prior of this stream format; install coolvid again")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays: dict[str, Any] = dict(file)
    out = {}
    for name in (each for each in arrays if "/" not in each):
        weight_shift, bias_shift, *scales = arrays[name].tolist()
        own = [each for each in arrays if each.startswith(f"{name}/")]
        parameters = {each.removeprefix(f"{name}/"): arrays[each].astype(np.int32) for each in own}
        out[name] = CodedModule(parameters, weight_shift, bias_shift, tuple(scales))
    return out


def pack_prior(modules: Mapping[str, CodedModule]) -> dict[str, Any]:
    """The arrays of the file, by name."""
    arrays: dict[str, Any] = {}
    for name, module in modules.items():
        arrays[name] = np.array([module.weight_shift, module.bias_shift, *module.scales], np.uint8)
        arrays.update({f"{name}/{key}": value for key, value in module.parameters.items()})
    return arrays
