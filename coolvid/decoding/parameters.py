"""From coded integers to the fixed-point parameters of integer modules."""

from __future__ import annotations

from collections.abc import Mapping

from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.codec.fixed_point import FixedPoint
from coolvid.errors import StreamError


def fixed_parameters(module: CodedModule, tensors: tuple[TensorSpec, ...]) -> dict[str, FixedPoint]:
    """Every tensor of a module by name. Raises StreamError for a tensor that is absent or has another shape."""
    out = {}
    for spec in tensors:
        values = module.parameters.get(spec.name)
        if values is None or values.shape != spec.shape:
            found = "absent" if values is None else f"of shape {values.shape}"
            raise StreamError(f"parameter '{spec.name}' is {found}; expected {spec.shape}")
        out[spec.name] = FixedPoint(values, module.weight_shift if spec.kind == "weight" else module.bias_shift)
    return out


def sent_scales(modules: Mapping[str, CodedModule], name: str, n_scales: int) -> tuple[int, ...]:
    """The scales of a module. Raises StreamError unless they are n_scales values 0..15."""
    scales = modules[name].scales
    if len(scales) != n_scales or any(not 0 <= s <= 15 for s in scales):
        raise StreamError(f"module '{name}' has scales {scales}; expected {n_scales} values 0..15")
    return scales
