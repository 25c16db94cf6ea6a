"""Networks <-> bits: per module and kind a shift and signed exp-Golomb codes of the best order.

Per module, in the order of coded.MODULES, nothing if it has neither tensors nor scales; else for weights and then
biases, if it has any: shift (5 bits), a flag that any is not zero, and if so the order (4 bits) and one code per
parameter; then every activation scale (4 bits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coolvid.coded import MAX_PARAMETER, MAX_SHIFT, MODULES, CodedModule
from coolvid.errors import ConfigError, StreamError
from coolvid.interfaces import Integers, TensorSpec
from coolvid.records import BitReader, BitWriter, unzigzag, zigzag

KINDS = ("weight", "bias")
MAX_ORDER = 12
MAX_PARAMETERS = 1 << 22
SHIFT_BITS = 5
ORDER_BITS = 4
SCALE_BITS = 4
Tensors = Mapping[str, tuple[TensorSpec, ...]]


def parameter_bits(values: Integers, order: int) -> int:
    """Bits of integers (any shape) as signed exp-Golomb codes of this order."""
    heads = (_zigzag(values) >> order) + 1
    return int((2 * np.frexp(heads.astype(np.float64))[1] - 1 + order).sum())


def best_order(values: Integers) -> tuple[int, int]:
    """(order 0..MAX_ORDER, bits) of the shortest code of these integers."""
    bits, order = min((parameter_bits(values, order), order) for order in range(MAX_ORDER + 1))
    return order, bits


def _zigzag(values: Integers) -> NDArray[np.int64]:
    wide = np.asarray(values).astype(np.int64).ravel()
    return np.where(wide > 0, 2 * wide - 1, -2 * wide)


def encode_modules(
    writer: BitWriter, modules: Mapping[str, CodedModule], tensors: Tensors | None = None
) -> dict[str, int]:
    """Append all modules of one Cool-chic; returns bits by module. Raises ConfigError for values that do not fit.

    tensors: the specs by module; without them a parameter named `bias` or `*.bias` is a bias, any other a weight.
    """
    out = {}
    for name in MODULES:
        before = writer.n_bits
        module = modules.get(name)
        if module is not None:
            _encode_module(writer, name, module, tensors[name] if tensors is not None else _guess_tensors(module))
        out[name] = writer.n_bits - before
    return out


def module_bits(module: CodedModule, tensors: Sequence[TensorSpec] | None = None) -> int:
    """Bits that encode_modules() spends on this module."""
    writer = BitWriter()
    _encode_module(writer, "module", module, _guess_tensors(module) if tensors is None else tensors)
    return writer.n_bits


def _guess_tensors(module: CodedModule) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, values.shape, "bias" if name.split(".")[-1] == "bias" else "weight")
        for name, values in module.parameters.items()
    )


def _encode_module(writer: BitWriter, name: str, module: CodedModule, tensors: Sequence[TensorSpec]) -> None:
    for kind, shift in zip(KINDS, (module.weight_shift, module.bias_shift), strict=True):
        parts = [module.parameters[t.name].ravel() for t in tensors if t.kind == kind]
        if parts:
            _encode_kind(writer, f"{name} {kind}", np.concatenate(parts), shift)
    for scale in module.scales:
        _check(f"{name} scale", scale, 0, (1 << SCALE_BITS) - 1)
        writer.write(int(scale), SCALE_BITS)


def _encode_kind(writer: BitWriter, what: str, values: Integers, shift: int) -> None:
    _check(f"{what} shift", shift, 0, MAX_SHIFT)
    writer.write(int(shift), SHIFT_BITS)
    writer.write(int(values.any()), 1)
    if values.any():
        _check(f"{what} magnitude", int(np.abs(values.astype(np.int64)).max()), 0, MAX_PARAMETER)
        order, _ = best_order(values)
        writer.write(order, ORDER_BITS)
        for value in values.tolist():
            writer.write_golomb(zigzag(value), order)


def _check(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value}; a stream can carry {low}..{high}")


def decode_modules(
    reader: BitReader, tensors: Tensors, n_scales: Mapping[str, int]
) -> tuple[dict[str, CodedModule], dict[str, int]]:
    """(modules, bits) of one Cool-chic by name. Raises StreamError."""
    modules, bits = {}, {}
    for name in MODULES:
        before = reader.position
        modules[name] = _decode_module(reader, tensors.get(name, ()), n_scales.get(name, 0))
        bits[name] = reader.position - before
    return modules, bits


def _decode_module(reader: BitReader, tensors: Sequence[TensorSpec], n_scales: int) -> CodedModule:
    sizes = [int(np.prod(t.shape, dtype=object)) for t in tensors]
    if not 0 <= sum(sizes) <= MAX_PARAMETERS:
        raise StreamError(f"a module of {sum(sizes)} parameters; at most {MAX_PARAMETERS} are allowed")
    found: dict[str, Integers] = {}
    shifts = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        own = [(t, size) for t, size in zip(tensors, sizes, strict=True) if t.kind == kind]
        if own:
            shifts[kind], values = _decode_kind(reader, sum(size for _, size in own))
            ends = np.cumsum([size for _, size in own])[:-1]
            for (tensor, _), part in zip(own, np.split(values, ends), strict=True):
                found[tensor.name] = part.reshape(tensor.shape)
    scales = tuple(reader.read(SCALE_BITS) for _ in range(n_scales))
    return CodedModule({t.name: found[t.name] for t in tensors}, shifts["weight"], shifts["bias"], scales)


def _decode_kind(reader: BitReader, n: int) -> tuple[int, Integers]:
    shift = reader.read(SHIFT_BITS)
    if not reader.read(1):
        return shift, np.zeros(n, dtype=np.int32)
    order = reader.read(ORDER_BITS)
    if order > MAX_ORDER or n * (order + 1) > reader.n_left:
        raise StreamError(f"{n} parameters of order {order} in {reader.n_left} bits; the stream is damaged")
    values = [unzigzag(reader.read_golomb(order)) for _ in range(n)]
    if max(map(abs, values), default=0) > MAX_PARAMETER:
        raise StreamError(f"a parameter is outside +-{MAX_PARAMETER}; the stream is damaged")
    return shift, np.array(values, dtype=np.int32)
