"""The settings of an encode, where preset < --config < --set < options; and a target instead of a lambda."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from coolvid import Target
from coolvid.errors import ConfigError
from coolvid.settings.config import EncodeConfig
from coolvid.settings.toml import make_config, parse_setting, read_config

STRUCTURE_NAMES = ("gop", "intra_period", "low_delay", "intra_pos", "p_pos")
PLUGIN_NAMES = ("arm", "upsampling", "synthesis", "warper")
TARGETS = ("bpp", "bitrate", "psnr")
Given = Mapping[str, Any]
path = click.Path(path_type=Path, dir_okay=False)


def parse_bitrate(text: str) -> float:
    """300k, 1.5M or 300000 -> bits per second."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([kKM]?)", text)
    if not match:
        raise ConfigError(f"cannot read bit rate '{text}'; write bits per second, for example 300k or 1.5M")
    return float(match[1]) * {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}[match[2]]


TARGET_OPTIONS = (
    click.option(
        "--bpp", type=float, metavar="BITS", help="Target instead of --lmbda: bits per luma pixel, within 2 %."
    ),
    click.option(
        "--bitrate",
        type=parse_bitrate,
        metavar="RATE",
        help="Target instead of --lmbda: bits per second, for example 300k, within 2 %.",
    ),
    click.option(
        "--psnr", type=float, metavar="DB", help="Target instead of --lmbda: PSNR over all samples, within 0.1 dB."
    ),
)
CONFIG_OPTIONS = (
    click.option(
        "--config",
        "config_file",
        type=path,
        metavar="FILE.toml",
        help="Read settings from this file; options override them.",
    ),
    click.option(
        "--set",
        "assignments",
        type=parse_setting,
        multiple=True,
        metavar="NAME=VALUE",
        help="Change one setting, named as in a --config file; repeatable.",
    ),
    click.option("--write-config", type=path, metavar="FILE.toml", help="Write all settings to a file for --config."),
)


def explicit(settings: Given) -> dict[str, Any]:
    """The options given on the command line, as tables of a configuration."""
    ctx = click.get_current_context()
    chosen = {n: v for n, v in settings.items() if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    chosen = {n: v for n, v in chosen.items() if n not in ("config_file", "assignments")}
    structure = {name: chosen.pop(name) for name in STRUCTURE_NAMES if name in chosen}
    plugins = {name: chosen.pop(name) for name in PLUGIN_NAMES if name in chosen}
    return {**chosen, "structure": structure, "plugins": plugins}


def chosen_config(settings: Given) -> EncodeConfig:
    """The configuration of an encode from the values of its options. Raises CoolvidError."""
    file = settings.get("config_file")
    base = read_config(file) if file is not None else {}
    return make_config([base, *settings.get("assignments", ()), explicit(settings)])


def chosen_target(wanted: Given, settings: Given) -> Target | None:
    """The target, if one was given. Raises ConfigError for two targets, or a target and an explicit lambda."""
    given = {f"--{name}": value for name, value in wanted.items() if value is not None}
    exact = ["--lmbda"] if "lmbda" in explicit(settings) else []
    exact += ["--set lmbda" for layer in settings["assignments"] if "lmbda" in layer][:1]
    if given and len(names := [*exact, *given]) > 1:
        raise ConfigError(f"give only one of --lmbda, --bpp, --bitrate, --psnr, not {' and '.join(names)}")
    return next((Target(name.removeprefix("--"), value) for name, value in given.items()), None)
