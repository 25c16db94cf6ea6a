"""Plain values and text into values of a wanted type: one set of rules, and words, for options and settings.

An int may stand for a float, a list for a tuple; bool and int are never mixed up.
"""

from __future__ import annotations

import ast
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from coolvid.errors import ConfigError, printable

_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def fit(value: Any, wanted: Any, name: str) -> Any:
    """One value as a type hint: bool, int, float, str, X | None, a tuple, or a class with a parse() method for strings.

    "" stands for None where that is allowed. Raises ConfigError, which names value and type.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        (some,) = (each for each in inner if each is not NoneType)
        return None if value is None or value == "" else fit(value, some, name)
    if origin is tuple:
        return _fit_tuple(value, inner, name)
    if wanted in _WANTED:
        return _fit_scalar(value, wanted, name)
    if isinstance(value, wanted):
        return value
    if isinstance(value, str) and hasattr(wanted, "parse"):
        return wanted.parse(value)
    raise _refused(name, value, "a string, for example NAME or NAME:key=value")


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


def _fit_scalar(value: Any, wanted: type, name: str) -> Any:
    if wanted is float and type(value) is int and abs(value) < 1 << 63:
        return float(value)
    if type(value) is wanted:
        return value
    raise _refused(name, value, _WANTED[wanted])


def _fit_tuple(value: Any, inner: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    kinds: tuple[Any, ...] | None = inner
    if inner[-1] is Ellipsis:
        kinds = (inner[0],) * len(value) if isinstance(value, (list, tuple)) else None
    if kinds is None or not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        many = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        raise _refused(name, value, f"a list{many}, for example {_example(inner)}")
    return tuple(fit(each, kind, f"{name}[{i}]") for i, (each, kind) in enumerate(zip(value, kinds, strict=True)))


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
    samples = {int: "8", float: "0.5", str: '"warm"'}
    parts = [samples.get(each, "[3, 60]") for each in inner if each is not Ellipsis]
    return f"[{', '.join(parts)}]"


def _tuple_like(default: tuple[Any, ...]) -> str:
    return f"brackets, for example {str(default).replace(' ', '')}"


def _refused(name: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{name} is {shown(value)}; write {wanted}")


def shown(value: Any) -> str:
    """A value in a message: true and false as in a configuration file."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else printable(repr(value))
