"""Converts plain values, as in a TOML file, to settings of known types, with errors for values that do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from coolvid.errors import ConfigError, printable
from coolvid.values import fit, shown


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
            raise ConfigError(f"{full} is a table, not {shown(value)}; set one of: {', '.join(paths(wanted, full))}")
    return made


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
    return ConfigError(f"no setting '{printable(name)}'; {hint}choose one of: {', '.join(choices)}")
