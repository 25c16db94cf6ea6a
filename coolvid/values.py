"""Plain values and text into values of a wanted type: one set of rules, and words, for settings, arguments and options.

An int may stand for a float, a list for a tuple, and numpy's numbers for Python's; bool and int are never mixed up.
"""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from numbers import Integral, Rational, Real
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from coolvid.errors import ConfigError, choose, printable, within

_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Fraction: "a Fraction, for example Fraction(30000, 1001)",
}
_KINDS: dict[type, type] = {bool: np.bool_, int: Integral, float: Real, Fraction: Rational, str: str}
_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

# -- frozen settings ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Within:
    """In an annotation, the range of a number: Annotated[int, Within(0, 8)]."""

    low: float
    high: float

    def __str__(self) -> str:
        return f" {self.low}..{self.high}"


@dataclass(frozen=True)
class OneOf:
    """In an annotation, the values that are accepted: Annotated[str, OneOf(("full", "descent"))]."""

    choices: tuple[Any, ...]


def check_fields(record: Any, what: str = "") -> None:
    """Bring every field of a dataclass to its annotated type.

    what: for messages, before the name of the field. Raises ConfigError for a value of another type, or outside its
    range or choices.
    """
    cls: Any = type(record)
    for name, wanted in _hints(cls).items():
        object.__setattr__(record, name, fit(getattr(record, name), wanted, what + name))


@cache
def _hints(cls: Hashable) -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


# -- arguments ----------------------------------------------------------------------------------------------------


def instance(name: str, value: Any, wanted: type) -> None:
    """Raise ConfigError unless an argument is a `wanted`."""
    if not isinstance(value, wanted):
        raise ConfigError(f"{name} is {shown(value)}; give a value of type {wanted.__name__}")


def check_path(name: str, value: Any) -> None:
    """Raise ConfigError unless an argument can name a file: a string or a path, not empty, without a null character."""
    if not isinstance(value, (str, PathLike)) or not isinstance(text := fspath(value), str):
        raise ConfigError(f"{name} is {shown(value)}; give the name of a file, as a string or a pathlib.Path")
    if not text or "\0" in text:
        raise ConfigError(f"{name} is {text!r}, which names no file; give a name without null characters")


# -- text of files ------------------------------------------------------------------------------------------------


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises ValueError, with the reason, for any text that cannot be read."""
    tables: dict[str, Any] = _parsed(tomllib.loads, text)
    return tables


def parse_json(text: str) -> Any:
    """The value of a JSON file. Raises ValueError, with the reason, for any text that cannot be read."""
    return _parsed(json.loads, text)


def _parsed(loads: Callable[[str], Any], text: str) -> Any:
    try:
        return loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# -- one value ----------------------------------------------------------------------------------------------------


def fit(value: Any, wanted: Any, name: str) -> Any:
    """One value as a type hint: bool, int, float, str, Fraction, a tuple, a Mapping, Annotated, Literal strings, a
    union, or a class, with a parse() method for strings if it has one. "" stands for None where that is allowed.

    Raises ConfigError, which names value and type.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return value
    if origin is Annotated:
        return _fit_rule(value, inner[0], inner[1], name)
    if origin in (Union, UnionType):
        return _fit_union(value, inner, name)
    if origin is tuple:
        return _fit_tuple(value, inner, name)
    if origin is Literal:
        choose(name, value, inner)
        return value
    if wanted in _WANTED:
        return _fit_scalar(value, wanted, name)
    if isinstance(value, origin or wanted):
        return value
    if not hasattr(wanted, "parse"):
        raise _refused(name, value, f"a value of type {(origin or wanted).__name__}")
    if not isinstance(value, str):
        raise _refused(name, value, "a string, for example NAME or NAME:key=value")
    return wanted.parse(value)


def _fit_rule(value: Any, wanted: Any, rule: Within | OneOf, name: str) -> Any:
    if isinstance(rule, OneOf):
        choose(name, value, rule.choices)
        return fit(value, wanted, name)
    number = _fit_scalar(value, wanted, name, str(rule))
    within(name, number, rule.low, rule.high)
    return number


def fit_like(value: Any, default: Any, name: str) -> Any:
    """One value as the type of a default: bool, int, float, str, or tuples of them, nested at will.

    Raises ConfigError, which names value and type.
    """
    if not isinstance(default, tuple):
        return _fit_scalar(value, type(default), name)
    if not isinstance(value, (list, tuple)):
        raise _refused(name, value, _tuple_like(default))
    return _plain_tuple(value, name)


def read_like(text: str, default: Any, name: str) -> Any:
    """fit_like() of text.

    For a bool: true, false, yes, no, on, off, 1, 0; for a tuple: brackets, for example ``(3,5)`` or ``((8,1),(3,1))``.
    """
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return _TRUTH[text.lower()]
        if isinstance(default, (int, float)):
            return type(default)(text)
        read = ast.literal_eval(text)
    except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last of literal_eval()
        wanted = _tuple_like(default) if isinstance(default, tuple) else _WANTED[type(default)]
        raise _refused(name, text, wanted) from None
    return fit_like(read, default, name)


def _fit_scalar(value: Any, wanted: type, name: str, span: str = "") -> Any:
    if type(value) is wanted:
        return value
    if isinstance(value, _KINDS[wanted]) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number beyond all floats
            return wanted(value)
    raise _refused(name, value, _WANTED[wanted] + span)


def _fit_union(value: Any, inner: tuple[Any, ...], name: str) -> Any:
    """The value as the first type that it fits."""
    if NoneType in inner and (value is None or (isinstance(value, str) and not value)):
        return None
    first, *others = (each for each in inner if each is not NoneType)
    try:
        return fit(value, first, name)
    except ConfigError:
        for each in others:
            try:
                return fit(value, each, name)
            except ConfigError:
                continue
        raise


def _fit_tuple(value: Any, inner: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    kinds: tuple[Any, ...] | None = inner
    if inner[-1] is Ellipsis:
        kinds = (inner[0],) * len(value) if isinstance(value, (list, tuple)) else None
    if kinds is None or not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        many = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        raise _refused(name, value, f"a list{many}, for example {_example(inner)}")
    pairs = enumerate(zip(value, kinds, strict=True))
    return tuple(fit(each, kind, f"{name}[{i}]") for i, (each, kind) in pairs)


def _plain_tuple(values: Any, name: str) -> tuple[Any, ...]:
    """Lists as tuples, at every depth."""
    made: list[Any] = []
    for i, value in enumerate(values):
        if isinstance(value, (list, tuple)):
            made.append(_plain_tuple(value, f"{name}[{i}]"))
        elif isinstance(value, (bool, int, float, str)):
            made.append(value)
        else:
            raise _refused(f"{name}[{i}]", value, "true, false, a number, a string, or brackets around such values")
    return tuple(made)


def _example(inner: tuple[Any, ...]) -> str:
    samples = {int: "8", float: "0.5"}
    plain = [get_args(each)[0] if get_origin(each) is Annotated else each for each in inner if each is not Ellipsis]
    parts = [_example(get_args(each)) or samples.get(each, '"NAME"') for each in plain]
    return f"[{', '.join(parts)}]" if parts else ""


def _tuple_like(default: tuple[Any, ...]) -> str:
    return f"brackets, for example {str(default).replace(' ', '')}"


def _refused(name: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{name} is {shown(value)}; write {wanted}")


def shown(value: Any) -> str:
    """A value in a message: true and false as in a configuration file; long ones cut."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return printable(" ".join(text.split()))
