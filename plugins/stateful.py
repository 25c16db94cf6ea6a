"""Common base of the differentiable steps in compiled kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coolvid.kernels import compiled


def usable(*tensors: Tensor) -> bool:
    """Whether compiled kernels exist and apply to these tensors (float32 on the CPU)."""
    return compiled is not None and all(t.dtype is torch.float32 and t.device.type == "cpu" for t in tensors)


class Stateful:
    """A kernel whose backward() needs the state of its last forward().

    Several models of one thread may share the kernel. A backward() for an older forward() repeats that one first.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._last: tuple[Any, ...] = ()

    def forward(self, *inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        """(the kernel's result, the run to pass to backward)."""
        self._last = inputs
        return self.kernel.forward(*inputs), inputs

    def backward(self, run: tuple[Any, ...], *arguments: Any) -> Any:
        """The kernel's backward(*arguments) for a run that forward() returned."""
        if run is not self._last:
            self.forward(*run)
            self._last = run
        return self.kernel.backward(*arguments)
