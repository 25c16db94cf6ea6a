"""Modules of plugins, called so that a wrong result ends in one line that names the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.plugin.contract import check_tensor
from coolvid.plugin.interfaces import NormativePlugin


class FirstCalls:
    """Checks what the plugins of one model return: each kind once with autograd, and once without."""

    def __init__(self) -> None:
        self._done: set[tuple[str, bool]] = set()

    def call(
        self, kind: str, plugin: NormativePlugin, module: nn.Module, inputs: Tensor | list[Tensor], shape: Any
    ) -> Tensor:
        """module(inputs), which must have this shape. Raises PluginError."""
        out: Tensor = module(inputs)
        self.check(kind, plugin, module, inputs, out, shape)
        return out

    def check(self, kind: str, plugin: NormativePlugin, module: nn.Module, inputs: Any, out: Any, shape: Any) -> None:
        """Raise PluginError unless the first `out` is a finite tensor of this shape that autograd can differentiate.

        Left for a later call where inputs or parameters are not finite: that is no mistake of the plugin.
        """
        key = kind, torch.is_grad_enabled()
        if key in self._done:
            return
        given = [*_tensors(inputs), *module.parameters()]
        if all(bool(torch.isfinite(x.detach()).all()) for x in given):
            needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in given)
            check_tensor(kind, plugin.name, out, tuple(shape), needs_grad)
            self._done.add(key)


def _tensors(inputs: Tensor | list[Tensor]) -> Iterator[Tensor]:
    yield from [inputs] if isinstance(inputs, Tensor) else inputs
