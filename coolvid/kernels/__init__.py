"""Compiled loops for training and decoding, if installed.

At import, the module for the widest instruction set of this processor is chosen; COOLVID_KERNELS = v4, v3, portable
or none in the environment overrides that. `compiled` is the module, or None: then PyTorch and numpy compute
everything, with the same decoded pixels. A set that is not here is refused when a kernel is first used.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

from coolvid.errors import ConfigError

SETS = ("v4", "v3", "portable")
Given = ParamSpec("Given")
Made = TypeVar("Made")


def _load(name: str) -> Any:
    """The module; None if it is not built."""
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


def load(name: str) -> Any:
    """The kernels for one instruction set; "" for the widest, "none" for None. Raises ConfigError."""
    if name == "none":
        return None
    found = available()
    if name and name not in found:
        raise ConfigError(
            f"no compiled kernels '{name}' here; set COOLVID_KERNELS to one of: {', '.join((*found, 'none'))}"
        )
    chosen = name or (found[0] if found else "")
    return _load(chosen) if chosen else None


class Refused:
    """In place of kernels that are not here: every use raises the error of load()."""

    def __init__(self, error: ConfigError) -> None:
        self._message = str(error)

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(self._message)


def _load_wanted() -> Any:
    try:
        return load(os.environ.get("COOLVID_KERNELS", ""))
    except ConfigError as error:
        return Refused(error)


compiled: Any = _load_wanted()
decode: Any = compiled if isinstance(compiled, Refused) else getattr(compiled, "decode", None)
"""The integer kernels of decoding, or None."""


def description() -> str:
    """Implementation of the heavy loops, as text for users. Raises ConfigError for a set that is not here."""
    return "PyTorch and numpy" if compiled is None else f"compiled kernels ({compiled.__name__.rpartition('_')[2]})"


@dataclass
class _Use:
    """What kernels use during one call. count: of threads, 0 for all cores. kept: objects, by the function that makes
    them."""

    count: int = 0
    kept: dict[Any, Any] = field(default_factory=dict)


class _Here(threading.local):
    """The current use in each Python thread."""

    def __init__(self) -> None:
        self.use = _Use()


_here = _Here()


@contextmanager
def using(count: int | None) -> Iterator[None]:
    """Compute with `count` threads in this block and Python thread: 0 for all cores, None for as many as around it.

    Results do not depend on it.
    """
    before = _here.use
    _here.use = _Use(before.count if count is None else count)
    try:
        yield
    finally:
        _here.use = before


def threads() -> int:
    """Number of kernel threads: that of using(), else one per core available to this process."""
    count = _here.use.count
    return count or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def kept(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Decorates a function that makes a kernel object: the latest 8 are kept, by their arguments.

    Such an object has scratch memory, so two Python threads must not share it. Each has its own, and using() starts
    anew and frees them at its end.
    """

    @wraps(make)
    def find(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        mine = _here.use.kept
        if make not in mine:
            mine[make] = lru_cache(maxsize=8)(make)
        return cast(Made, mine[make](*args, **kwargs))

    return find
