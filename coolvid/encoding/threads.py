"""The threads of a training, for as long as it lasts and in the Python thread that it runs in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from coolvid import kernels


@contextmanager
def use_threads(count: int | None = None) -> Iterator[None]:
    """Train with `count` threads in this block, 0 for all cores, None for as many as around it.

    Compiled kernels share them, with results that do not depend on the number. torch then has little to do and gets one
    thread, so that sums in torch do not depend on it either. Without kernels torch gets all threads.
    """
    with kernels.using(count), _torch.using(1 if kernels.compiled is not None else kernels.threads()):
        yield


class _TorchThreads:
    """torch's number of threads belongs to the Python thread that sets it, but new threads start with the latest one.

    So every block ends with the number from before the first of all blocks that run now.
    """

    def __init__(self) -> None:
        self._lock, self._here = threading.Lock(), threading.local()
        self._n_blocks, self._before = 0, 0

    @contextmanager
    def using(self, count: int) -> Iterator[None]:
        if getattr(self._here, "is_inside", False):  # a block in a block changes nothing
            yield
            return
        with self._lock:
            self._before = self._before if self._n_blocks else torch.get_num_threads()
            self._n_blocks += 1
            torch.set_num_threads(count)
        self._here.is_inside = True
        try:
            yield
        finally:
            self._here.is_inside = False
            with self._lock:
                self._n_blocks -= 1
                torch.set_num_threads(self._before)


_torch = _TorchThreads()
