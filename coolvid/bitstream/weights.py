"""Networks <-> bits: per module and kind a shift and signed exp-Golomb codes of the best order.

Per module, in the order of coded.MODULES, nothing if it has neither tensors nor scales; else for weights and then
biases, if it has any: shift (5 bits), a flag that any is not zero, and if so the order (4 bits) and one code per
parameter; then every activation scale (4 bits). Where the packet names a predictor, flags come first: for each module
with parameters, that they are the predictor's and not sent; for the Cool-chic, that all its scales are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coolvid import kernels
from coolvid.coded import MAX_PARAMETER, MAX_SHIFT, MODULES, CodedModule
from coolvid.errors import ConfigError, StreamError
from coolvid.interfaces import Integers, TensorSpec
from coolvid.networks import same_parameters
from coolvid.records import BitReader, BitWriter, unzigzag, zigzag

KINDS = ("weight", "bias")
MAX_ORDER = 12
MAX_PARAMETERS = 1 << 22
SHIFT_BITS = 5
ORDER_BITS = 4
SCALE_BITS = 4
Tensors = Mapping[str, tuple[TensorSpec, ...]]
Modules = Mapping[str, CodedModule]


@dataclass(frozen=True, eq=False)
class Inheritance:
    """What one Cool-chic takes from that of its predictor. modules: the predictor's; names: those whose parameters it
    takes; scales: it takes all activation scales."""

    modules: Modules
    names: frozenset[str] = frozenset()
    scales: bool = False

    @classmethod
    def of(cls, modules: Modules, predictor: Modules, names: frozenset[str]) -> Inheritance:
        """For writing `modules`. Raises ConfigError where a module that should be the predictor's is not."""
        for name in names:
            if name not in predictor or not same_parameters(modules[name], predictor[name]):
                raise ConfigError(f"module '{name}' is said to be inherited, but differs from the predictor's")
        return cls(predictor, names, all(modules[name].scales == predictor[name].scales for name in modules))

    @classmethod
    def read(cls, reader: BitReader, predictor: Modules) -> Inheritance:
        """The flags of one Cool-chic. Raises StreamError."""
        named = frozenset(name for name in MODULES if predictor[name].parameters and reader.read(1))
        return cls(predictor, named, bool(_has_scales(predictor) and reader.read(1)))

    def write(self, writer: BitWriter) -> None:
        """Append the flags."""
        for name in MODULES:
            if name in self.modules and self.modules[name].parameters:
                writer.write(int(name in self.names), 1)
        if _has_scales(self.modules):
            writer.write(int(self.scales), 1)


def _has_scales(modules: Modules) -> bool:
    return any(module.scales for module in modules.values())


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
    writer: BitWriter, modules: Modules, tensors: Tensors, taken: Inheritance | None = None
) -> dict[str, int]:
    """Append all modules of one Cool-chic; returns bits by module. Raises ConfigError for values that do not fit.

    tensors: the specs by module. taken: what is the predictor's and not sent, where the packet names one; its flags
    count for no module.
    """
    if taken is not None:
        taken.write(writer)
    out = {}
    for name in MODULES:
        before = writer.n_bits
        module = modules.get(name)
        if module is not None:
            if taken is None or name not in taken.names:
                _encode_parameters(writer, name, module, tensors[name])
            if taken is None or not taken.scales:
                _encode_scales(writer, name, module)
        out[name] = writer.n_bits - before
    return out


def module_bits(module: CodedModule, tensors: Sequence[TensorSpec]) -> int:
    """Bits that encode_modules() spends on this module."""
    writer = BitWriter()
    _encode_parameters(writer, "module", module, tensors)
    _encode_scales(writer, "module", module)
    return writer.n_bits


def _encode_parameters(writer: BitWriter, name: str, module: CodedModule, tensors: Sequence[TensorSpec]) -> None:
    for kind, shift in zip(KINDS, (module.weight_shift, module.bias_shift), strict=True):
        parts = [module.parameters[t.name].ravel() for t in tensors if t.kind == kind]
        if parts:
            _encode_kind(writer, f"{name} {kind}", np.concatenate(parts), shift)


def _encode_scales(writer: BitWriter, name: str, module: CodedModule) -> None:
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
    reader: BitReader, tensors: Tensors, n_scales: Mapping[str, int], taken: Inheritance | None = None
) -> tuple[dict[str, CodedModule], dict[str, int]]:
    """(modules, bits) of one Cool-chic by name; taken: what is the predictor's. Raises StreamError."""
    modules, bits = {}, {}
    for name in MODULES:
        before = reader.position
        if taken is not None and name in taken.names:
            module = taken.modules[name]
        else:
            module = _decode_parameters(reader, tensors.get(name, ()))
        if taken is not None and taken.scales:
            scales = taken.modules[name].scales
        else:
            scales = tuple(reader.read(SCALE_BITS) for _ in range(n_scales.get(name, 0)))
        modules[name] = replace(module, scales=scales)
        bits[name] = reader.position - before
    return modules, bits


def _decode_parameters(reader: BitReader, tensors: Sequence[TensorSpec]) -> CodedModule:
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
    return CodedModule({t.name: found[t.name] for t in tensors}, shifts["weight"], shifts["bias"])


def _decode_kind(reader: BitReader, n: int) -> tuple[int, Integers]:
    shift = reader.read(SHIFT_BITS)
    if not reader.read(1):
        return shift, np.zeros(n, dtype=np.int32)
    order = reader.read(ORDER_BITS)
    if order > MAX_ORDER or n * (order + 1) > reader.n_left:
        raise StreamError(f"{n} parameters of order {order} in {reader.n_left} bits; the stream is damaged")
    found = (
        None if kernels.decode is None else kernels.decode.golomb(reader.data, reader.position, n, order, MAX_PARAMETER)
    )
    if found is not None:
        values, reader.position = found
        return shift, values
    return shift, _decode_values(reader, n, order)


def _decode_values(reader: BitReader, n: int, order: int) -> Integers:
    """n parameters, in Python; also where the kernel found a fault, to say which."""
    values = [unzigzag(reader.read_golomb(order)) for _ in range(n)]
    if max(map(abs, values), default=0) > MAX_PARAMETER:
        raise StreamError(f"a parameter is outside +-{MAX_PARAMETER}; the stream is damaged")
    return np.array(values, dtype=np.int32)
