"""What the differentiable steps through compiled kernels have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coolvid.kernels import compiled


def usable(*tensors: Tensor) -> bool:
    """Whether compiled kernels are here and apply to these tensors: float32 on the CPU."""
    return compiled is not None and all(t.dtype is torch.float32 and t.device.type == "cpu" for t in tensors)


class Stateful:
    """A kernel whose backward() needs what its last forward() left in it.

    Several models may share the kernel: each forward() is given a number, and a backward() for another forward than the
    last one repeats that first.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._last: tuple[Any, ...] = ()

    def forward(self, *inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        """(the kernel's result, the run to be named to backward)."""
        self._last = inputs
        return self.kernel.forward(*inputs), inputs

    def backward(self, run: tuple[Any, ...], *arguments: Any) -> Any:
        """The kernel's backward(*arguments) for a run that forward() returned."""
        if run is not self._last:
            self.forward(*run)
            self._last = run
        return self.kernel.backward(*arguments)
