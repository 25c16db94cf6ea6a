"""What a process of the command line sets up for itself before anything else runs in it."""

from __future__ import annotations

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare() -> None:
    """Connect standard streams that are closed, and let idle threads of torch sleep on cores that others share."""
    for number, (name, mode) in enumerate(STREAMS):
        _connect(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _connect(number: int) -> None:
    """Connect a closed descriptor to the null device. Else the next file to open gets its number, and messages that
    libraries print on standard error end up in that file."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null == number:
            os.set_inheritable(null, True)
        else:
            os.dup2(null, number)
            os.close(null)
