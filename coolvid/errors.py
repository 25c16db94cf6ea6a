"""All errors that a user can meet. The command line prints the message and exits with code 2.

CoolvidError
├── InputError            a source that cannot be opened, or does not have the size it claims
├── OutputError           a destination that cannot be written
├── ConfigError           a setting outside its choices
│   └── UnknownPlugin     a name that no installed distribution offers, or that two offer
├── PluginError           a plugin that fails to load or breaks its contract
├── StreamError           bytes that are not, or no longer, a valid stream
│   ├── UnsupportedStream a stream of a newer format version
│   └── MissingPlugin     a stream that names a plugin which is not installed here
├── MissingExtra          an optional package or program that is needed and not found
└── TrainingError         an optimization with a value that is not finite
"""

from typing import Any


class CoolvidError(Exception):
    """Base of all errors raised on purpose. The message is one line with value, choices and next step."""


class InputError(CoolvidError):
    """A source that cannot be opened or read as described."""


class OutputError(CoolvidError):
    """A destination that cannot be written."""


class ConfigError(CoolvidError):
    """A setting outside its choices."""


class UnknownPlugin(ConfigError):
    """No installed distribution offers this plugin, or more than one does."""


class PluginError(CoolvidError):
    """A plugin that fails to load or breaks its contract."""


class StreamError(CoolvidError):
    """Bytes that are not, or no longer, a valid stream."""


class UnsupportedStream(StreamError):
    """A stream in a format version that this release does not know."""


class MissingPlugin(StreamError):
    """A stream made with a plugin that is not installed here."""


class MissingExtra(CoolvidError):
    """An optional package or program that is needed and not found."""


class TrainingError(CoolvidError):
    """An optimization with a value that is not finite."""


def choose(what: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ConfigError naming value and choices unless value is one of them."""
    if value not in choices:
        raise ConfigError(f"{what} '{value}'; choose one of: {', '.join(map(str, choices))}")


def within(what: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high. NaN always fails."""
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value}; choose {low}..{high}")


def tell_how_to_resume(error: BaseException, what_is_kept: str) -> None:
    """Note on an error, as BaseException.add_note() does, what it left and how to go on; replaces earlier notes."""
    error.__notes__ = [f"{what_is_kept}: add --resume (in Python: resume=True)"]
