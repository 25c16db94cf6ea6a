"""Compiled loops for training and decoding, where this installation has them.

The module for the widest instruction set that this processor offers is chosen at import; COOLVID_KERNELS = v4, v3,
portable or none in the environment overrules that. `compiled` is the module, or None: then everything is computed in
PyTorch and numpy, with the same decoded pixels.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from coolvid.errors import ConfigError

SETS = ("v4", "v3", "portable")


def _load(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{__name__}._{name}")
    except ImportError:
        return None


def available() -> tuple[str, ...]:
    """Names of the instruction sets that are both built and offered by this processor, widest first."""
    portable = _load("portable")
    if portable is None:
        return ()
    return tuple(name for name in SETS if portable.cpu_supports(name) and _load(name) is not None)


def load(name: str) -> ModuleType | None:
    """The kernels for one instruction set; "" for the widest, "none" for none. Raises ConfigError."""
    if name == "none":
        return None
    found = available()
    if name and name not in found:
        raise ConfigError(f"no compiled kernels '{name}' here; choose one of: {', '.join((*found, 'none'))}")
    chosen = name or (found[0] if found else "")
    return _load(chosen) if chosen else None


compiled = load(os.environ.get("COOLVID_KERNELS", ""))
decode: Any = getattr(compiled, "decode", None)  # the integer kernels of decoding, or None


def description() -> str:
    """What computes the heavy loops, for people."""
    return "PyTorch and numpy" if compiled is None else f"compiled kernels ({compiled.__name__.rpartition('_')[2]})"


_threads = 0


def threads() -> int:
    """Threads that kernels use: as set, else one for each core this process may use."""
    return _threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def set_threads(count: int) -> None:
    """Use `count` threads from now on, 0 for all cores. Results never depend on it."""
    global _threads
    _threads = count
