"""Plugins by name. The only file that imports `entrypoints`.

Built-ins use the same entry points as all plugins. A plugin that does not load is reported by name and does not
affect the others.
"""

from __future__ import annotations

import configparser
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, lru_cache
from typing import Any, Literal, cast, overload

import entrypoints  # type: ignore[import-untyped]

from coolvid.codec.architecture import PluginRecord, Ports
from coolvid.errors import ConfigError, CoolvidError, MissingPlugin, PluginError, UnknownPlugin, printable
from coolvid.values import fit_like, read_like

from .contract import reported
from .interfaces import (
    BASES,
    KINDS,
    NORMATIVE,
    ArmPlugin,
    NormativePlugin,
    Plugin,
    PluginOptions,
    SynthesisPlugin,
    UpsamplingPlugin,
    WarperPlugin,
)


@dataclass(frozen=True)
class Installed:
    """An installed plugin; `problem` says why it cannot be used ('' if it can)."""

    kind: str
    name: str
    package: str
    package_version: str
    version: int
    problem: str = ""

    @property
    def is_normative(self) -> bool:
        return self.kind in NORMATIVE


@dataclass(frozen=True)
class _Offer:
    """One distribution's entry point for a plugin: ``target`` is module:class."""

    package: str
    package_version: str
    target: str


@cache
def _groups() -> dict[str, dict[str, tuple[_Offer, ...]]]:
    """Every offer on sys.path: kind -> name -> offers. Raises PluginError naming an unreadable file."""
    found: dict[str, dict[str, tuple[_Offer, ...]]] = {kind: {} for kind in KINDS}
    try:
        for config, distro in entrypoints.iter_files_distros():
            for kind in KINDS:
                group = f"coolvid.{kind}"
                for name in config.options(group) if config.has_section(group) else ():
                    offer = _Offer(distro.name, distro.version or "", config.get(group, name, raw=True))
                    found[kind][name] = (*found[kind].get(name, ()), offer)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise PluginError(
            f"an installed package has unreadable entry points; repair or uninstall it: {_one_line(error)}"
        ) from error
    return {kind: dict(sorted(offers.items())) for kind, offers in found.items()}


def _offers(kind: str) -> dict[str, tuple[_Offer, ...]]:
    if kind not in KINDS:
        raise ConfigError(f"no plugin kind '{kind}'; choose one of {', '.join(KINDS)}")
    return _groups()[kind]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def refresh() -> None:
    """Clear the cache, after installing or removing a package in a running process, and in tests."""
    _groups.cache_clear()
    load.cache_clear()
    _build.cache_clear()
    importlib.invalidate_caches()


def names(kind: str) -> tuple[str, ...]:
    """Installed names of a kind, sorted."""
    return tuple(_offers(kind))


@cache
def load(kind: str, name: str) -> type[Plugin]:
    """The plugin class. Raises UnknownPlugin (absent or offered twice) or PluginError (broken)."""
    offer = require(kind, name)
    try:
        plugin = entrypoints.EntryPoint.from_string(offer.target, name).load()
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {_one_line(error)}"
        raise PluginError(f"{kind} '{name}' of {offer.package} does not load: {text}") from error
    problem = _problem(kind, plugin)
    if problem:
        raise PluginError(f"{kind} '{name}' of {offer.package} {problem}")
    return cast(type[Plugin], plugin)


def require(kind: str, name: str) -> _Offer:
    """The only offer of a plugin, which is not loaded. Raises UnknownPlugin (absent or offered twice)."""
    offers = _offers(kind).get(name, ())
    if not offers:
        raise UnknownPlugin(
            f"no {kind} named '{printable(name)}'; installed: {', '.join(names(kind)) or 'none'} (see coolvid plugins; "
            "a package installed in editable mode must be installed again after adding a plugin)"
        )
    if len(offers) > 1:
        owners = ", ".join(offer.package for offer in sorted(offers, key=lambda o: o.package))
        raise UnknownPlugin(f"{kind} '{name}' is offered by more than one package ({owners}); uninstall all but one")
    return offers[0]


def _problem(kind: str, plugin: Any) -> str:
    """Why this object cannot be a plugin of this kind; '' if it can."""
    base = BASES[kind]
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        return f"is not a subclass of {base.__name__}"
    if inspect.isabstract(plugin):
        return f"does not define {', '.join(sorted(plugin.__abstractmethods__))}"
    options: Any = plugin.Options
    if not (isinstance(options, type) and issubclass(options, PluginOptions) and _is_decorated(options)):
        return "has Options that are not a frozen dataclass derived from PluginOptions"
    missing = [f.name for f in fields(options) if f.default is MISSING]
    if missing:
        return f"has options without a default: {', '.join(missing)}"
    if type(plugin.version) is not int or plugin.version < 1:
        return f"has version {plugin.version!r}; versions are 1, 2, ..."
    return ""


def _is_decorated(options: type) -> bool:
    """Whether the class itself is decorated. A subclass without @dataclass would silently lose its options."""
    return "__dataclass_params__" in vars(options)


def installed(kind: str | None = None) -> tuple[Installed, ...]:
    """All plugins on this machine, including broken ones."""
    out = []
    for each in KINDS if kind is None else (kind,):
        for name, offers in _offers(each).items():
            for offer in offers:
                version, problem = 0, ""
                try:
                    version = load(each, name).version
                except (UnknownPlugin, PluginError) as error:
                    problem = str(error)
                out.append(Installed(each, name, offer.package, offer.package_version, version, problem))
    return tuple(out)


def make_options(kind: str, name: str, given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Any:
    """The plugin's options record from defaults and the user's values; text is converted to each field's type.

    Text for a bool: true, false, yes, no, on, off, 1, 0. Text for a tuple: brackets, for example ``(3,5)`` or
    ``((8,1),(3,1))``. Raises ConfigError for values that do not fit, PluginError for defaults that do not fit.
    """
    cls = load(kind, name).Options
    known = {f.name: f.default for f in fields(cls)}
    unknown = [key for key in defaults or {} if key not in known]
    if unknown:
        raise PluginError(f"{kind} '{name}' gives defaults for options it does not have: {', '.join(unknown)}")
    for key in given:
        if key not in known:
            raise ConfigError(f"{kind} '{name}' has no option '{printable(key)}'; it has: {', '.join(known) or 'none'}")
    try:
        values = {key: _convert(key, value, known[key]) for key, value in {**(defaults or {}), **given}.items()}
        return cls(**values)
    except CoolvidError as error:
        raise type(error)(f"{kind} '{name}': {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind} '{name}' does not take these options: {_one_line(error)}") from error


def _convert(key: str, value: Any, like: Any) -> Any:
    convert = read_like if isinstance(value, str) else fit_like
    return convert(value, like, f"option {key}")


def make(kind: str, name: str, given: Mapping[str, Any] | None = None) -> Plugin:
    """An encoder-only plugin, ready to use."""
    options = make_options(kind, name, given or {})
    with reported(kind, name):
        return load(kind, name)(options)


def record(
    kind: str, name: str, ports: Ports, given: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> PluginRecord:
    """The stream's record of a normative plugin for this encode. settings: those that options may follow, by name."""
    defaults = {} if settings is None else followed(kind, name, ports, settings)
    return PluginRecord(name, load(kind, name).version, make_options(kind, name, given, defaults).values())


def followed(kind: str, name: str, ports: Ports, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a normative plugin that follow one of these settings, and their values.

    Raises PluginError if an option follows any other setting.
    """
    cls = cast(type[NormativePlugin], load(kind, name))
    for option, setting in cls.follows.items():
        if setting not in settings:
            raise PluginError(
                f"{kind} '{name}' has an option '{option}' that follows a setting '{setting}'; settings for "
                f"this kind: {', '.join(settings)}"
            )
    return {option: cls.adapted(option, settings[setting], ports) for option, setting in cls.follows.items()}


@overload
def build(kind: Literal["arm"], named: PluginRecord, ports: Ports) -> ArmPlugin: ...
@overload
def build(kind: Literal["upsampling"], named: PluginRecord, ports: Ports) -> UpsamplingPlugin: ...
@overload
def build(kind: Literal["synthesis"], named: PluginRecord, ports: Ports) -> SynthesisPlugin: ...
@overload
def build(kind: Literal["warper"], named: PluginRecord, ports: Ports) -> WarperPlugin: ...
@overload
def build(kind: str, named: PluginRecord, ports: Ports) -> NormativePlugin: ...
def build(kind: str, named: PluginRecord, ports: Ports) -> NormativePlugin:
    """A normative plugin from its record, the same object for the same record. Raises MissingPlugin if this machine
    cannot decode it."""
    return _build(kind, named, ports, repr(named))


@lru_cache(maxsize=256)
def _build(kind: str, named: PluginRecord, ports: Ports, text: str) -> NormativePlugin:
    """text: distinguishes records that differ only in the type of an option, for example 1 and True."""
    if named.name not in _offers(kind):
        raise MissingPlugin(
            f"this stream needs the {kind} plugin '{printable(named.name)}' (version {named.version}), which is not "
            f"installed; installed: {', '.join(names(kind)) or 'none'}; install the package that offers it"
        )
    cls = cast(type[NormativePlugin], load(kind, named.name))
    if cls.version != named.version:
        raise MissingPlugin(
            f"this stream needs version {named.version} of the {kind} plugin '{named.name}'; installed: {cls.version}"
        )
    try:
        return cls(cls.Options.from_values(named.options), ports)
    except CoolvidError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        text = f"{type(error).__name__}: {printable(_one_line(error))}"
        raise PluginError(
            f"{kind} '{named.name}' cannot be built with options {printable(named.options)}: {text}"
        ) from error
