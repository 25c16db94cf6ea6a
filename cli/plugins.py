"""`coolvid plugins`: the installed plugins, their packages and problems."""

from __future__ import annotations

import click

from coolvid.errors import printable
from coolvid.kernels import description
from coolvid.plugin.registry import Installed, installed

from .console import make_console, make_table
from .options import debug_option

TITLES = ("kind", "name", "package", "version", "needed to decode", "problem")


@click.command("plugins")
@debug_option
def command() -> None:
    """List the installed plugins. A stream names the plugins needed to decode it; the others affect training only."""
    console = make_console()
    console.print(make_table(TITLES, map(_row, installed()), left=len(TITLES)))
    console.print(f"\nInner loops run in {description()}.")


def _row(plugin: Installed) -> tuple[object, ...]:
    package = printable(f"{plugin.package} {plugin.package_version}".strip())
    needed = "yes" if plugin.is_normative else "no"
    return plugin.kind, printable(plugin.name), package, plugin.version or "-", needed, plugin.problem or "-"
