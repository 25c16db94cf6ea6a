"""Converts plain values, as in a TOML file, to settings of known types, with errors for values that do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from coolvid.errors import ConfigError

_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def fit_table(values: Mapping[str, Any], types: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values converted to their types, by name; a type that is a mapping means a nested table.

    path: dotted name of the table, for messages. Raises ConfigError for unknown names and values of another type.
    """
    made: dict[str, Any] = {}
    for name, value in values.items():
        full = f"{path}.{name}" if path else name
        if name not in types:
            raise unknown_setting(full, types, path)
        wanted = types[name]
        if not isinstance(wanted, Mapping):
            made[name] = fit(value, wanted, full)
        elif isinstance(value, Mapping):
            made[name] = fit_table(value, wanted, full)
        else:
            raise ConfigError(f"{full} is a table, not {_shown(value)}; set one of: {', '.join(paths(wanted, full))}")
    return made


def fit(value: Any, wanted: Any, name: str) -> Any:
    """One value converted to a type hint: bool, int, float, str, X | None, a tuple, or a class that parses a string.

    An int is accepted for a float, a list for a tuple, "" for None. Raises ConfigError.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        (some,) = (each for each in inner if each is not NoneType)
        return None if value is None or value == "" else fit(value, some, name)
    if origin is tuple:
        return _fit_tuple(value, inner, name)
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool):
        return value
    if isinstance(value, str) and hasattr(wanted, "parse"):
        return wanted.parse(value)
    raise ConfigError(f"{name} is {_shown(value)}; write {_wanted(wanted)}")


def _fit_tuple(value: Any, inner: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    kinds: tuple[Any, ...] | None = inner
    if inner[-1] is Ellipsis:
        kinds = (inner[0],) * len(value) if isinstance(value, (list, tuple)) else None
    if kinds is None or not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        many = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        raise ConfigError(f"{name} is {_shown(value)}; write a list{many}, for example {_example(inner)}")
    return tuple(fit(each, kind, f"{name}[{i}]") for i, (each, kind) in enumerate(zip(value, kinds, strict=True)))


def _example(inner: tuple[Any, ...]) -> str:
    samples = {int: "8", float: "0.5", str: '"warm"'}
    parts = [samples.get(each, "[3, 60]") for each in inner if each is not Ellipsis]
    return f"[{', '.join(parts)}]"


def _wanted(kind: Any) -> str:
    return _WANTED.get(kind, "a string, NAME or NAME:key=value")


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def paths(types: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted names of all settings in a table and its nested tables."""
    out: list[str] = []
    for name, wanted in types.items():
        full = f"{path}.{name}" if path else name
        out += paths(wanted, full) if isinstance(wanted, Mapping) else [full]
    return out


def unknown_setting(name: str, types: Mapping[str, Any], path: str = "") -> ConfigError:
    """The error for a dotted name that is not in the table; it suggests the nearest known name."""
    known = paths(types, path)
    by_last = {each.rpartition(".")[2]: each for each in reversed(known)}
    last = name.rpartition(".")[2]
    near = [by_last[each] for each in difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)]
    hint = f"did you mean {near[0]}? " if near else ""
    start = f"{path}." if path else ""
    choices = (f"{start}{each}{'.NAME' if isinstance(types[each], Mapping) else ''}" for each in types)
    return ConfigError(f"no setting '{name}'; {hint}choose one of: {', '.join(choices)}")
