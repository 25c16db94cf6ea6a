"""Checks shared by the option records of the built-in modules. Options may come from a hostile stream."""

from __future__ import annotations

from typing import Any

from coolvid.errors import ConfigError, printable


def check_integer(what: str, value: Any, low: int, high: int) -> None:
    """Raise ConfigError unless value is an int (not a bool) with low <= value <= high."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{what} is {printable(repr(value))}; choose a whole number {low}..{high}")


def check_flag(what: str, value: Any) -> None:
    """Raise ConfigError unless value is a bool."""
    if type(value) is not bool:
        raise ConfigError(f"{what} is {printable(repr(value))}; choose true or false")
