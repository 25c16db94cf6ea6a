"""What a process of the command line sets up for itself before anything else runs in it."""

from __future__ import annotations

import os
import signal
import sys
import threading

CLOSED: set[int] = set()
"""Standard streams, by descriptor, that were closed when the process started."""
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare() -> None:
    """Connect standard streams that are closed, and let idle threads of torch sleep on cores that others share."""
    for number, (name, mode) in enumerate(STREAMS):
        _connect(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _end_like_ctrl_c()


def _end_like_ctrl_c() -> None:
    """A request to end (by a scheduler, a service manager, a closed terminal) keeps finished frames, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _connect(number: int) -> None:
    """Connect a closed descriptor to the null device. Else the next file to open gets its number, and messages that
    libraries print on standard error end up in that file."""
    try:
        os.fstat(number)
    except OSError:
        CLOSED.add(number)
        null = os.open(os.devnull, os.O_RDWR)
        if null == number:
            os.set_inheritable(null, True)
        else:
            os.dup2(null, number)
            os.close(null)
