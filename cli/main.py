"""`coolvid`: the group of commands. A command's module is imported only when that command runs."""

from __future__ import annotations

import importlib
import traceback
from contextlib import suppress
from typing import Any

import click

from coolvid.errors import ConfigError, CoolvidError, one_line
from coolvid.files import check_name

from .options import DEBUG, debug_option
from .process import prepare

COMMANDS = {
    "encode": "Encode a video or an image to a .cvd stream.",
    "decode": "Decode a .cvd stream to a video or to images.",
    "info": "Show the header, frames and bits of a .cvd stream.",
    "compare": "Compare coolvid with x264, x265 and SVT-AV1 on a video.",
    "review": "Show source, decoded video and their difference side by side.",
    "report": "Write an HTML report on what is inside a .cvd stream.",
    "plugins": "List the installed plugins.",
    "presets": "Show what each preset sets, with measured time and bits.",
}
ARGUMENTS = "coolvid_cli.arguments"
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """Loads commands on demand and turns the library's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        prepare()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            for argument in ctx.meta[ARGUMENTS]:
                if not argument:
                    raise ConfigError("an argument is empty; give a name or a value")
                check_name(argument, ConfigError)
            return super().invoke(ctx)
        except (BrokenPipeError, SystemExit) as error:  # standard output was closed: rich exits, click gets to know
            with suppress(OSError):
                for note in _notes(error):
                    click.echo(f"coolvid: {note}", err=True)
            raise
        except click.ClickException as error:
            error.message = one_line(error.message)  # type: ignore[misc, unused-ignore]
            raise
        except (CoolvidError, OSError, MemoryError) as error:
            _report(error, with_traceback=bool(ctx.meta.get(DEBUG)))
            ctx.exit(EXIT_ERROR)
        except KeyboardInterrupt as error:
            _report(error, with_traceback=bool(ctx.meta.get(DEBUG)))
            ctx.exit(EXIT_INTERRUPTED)


def _report(error: BaseException, with_traceback: bool) -> None:
    """Print one line on standard error, after the traceback if requested."""
    if with_traceback:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, KeyboardInterrupt):
        click.echo(one_line("; ".join(("coolvid: interrupted", *error.args, *_notes(error)))), err=True)
        return
    text = str(error) or "not enough memory; `coolvid info` says what decoding a stream needs"
    click.echo(f"coolvid: error: {one_line('; '.join((text, *_notes(error))))}", err=True)


def _notes(error: BaseException) -> list[str]:
    """What was left, and how to go on."""
    return getattr(error, "__notes__", [])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coolvid")
@debug_option
def main() -> None:
    """A neural video codec: the encoder fits a small network to each frame, and the stream carries that network."""
