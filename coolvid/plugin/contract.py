"""Checks of plugin results where the core first receives them: one-line errors that name the plugin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from coolvid.errors import CoolvidError, PluginError, printable


@contextmanager
def reported(kind: str, name: str) -> Iterator[None]:
    """Turn an exception from a plugin's first call into a PluginError that names the plugin."""
    try:
        yield
    except CoolvidError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise PluginError(
            f"{kind} '{name}' fails: {type(error).__name__}: {text} (see coolvid.testing.check)"
        ) from error


def check_scale(name: str, scale: Any) -> float:
    """The scale of a distortion. Raises PluginError unless it is a number greater than 0."""
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise PluginError(f"distortion '{name}' has scale {printable(repr(scale))}; expected a number greater than 0")
    return float(scale)


def check_tensor(
    kind: str, name: str, value: Any, shape: tuple[int, ...], needs_grad: bool = False, dtype: Any = None
) -> None:
    """Raise PluginError unless value is a floating-point tensor of this shape, finite everywhere.

    shape: () for a scalar. needs_grad: the tensor must require a gradient.
    """
    import torch

    wanted = f"a tensor {_shape(shape)}" if shape else "a scalar tensor"
    if not isinstance(value, torch.Tensor):
        raise _broken(kind, name, f"a {type(value).__name__}", wanted)
    if tuple(value.shape) != shape:
        raise _broken(kind, name, f"a tensor {_shape(tuple(value.shape))}", wanted)
    if value.dtype is not (dtype or value.dtype) or not value.is_floating_point():
        raise _broken(kind, name, f"a tensor of {value.dtype}", f"one of {dtype or 'floating-point numbers'}")
    if needs_grad and not value.requires_grad:
        raise _broken(kind, name, "a detached tensor", "one that autograd can differentiate")
    bad = int((~torch.isfinite(value.detach())).sum())
    if bad:
        raise _broken(kind, name, f"{bad} of {value.numel()} values that are not finite", "finite values")


def check_integers(kind: str, name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise PluginError unless value is a numpy array of integers of this shape."""
    wanted = f"an integer array {_shape(shape)}"
    if not isinstance(value, np.ndarray):
        raise _broken(kind, name, f"a {type(value).__name__}", wanted)
    if value.shape != shape:
        raise _broken(kind, name, f"an array {_shape(value.shape)}", wanted)
    if value.dtype.kind != "i":
        raise _broken(kind, name, f"an array of {value.dtype}", wanted)


def check_scales(kind: str, name: str, form: Any, n_scales: int) -> tuple[int, ...]:
    """Scales chosen by an integer form. Raises PluginError unless they are n_scales whole numbers 0..15."""
    scales = tuple(form.scales or ()) if n_scales else ()
    if len(scales) != n_scales or not all(isinstance(s, int | np.integer) and 0 <= s <= 15 for s in scales):
        raise _broken(kind, name, f"an integer form with scales {scales}", f"{n_scales} whole numbers 0..15")
    return tuple(int(s) for s in scales)


def _shape(shape: tuple[int, ...]) -> str:
    return str(list(shape))


def _broken(kind: str, name: str, came: str, wanted: str) -> PluginError:
    return PluginError(f"{kind} '{name}' returns {came}; expected {wanted} (see coolvid.testing.check)")
