"""`coolvid presets`: the settings of each preset, and its measured time, rate and quality."""

from __future__ import annotations

from dataclasses import fields

import click

from coolvid.settings.measured import Measurement, measurement
from coolvid.settings.presets import MAIN_PHASE, TABLE, Preset, intra_total, training_types

from .console import make_console, make_table
from .options import debug_option


@click.command("presets")
@debug_option
def command() -> None:
    """Show what each preset sets, with measured time and bits."""
    console = make_console()
    console.print(make_table(("setting", *TABLE), setting_rows()))
    console.print("\nChange a setting with --set training.NAME=VALUE, networks with --intra, --residue and --motion.")
    console.print(
        f"Exact values for the main phase of every frame: {', '.join(f'training.{name}' for name in MAIN_PHASE)}.\n"
        "B frames that inherit networks train at training.start_lr times training.inherit_lr_scale.\n"
    )
    found = measurement()
    console.print(make_table(("measured", *TABLE), measured_rows(found)))
    console.print(f"\n{found.clip}, {found.options}; {found.machine}; {found.date}.")


def setting_rows() -> list[list[str]]:
    """One row per field of Preset, under its name in --set, after the total that --iterations replaces."""
    settable = training_types()
    rows = [["iterations per I frame", *(str(intra_total(preset)) for preset in TABLE.values())]]
    for field in fields(Preset):
        name = f"training.{field.name}" if field.name in settable else f"{field.name.replace('_', ' ')} networks"
        rows.append([name, *(text(getattr(preset, field.name)) for preset in TABLE.values())])
    return rows


def text(value: object) -> str:
    """A setting in short form, with pairs written as 3×60."""
    if not isinstance(value, tuple):
        return str(value)
    parts = ("×".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in value)
    return " ".join(parts) or "none"


def measured_rows(found: Measurement) -> list[list[str]]:
    """Time, rate and quality by preset; a dash for presets without a measurement."""
    figures = [found.presets.get(name) for name in TABLE]
    return [
        ["processor seconds per frame", *(f"{f.seconds_per_frame:.1f}" if f else "-" for f in figures)],
        ["bits per pixel", *(f"{f.rate_bpp:.4f}" if f else "-" for f in figures)],
        ["PSNR in dB", *(f"{f.psnr_db:.2f}" if f else "-" for f in figures)],
    ]
