"""Parameters of a model by name: copies out, values in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coolvid.errors import ConfigError, choose


def copied_parameters(module: nn.Module) -> OrderedDict[str, Tensor]:
    """Detached copies of all parameters, by name."""
    return OrderedDict((name, parameter.detach().clone()) for name, parameter in module.named_parameters())


def set_parameters(module: nn.Module, param: Mapping[str, Tensor]) -> None:
    """Copy values into the module's parameters by name. Raises ConfigError before any change."""
    own = dict(module.named_parameters())
    for name, value in param.items():
        choose("parameter", name, tuple(own))
        if value.shape != own[name].shape:
            raise ConfigError(f"parameter {name} has shape {list(value.shape)}; give {list(own[name].shape)}")
    with torch.no_grad():
        for name, value in param.items():
            own[name].copy_(value)
