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

MAX_SHOWN = 100
MAX_MESSAGE = 2000


def printable(text: object, limit: int = MAX_SHOWN) -> str:
    """Text of any origin in a form that is safe to show, cut to `limit` characters.

    Control, direction, zero-width and separator characters and lone surrogates become escapes like \\x1b and \\u202e.
    """
    part = str(text)[: limit + 1]
    safe = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in part)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


class CoolvidError(Exception):
    """Base of all errors raised on purpose. The message is one printable() line with value, choices and next step."""

    def __str__(self) -> str:
        return one_line(super().__str__())


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


def one_line(text: object) -> str:
    """A whole message on one line, as printable() shows it."""
    return printable(" ".join(str(text).split()), MAX_MESSAGE)


def choose(what: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ConfigError naming value and choices unless value is one of them."""
    if value not in choices:
        raise ConfigError(f"{what} '{printable(value)}'; choose one of: {', '.join(map(str, choices))}")


def count_frames(n: int) -> str:
    """1 frame, 2 frames."""
    return f"{n} frame{'' if n == 1 else 's'}"


def within(what: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high. NaN always fails."""
    if not low <= value <= high:
        raise ConfigError(f"{what} is {printable(value)}; choose {low}..{high}")


def tell_how_to_resume(error: BaseException, what_is_kept: str) -> None:
    """Note on an error, as BaseException.add_note() does, what it left and how to go on; replaces earlier notes."""
    error.__notes__ = [f"{what_is_kept}: add --resume (in Python: resume=True)"]
