"""The syntax of option values, and the options that commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

import coolvid
from coolvid import SourceSpec, files
from coolvid.errors import ConfigError, StreamError
from coolvid.picture.types import MAX_PIXELS
from coolvid.plugin.choice import PluginChoice

DEBUG = "coolvid_cli.debug"
_FLAGS = {field.name: field.name for field in fields(SourceSpec)} | {"stream": "stream_number"}
SOURCE_NAMES = tuple(_FLAGS.values())
"""Parameters of commands, one for each field of SourceSpec. In some commands, `stream` is an argument."""
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _note_debug(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    ctx.meta[DEBUG] = given or ctx.meta.get(DEBUG, False)


def refuse_appended(stream: Path) -> None:
    """Raise StreamError for a file with bytes after its stream."""
    if n_bytes := coolvid.read_info(stream).n_appended:
        raise StreamError(f"{stream} has {n_bytes} bytes after the stream; leave out --strict to ignore them")


def debug_option(command: Decorated) -> Decorated:
    """--debug, before or after the name of the command."""
    flag = click.option(
        "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback on errors."
    )
    return flag(command)


def plugin_option(flag: str, help: str) -> Callable[[Decorated], Decorated]:
    """An option that names a plugin: NAME or NAME:key=value,key=value."""
    return click.option(flag, type=PluginChoice.parse, metavar="NAME[:key=value,...]", default=None, help=help)


def quiet_option(command: Decorated) -> Decorated:
    return click.option("-q", "--quiet", is_flag=True, help="Print errors only.")(command)


def strict_option(command: Decorated) -> Decorated:
    return click.option("--strict", is_flag=True, help="Refuse a file with bytes after the stream.")(command)


def threads_option(command: Decorated) -> Decorated:
    return click.option(
        "--threads",
        type=click.IntRange(0, 1024),
        default=0,
        show_default="all cores",
        metavar="N",
        help="CPU threads; affects speed, never the result.",
    )(command)


def max_pixels_option(command: Decorated) -> Decorated:
    return click.option(
        "--max-pixels",
        type=click.IntRange(1, MAX_PIXELS),
        default=MAX_PIXELS,
        show_default=True,
        metavar="N",
        help="Refuse a stream whose pictures have more pixels.",
    )(command)


def take_source_spec(settings: dict[str, Any]) -> SourceSpec:
    """How to read the source; removes SOURCE_NAMES from the settings. Raises ConfigError."""
    given = {field: settings.pop(name, None) for field, name in _FLAGS.items()}
    return SourceSpec(**{field: value for field, value in given.items() if value is not None})


def given_source_flag(settings: dict[str, Any]) -> str | None:
    """The first option among the settings that describes a source, for example --pix-fmt."""
    return next((f"--{field.replace('_', '-')}" for field, name in _FLAGS.items() if settings[name] is not None), None)


def parse_size(text: str) -> tuple[int, int]:
    """352x288 -> (352, 288), width first."""
    if not (match := re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)):
        raise ConfigError(f"cannot read size '{text}'; write WIDTHxHEIGHT, for example 352x288")
    return int(match[1]), int(match[2])


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """352x288+16+8 -> (352, 288, 16, 8): width, height, and the position of the upper left corner."""
    if not (match := re.fullmatch(r"(\d{1,6})[xX](\d{1,6})\+(\d{1,6})\+(\d{1,6})", text)):
        raise ConfigError(f"cannot read crop '{text}'; write WIDTHxHEIGHT+X+Y, for example 352x288+16+8")
    return int(match[1]), int(match[2]), int(match[3]), int(match[4])


def parse_positions(text: str) -> tuple[int, ...]:
    """0,8,-1 -> (0, 8, -1)."""
    if not re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", text):
        raise ConfigError(f"cannot read positions '{text}'; write comma-separated frame numbers, for example 0,8,-1")
    return tuple(int(part) for part in text.split(","))


def refuse_overwriting(source: Path, *outs: Path | None) -> None:
    """Raise ConfigError when an output, or the part of it, would replace the input or another output."""
    made: set[Path] = set()
    for out in filter(None, outs):
        files.refuse_overwriting(source, out)
        names = set() if files.is_in_place(out) else {out.resolve(), files.part_of(out).resolve()}
        if made & names:
            raise ConfigError(f"two outputs have the name '{out}'; choose another name for one")
        made |= names
