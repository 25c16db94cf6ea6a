"""Plugins by name. The only file that imports `entrypoints`.

Built-ins enter by the same door as everybody else. A plugin that does not load is reported by name and does not
take the others down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, cast

import entrypoints

from .architecture import PluginRecord, Ports
from .errors import ConfigError, MissingPlugin, PluginError, UnknownPlugin
from .interfaces import BASES, KINDS, NORMATIVE, NormativePlugin, Plugin


@dataclass(frozen=True)
class Installed:
    """A plugin as found on this machine; `problem` says why it cannot be used ('' when it can)."""

    kind: str
    name: str
    package: str
    package_version: str
    version: int
    problem: str = ""

    @property
    def is_normative(self) -> bool:
        return self.kind in NORMATIVE


@cache
def _entry_points(kind: str) -> dict[str, tuple[entrypoints.EntryPoint, ...]]:
    if kind not in KINDS:
        raise ConfigError(f"no plugin kind '{kind}'; choose one of {', '.join(KINDS)}")
    found: dict[str, dict[tuple[str, str], entrypoints.EntryPoint]] = {}
    for point in entrypoints.get_group_all(f"coolvid.{kind}"):
        found.setdefault(point.name, {})[_package(point)[0], point.module_name] = point
    return {name: tuple(points.values()) for name, points in sorted(found.items())}


def _package(point: entrypoints.EntryPoint) -> tuple[str, str]:
    return (point.distro.name, point.distro.version) if point.distro else ("unknown", "")


def names(kind: str) -> tuple[str, ...]:
    """Names installed for a kind, sorted."""
    return tuple(_entry_points(kind))


@cache
def load(kind: str, name: str) -> type[Plugin]:
    """The plugin class. Raises UnknownPlugin (absent or offered twice) or PluginError (broken)."""
    points = _entry_points(kind).get(name, ())
    if not points:
        raise UnknownPlugin(
            f"no {kind} named '{name}'; installed: {', '.join(names(kind))} (see coolvid plugins; "
            "a package installed in editable mode must be installed again after adding a plugin)"
        )
    if len(points) > 1:
        owners = ", ".join(_package(p)[0] for p in points)
        raise UnknownPlugin(f"{kind} '{name}' is offered by more than one package ({owners}); uninstall all but one")
    try:
        plugin = points[0].load()
    except Exception as error:
        raise PluginError(f"{kind} '{name}' of {_package(points[0])[0]} does not load: {error}") from error
    base = BASES[kind]
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise PluginError(f"{kind} '{name}' of {_package(points[0])[0]} is not a subclass of {base.__name__}")
    return plugin


def installed(kind: str | None = None) -> tuple[Installed, ...]:
    """All plugins on this machine, broken ones included."""
    out = []
    for each in KINDS if kind is None else (kind,):
        for name, points in _entry_points(each).items():
            for point in points:
                version, problem = 0, ""
                try:
                    version = load(each, name).version
                except (UnknownPlugin, PluginError) as error:
                    problem = str(error)
                out.append(Installed(each, name, *_package(point), version, problem))
    return tuple(out)


def make_options(kind: str, name: str, given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Any:
    """The plugin's options record from defaults and the user's values; text is converted to each field's type."""
    cls = load(kind, name).Options
    known = {f.name: f for f in fields(cls)}
    for key in given:
        if key not in known:
            raise ConfigError(f"{kind} '{name}' has no option '{key}'; it has: {', '.join(known) or 'none'}")
    values = {**(defaults or {})}
    for key, value in given.items():
        values[key] = _convert(kind, name, key, value, known[key].default)
    return cls(**values)


def _convert(kind: str, name: str, key: str, value: Any, like: Any) -> Any:
    if not isinstance(value, str) or isinstance(like, str):
        return value
    try:
        if isinstance(like, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        return type(like)(value) if isinstance(like, (int, float)) else value
    except (KeyError, ValueError):
        raise ConfigError(f"{kind} '{name}': option {key}='{value}' is not a {type(like).__name__}") from None


def make(kind: str, name: str, given: Mapping[str, Any] | None = None) -> Plugin:
    """An encoder-only plugin, ready to use."""
    return load(kind, name)(make_options(kind, name, given or {}))


def record(kind: str, name: str, ports: Ports, given: Mapping[str, Any], parameter: Any = None) -> PluginRecord:
    """The stream's record of a normative plugin for this encode."""
    cls = cast(type[NormativePlugin], load(kind, name))
    options = make_options(kind, name, given, cls.defaults(parameter, ports))
    return PluginRecord(name, cls.version, options.values())


def build(kind: str, named: PluginRecord, ports: Ports) -> NormativePlugin:
    """A normative plugin from its record. Raises MissingPlugin when this machine cannot decode it."""
    try:
        cls = cast(type[NormativePlugin], load(kind, named.name))
    except UnknownPlugin as error:
        raise MissingPlugin(
            f"this stream needs the {kind} plugin '{named.name}' (version {named.version}), which is not installed; "
            f"installed: {', '.join(names(kind))}"
        ) from error
    if cls.version != named.version:
        raise MissingPlugin(
            f"this stream needs version {named.version} of the {kind} plugin '{named.name}'; installed: {cls.version}"
        )
    return cls(cls.Options.from_values(named.options), ports)
