"""Calls of plugin modules: a wrong result raises a one-line error that names the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.plugin.contract import check_tensor
from coolvid.plugin.interfaces import NormativePlugin


class FirstCalls:
    """Checks the first results of each kind of plugin in one model: once with autograd and once without."""

    def __init__(self) -> None:
        self._done: set[tuple[str, bool]] = set()

    def call(
        self, kind: str, plugin: NormativePlugin, module: nn.Module, inputs: Tensor | list[Tensor], shape: Any
    ) -> Tensor:
        """module(inputs), whose result must have this shape. Raises PluginError."""
        out: Tensor = module(inputs)
        self.check(kind, plugin, module, inputs, out, shape)
        return out

    def check(self, kind: str, plugin: NormativePlugin, module: nn.Module, inputs: Any, out: Any, shape: Any) -> None:
        """Raise PluginError unless the first `out` is a finite tensor of this shape that autograd can differentiate.

        If inputs or parameters are not finite, the plugin is not at fault: the check waits for a later call.
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
