"""Compiled loops for training and decoding, if installed.

At import, the module for the widest instruction set of this processor is chosen; COOLVID_KERNELS = v4, v3, portable
or none in the environment overrides that. `compiled` is the module, or None: then PyTorch and numpy compute
everything, with the same decoded pixels.
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
    """Names of the instruction sets that are built and that this processor supports, widest first."""
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
    """Implementation of the heavy loops, as text for users."""
    return "PyTorch and numpy" if compiled is None else f"compiled kernels ({compiled.__name__.rpartition('_')[2]})"


_threads = 0


def threads() -> int:
    """Number of kernel threads: as set, else one per core available to this process."""
    return _threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def set_threads(count: int) -> None:
    """Use `count` threads from now on, 0 for all cores. Results do not depend on it."""
    global _threads
    _threads = count
