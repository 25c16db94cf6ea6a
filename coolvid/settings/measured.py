"""Measured time, rate and quality of the presets, from measured.toml, which names the clip, machine and date."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PresetFigures:
    """Figures of a whole encode. seconds_per_frame: processor seconds of one core. rate_bpp: bits per luma pixel."""

    seconds_per_frame: float
    rate_bpp: float
    psnr_db: float


@dataclass(frozen=True)
class Measurement:
    """clip, options, machine and date in words; presets by name, where measured."""

    clip: str
    options: str
    machine: str
    date: str
    presets: Mapping[str, PresetFigures]


@cache
def measurement() -> Measurement:
    """The measurement included in this version."""
    content = tomllib.loads(files(__package__).joinpath("measured.toml").read_text(encoding="utf-8"))
    presets = {name: PresetFigures(**figures) for name, figures in content.pop("presets").items()}
    return Measurement(**content, presets=presets)
