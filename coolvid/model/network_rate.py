"""Bits of quantised networks under signed exp-Golomb codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from coolvid.interfaces import TensorSpec

KINDS = ("weight", "bias")


@dataclass
class NetworkQuantization:
    """Steps (powers of two) and exp-Golomb orders of one module by kind; None before quantisation."""

    steps: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(KINDS))
    orders: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(KINDS))


def expgol_bits(values: Tensor, order: int) -> float:
    """Bits of integers [n] in signed exp-Golomb codes of an order; nothing when all are 0, which a flag says."""
    if not values.any():
        return 0.0
    unsigned = 2 * values.abs() - (values > 0).to(values.dtype)
    _, length = torch.frexp((torch.div(unsigned, 1 << order, rounding_mode="floor") + 1).double())
    return float((2 * length - 1 + order).sum())


def network_rate(module: nn.Module, tensors: Sequence[TensorSpec], known: NetworkQuantization) -> dict[str, float]:
    """Bits of one module by kind; 0 where step or order is not known yet."""
    parameters = dict(module.named_parameters())
    rate = {}
    for kind in KINDS:
        step, order = known.steps.get(kind), known.orders.get(kind)
        parts = [parameters[s.name].detach().reshape(-1) for s in tensors if s.kind == kind]
        if step is None or order is None or not parts:
            rate[kind] = 0.0
        else:
            rate[kind] = expgol_bits(torch.round(torch.cat(parts).double() / step).long(), order)
    return rate
