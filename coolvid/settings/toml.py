"""EncodeConfig to TOML and back. Layers override each other in order: a preset, then a file, then single settings.

The tables of a file are those of EncodeConfig: its own settings at the top, [structure], [plugins] (kind = "NAME" or
"NAME:key=value,key=value") and [training], which replaces settings of the preset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from coolvid.codec.gop import StructureConfig
from coolvid.errors import ConfigError, InputError, printable
from coolvid.files import read_text, write_text
from coolvid.picture.types import MIN_SIDE, FrameType
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.interfaces import NORMATIVE
from coolvid.values import parse_toml

from .config import EncodeConfig
from .presets import frame_configs, training_types
from .values import fit_table, paths

Layer = Mapping[str, Any]


def setting_types() -> dict[str, Any]:
    """Every setting by name, with its type; tables are mappings."""
    return {
        **get_type_hints(EncodeConfig),
        "structure": get_type_hints(StructureConfig),
        "plugins": dict.fromkeys(NORMATIVE, PluginChoice),
        "training": training_types(),
    }


def setting_names() -> list[str]:
    """Dotted names of all settings, for example structure.gop."""
    return paths(setting_types())


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, as a layer for make_config(). Raises InputError (cannot read) or ConfigError."""
    try:
        content = parse_toml(read_text(path))
        return fit_table(content, setting_types())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # of syntax or encoding, or a number of too many digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_setting(text: str) -> dict[str, Any]:
    """``structure.gop=4`` as a layer for make_config(); a value that is not TOML is a string. Raises ConfigError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise ConfigError(f"cannot read setting '{printable(text)}'; write NAME=VALUE, for example structure.gop=4")
    layer: Any = _value(value)
    for part in reversed(name.split(".")):
        layer = {part: layer}
    return fit_table(layer, setting_types())


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def make_config(layers: Iterable[Layer]) -> EncodeConfig:
    """The configuration from the layers; later layers override earlier ones. Raises ConfigError."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, fit_table(layer, setting_types()))
    structure = StructureConfig(**merged.pop("structure", {}))
    plugins = tuple(merged.pop("plugins", {}).items())
    config = EncodeConfig(**merged, structure=structure, plugins=plugins)
    for frame_type in FrameType:  # report invalid settings now, even for frame types that the encode lacks
        frame_configs(config, frame_type, frame_type.value, (MIN_SIDE, MIN_SIDE))
    return config


def _merge(below: Layer, above: Layer) -> dict[str, Any]:
    out = dict(below)
    for name, value in above.items():
        out[name] = _merge(out.get(name, {}), value) if isinstance(value, Mapping) else value
    return out


def settings_of(config: EncodeConfig) -> dict[str, Any]:
    """The whole configuration as plain values, in the tables of a file, without values that are None."""
    plain = {f.name: _plain(getattr(config, f.name)) for f in fields(config)}
    structure = {f.name: _plain(getattr(config.structure, f.name)) for f in fields(config.structure)}
    plugins = {kind: str(choice) for kind, choice in config.plugins}
    training = {name: _plain(value) for name, value in dict(config.training).items()}
    plain |= {"structure": structure, "plugins": plugins, "training": training}
    return {name: value for name, value in plain.items() if value is not None}


def settings_of_bytes(config: EncodeConfig) -> dict[str, Any]:
    """settings_of() without the settings that change only the time of an encode, never its bytes."""
    return {name: value for name, value in settings_of(config).items() if name != "threads"}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, PluginChoice) else value


def to_toml(settings: Layer) -> str:
    """Plain values, and tables of them, as TOML."""
    tables = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items() if name not in tables]
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_config(config: EncodeConfig, path: str | Path) -> None:
    """Write a file from which read_config() and make_config() restore this configuration. Raises OutputError."""
    write_text(path, to_toml(settings_of(config)))
