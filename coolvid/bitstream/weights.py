"""Networks <-> bits: for each module its mode, then steps, parameters and activation scales.

The modules of a Cool-chic come in the order of coded_frame.MODULES. Where the packet names a predictor that has the
module (see networks.fitted), the module is unchanged, sent as differences to the predictor's parameters at its own
steps, or fresh. Unless it is unchanged, its weights and then its biases follow: whether any is not zero; if so, the
shift less the expected one, and the numbers (parameters.py). The scales come last, less the expected ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from coolvid.codec.coded_frame import MAX_PARAMETER, MAX_SHIFT, MODULES, CodedModule, TensorSpec
from coolvid.codec.fixed_point import Integers
from coolvid.codec.networks import fits, fitted, same_parameters
from coolvid.errors import ConfigError, StreamError

from .adaptive import AdaptiveProbabilities, BinaryCoder, logistic
from .parameter_model import Block, blocks_of
from .parameters import decode_numbers, encode_numbers, number_bits, out_of_range
from .range_coder import COST_UNIT, BitCounter, RangeDecoder, RangeEncoder

KINDS = ("weight", "bias")
MAX_PARAMETERS = 1 << 22
MAX_SCALE = 15
# The expected shifts of (weights, biases), and the expected first scale, of a module without a predictor.
USUAL_SHIFTS = {"arm": (4, 5), "ifce": (4, 5), "synthesis": (6, 6), "upsampling": (5, 0)}
USUAL_SCALE = 11
Tensors = Mapping[str, tuple[TensorSpec, ...]]
Modules = Mapping[str, CodedModule]


class Mode(Enum):
    """What a packet sends of a module's parameters."""

    UNCHANGED = "unchanged"
    DIFFERENCE = "difference"
    FRESH = "fresh"


# Where the contexts of each sort of bit start. Sent: one by whether the module before was sent. Any number not zero:
# weights and biases, plain, then predicted. Small numbers: not zero, sign, and five of the magnitude.
_SENT = 0
_IS_FRESH = 2
_NOT_ALL_ZERO = 3
_SMALL = 7
_SMALL_SIZE = 7
_SHIFT, _SHIFT_CHANGE, _SCALE, _SCALE_CHANGE = (_SMALL + _SMALL_SIZE * i for i in range(4))

# Log odds in eighths (stream format 2). A module is sent with 50 or 68 %, after an unchanged or a sent one. Its weights
# or biases are not all zero with 73 %, their differences with 38 %. A shift differs from the usual one with 78 %, from
# the predictor's with 27 %; a scale differs from the one before with 68 %, from the predictor's with 32 %.
_ODDS = (0, 6, 0, 8, 8, -4, -4)
_SMALL_ODDS = (10, -8, 6, -6)
_START_COUNT = 2
_MAX_SMALL = 2 * MAX_SHIFT


def _starting_probabilities() -> list[int]:
    odds = list(_ODDS)
    for not_zero in _SMALL_ODDS:
        odds += [not_zero, *[0] * (_SMALL_SIZE - 1)]
    return [logistic(each) for each in odds]


_START = _starting_probabilities()


class ModuleSyntax:
    """Codes everything about the modules of one packet but their parameters, with any coder. Every method takes the
    value to write, which a decoder ignores, and returns the value coded."""

    def __init__(self, coder: BinaryCoder) -> None:
        self._coder = coder
        self._probabilities = AdaptiveProbabilities(_START, _START_COUNT)
        self._last_sent = 1

    def mode(self, mode: Mode) -> Mode:
        sent = self._bit(int(mode is not Mode.UNCHANGED), _SENT + self._last_sent)
        self._last_sent = sent
        if not sent:
            return Mode.UNCHANGED
        return Mode.FRESH if self._bit(int(mode is Mode.FRESH), _IS_FRESH) else Mode.DIFFERENCE

    def not_all_zero(self, kind: str, is_predicted: bool, value: bool) -> bool:
        return bool(self._bit(int(value), _NOT_ALL_ZERO + 2 * is_predicted + KINDS.index(kind)))

    def shift(self, value: int, expected: int, is_predicted: bool) -> int:
        return expected + self._small(value - expected, _SHIFT_CHANGE if is_predicted else _SHIFT)

    def scale(self, value: int, expected: int, is_predicted: bool) -> int:
        return expected + self._small(value - expected, _SCALE_CHANGE if is_predicted else _SCALE)

    def _bit(self, bit: int, context: int) -> int:
        return self._probabilities.code(self._coder, bit, context)

    def _small(self, value: int, start: int) -> int:
        if not self._bit(int(value != 0), start):
            return 0
        negative = self._bit(int(value < 0), start + 1)
        n = 1
        while self._bit(int(n < abs(value)), start + 2 + min(n, _SMALL_SIZE - 2) - 1):
            n += 1
            if n > _MAX_SMALL:
                raise StreamError("a shift or scale is far outside its range; the stream is damaged")
        return -n if negative else n


@dataclass(frozen=True, eq=False)
class _TensorGroup:
    """The tensors of one kind of a module, its weights or its biases; source: the predictor, if it is used."""

    kind: str
    specs: tuple[TensorSpec, ...]
    blocks: tuple[Block, ...]
    source: CodedModule | None

    def expected_shift(self, module: str) -> int:
        """The predictor's, if it has anything but zeros here, else the usual one."""
        usual = USUAL_SHIFTS[module][KINDS.index(self.kind)]
        return usual if self.source is None or not self.flat(self.source).any() else _shift_of(self.source, self.kind)

    def flat(self, module: CodedModule) -> Integers:
        """The numbers of these tensors in a module, int32 [n]."""
        return np.concatenate([module.parameters[s.name].ravel() for s in self.specs])

    def predictor(self, shift: int) -> Integers | None:
        """The predictor's integers at steps of 2**-shift, int32 [n]."""
        if self.source is None:
            return None
        return rescaled(self.flat(self.source), _shift_of(self.source, self.kind), shift)


def _shift_of(module: CodedModule, kind: str) -> int:
    return module.weight_shift if kind == "weight" else module.bias_shift


def rescaled(values: Integers, shift: int, to: int) -> Integers:
    """The integers for values * 2**-shift at steps of 2**-to: rounded, halves up, and limited to +-MAX_PARAMETER."""
    wide = values.astype(np.int64)
    wide = wide << (to - shift) if to >= shift else (wide + (1 << (shift - to - 1))) >> (shift - to)
    return np.clip(wide, -MAX_PARAMETER, MAX_PARAMETER).astype(np.int32)


def _groups(specs: tuple[TensorSpec, ...], source: CodedModule | None) -> list[_TensorGroup]:
    owned = [(kind, tuple(s for s in specs if s.kind == kind)) for kind in KINDS]
    return [_TensorGroup(kind, own, blocks_of(specs, kind), source) for kind, own in owned if own]


# -- writing -----------------------------------------------------------------------------------------------------------


def encode_modules(
    encoder: RangeEncoder, syntax: ModuleSyntax, modules: Modules, tensors: Tensors, predictor: Modules | None = None
) -> tuple[dict[str, int], dict[str, Mode]]:
    """Append all modules of one Cool-chic; returns (bits, mode) by module.

    tensors: the specs by module. predictor: the same Cool-chic of the frame that the packet names, if it has one. Each
    module takes the cheapest mode that the predictor allows. Raises ConfigError for values that do not fit.
    """
    bits, modes = {}, {}
    for name in MODULES:
        before = encoder.position
        if name in modules:
            other = (predictor or {}).get(name)
            modes[name] = best_mode(name, modules[name], tensors[name], other)
            _encode_module(encoder, syntax, name, modules[name], tensors[name], other, modes[name])
        bits[name] = encoder.position - before
    return bits, modes


def best_mode(name: str, module: CodedModule, specs: tuple[TensorSpec, ...], predictor: CodedModule | None) -> Mode:
    """The mode that sends a module's parameters in the fewest bits."""
    source = fitted(predictor, specs)
    if source is None or not specs:
        return Mode.FRESH
    if fits(predictor, specs) and same_parameters(module, source):
        return Mode.UNCHANGED
    return min(
        Mode.DIFFERENCE, Mode.FRESH, key=lambda mode: sum(_mode_bits(name, module, specs, source, mode).values())
    )


def module_bits(
    name: str, module: CodedModule, specs: tuple[TensorSpec, ...], predictor: CodedModule | None = None
) -> dict[str, float]:
    """Bits of one module in its cheapest mode: "weight", "bias", and "scales" (mode included)."""
    return _mode_bits(name, module, specs, predictor, best_mode(name, module, specs, predictor))


def _mode_bits(
    name: str, module: CodedModule, specs: tuple[TensorSpec, ...], predictor: CodedModule | None, mode: Mode
) -> dict[str, float]:
    tally = BitCounter()
    parts = _encode_module(tally, ModuleSyntax(tally), name, module, specs, predictor, mode)
    bits = {kind: parts.get(kind, 0) / COST_UNIT for kind in KINDS}
    return {**bits, "scales": tally.cost / COST_UNIT - sum(bits.values())}


def _encode_module(
    coder: RangeEncoder | BitCounter,
    syntax: ModuleSyntax,
    name: str,
    module: CodedModule,
    specs: tuple[TensorSpec, ...],
    predictor: CodedModule | None,
    mode: Mode,
) -> dict[str, int]:
    """Append a module; returns what each kind took, in the coder's unit of position."""
    source, spent = fitted(predictor, specs), {}
    if source is not None and specs:
        syntax.mode(mode)
    if mode is not Mode.UNCHANGED:
        for group in _groups(specs, source if mode is Mode.DIFFERENCE else None):
            before = coder.position
            _encode_group(coder, syntax, name, module, group)
            spent[group.kind] = coder.position - before
    _encode_scales(syntax, name, module, source)
    return spent


def _encode_group(
    coder: RangeEncoder | BitCounter, syntax: ModuleSyntax, name: str, module: CodedModule, group: _TensorGroup
) -> None:
    values, shift = group.flat(module), _shift_of(module, group.kind)
    _check(f"{name} {group.kind} shift", shift, 0, MAX_SHIFT)
    _check(f"{name} {group.kind} magnitude", int(np.abs(values.astype(np.int64)).max(initial=0)), 0, MAX_PARAMETER)
    predictor = group.predictor(shift)
    is_predicted = predictor is not None
    expected = group.expected_shift(name)
    differences = values if predictor is None else values - predictor
    sent = bool(differences.any()) or (is_predicted and shift != expected)
    if not syntax.not_all_zero(group.kind, is_predicted, sent):
        return
    syntax.shift(shift, expected, is_predicted)
    if isinstance(coder, BitCounter):
        coder.cost += round(COST_UNIT * number_bits(group.blocks, differences, predictor))
    else:
        encode_numbers(coder, group.blocks, differences, predictor)


def _encode_scales(syntax: ModuleSyntax, name: str, module: CodedModule, source: CodedModule | None) -> None:
    expected = _expected_scales(len(module.scales), source)
    last = USUAL_SCALE
    for i, scale in enumerate(module.scales):
        _check(f"{name} scale", scale, 0, MAX_SCALE)
        last = syntax.scale(int(scale), last if expected is None else expected[i], expected is not None)


def _expected_scales(n: int, source: CodedModule | None) -> tuple[int, ...] | None:
    """The predictor's scales, if it has as many."""
    return source.scales if source is not None and len(source.scales) == n else None


def _check(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value}; a stream can carry {low}..{high}")


# -- reading -----------------------------------------------------------------------------------------------------------


def decode_modules(
    decoder: RangeDecoder,
    syntax: ModuleSyntax,
    tensors: Tensors,
    n_scales: Mapping[str, int],
    predictor: Modules | None = None,
) -> tuple[dict[str, CodedModule], dict[str, int], dict[str, Mode]]:
    """(module, bits, mode) by name of one Cool-chic. Raises StreamError."""
    modules, bits, modes = {}, {}, {}
    for name in MODULES:
        before = decoder.position
        specs, other = tensors.get(name, ()), (predictor or {}).get(name)
        modules[name], modes[name] = _decode_module(decoder, syntax, name, specs, n_scales.get(name, 0), other)
        bits[name] = decoder.position - before
    return modules, bits, modes


def _decode_module(
    decoder: RangeDecoder,
    syntax: ModuleSyntax,
    name: str,
    specs: tuple[TensorSpec, ...],
    n_scales: int,
    predictor: CodedModule | None,
) -> tuple[CodedModule, Mode]:
    size = sum(math.prod(s.shape) for s in specs)
    if not 0 <= size <= MAX_PARAMETERS:
        raise StreamError(f"a module of {size} parameters; at most {MAX_PARAMETERS} are allowed")
    source = fitted(predictor, specs)
    mode = syntax.mode(Mode.FRESH) if source is not None and specs else Mode.FRESH
    if mode is Mode.UNCHANGED and source is not None:
        if not fits(predictor, specs):
            raise StreamError(
                f"module '{name}' is unchanged, but has other shapes than its predictor; the stream is damaged"
            )
        module = source
    else:
        module = _decode_parameters(decoder, syntax, name, specs, source if mode is Mode.DIFFERENCE else None)
    return replace(module, scales=_decode_scales(syntax, n_scales, source)), mode


def _decode_parameters(
    decoder: RangeDecoder, syntax: ModuleSyntax, name: str, specs: tuple[TensorSpec, ...], source: CodedModule | None
) -> CodedModule:
    found: dict[str, Integers] = {}
    shifts = dict.fromkeys(KINDS, 0)
    for group in _groups(specs, source):
        shifts[group.kind], values = _decode_group(decoder, syntax, name, group)
        for spec, block in zip(group.specs, group.blocks, strict=True):
            found[spec.name] = values[block.start : block.start + block.size].reshape(spec.shape)
    return CodedModule({s.name: found[s.name] for s in specs}, shifts["weight"], shifts["bias"])


def _decode_group(decoder: RangeDecoder, syntax: ModuleSyntax, name: str, group: _TensorGroup) -> tuple[int, Integers]:
    """(shift, values int32 [n]) of one kind."""
    shift, is_predicted = group.expected_shift(name), group.source is not None
    if not syntax.not_all_zero(group.kind, is_predicted, False):
        predictor = group.predictor(shift)
        size = sum(block.size for block in group.blocks)
        return shift, np.zeros(size, np.int32) if predictor is None else predictor
    shift = syntax.shift(shift, shift, is_predicted)
    if not 0 <= shift <= MAX_SHIFT:
        raise StreamError(f"a shift of {shift}; the stream is damaged")
    predictor = group.predictor(shift)
    values = decode_numbers(decoder, group.blocks, predictor)
    if predictor is not None:
        values = values + predictor
    if np.abs(values).max(initial=0) > MAX_PARAMETER:
        raise out_of_range()
    return shift, values


def _decode_scales(syntax: ModuleSyntax, n: int, source: CodedModule | None) -> tuple[int, ...]:
    expected = _expected_scales(n, source)
    out: list[int] = []
    for i in range(n):
        last = (out[-1] if out else USUAL_SCALE) if expected is None else expected[i]
        out.append(syntax.scale(last, last, expected is not None))
        if not 0 <= out[-1] <= MAX_SCALE:
            raise StreamError(f"a scale of {out[-1]}; the stream is damaged")
    return tuple(out)
