"""Finding, loading and configuring plugins, with distributions written for the occasion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coolvid.codec.architecture import PluginRecord, Ports
from coolvid.errors import ConfigError, MissingPlugin, PluginError, StreamError, UnknownPlugin
from coolvid.plugin import registry
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.interfaces import BASES, KINDS, PluginOptions
from coolvid.values import fit_like

MODULE = """
from dataclasses import dataclass
from coolvid.errors import ConfigError
from coolvid.plugin.interfaces import PluginOptions, QuantizerPlugin, SynthesisPlugin

@dataclass(frozen=True)
class Options(PluginOptions):
    width: int = 8
    gain: float = 0.5
    fast: bool = True
    label: str = "a"
    sizes: tuple[int, ...] = (3, 5)

    def __post_init__(self):
        if self.width > 64:
            raise ConfigError(f"width is {self.width}; choose at most 64")
        if self.width == 13:
            raise ValueError("unlucky")

class Good(QuantizerPlugin):
    name = "good"
    Options = Options
    def quantize(self, x, noise, temperature, state):
        return x

class Abstract(QuantizerPlugin):
    name = "abstract"

class Zero(Good):
    version = 0

class Synthesis(SynthesisPlugin):
    name = "syn"
    version = 2
    Options = Options
    def __init__(self, options, ports):
        super().__init__(options, ports)
        1 // (options.width - 1)
    follows = {"width": "ups_k_size"}
    @classmethod
    def adapted(cls, option, value, ports):
        return value + ports.n_out - 9
    def module(self): ...
    def integer(self, parameters, scales=None): ...

class Bare(Good):
    class Options(PluginOptions):
        width: int = 3

@dataclass(frozen=True)
class Needy(PluginOptions):
    width: int

class NoDefault(Good):
    Options = Needy
"""
QUANTIZERS = """
good = fine_plugins:Good
abstract = fine_plugins:Abstract
zero = fine_plugins:Zero
bare = fine_plugins:Bare
needy = fine_plugins:NoDefault
function = fine_plugins:dataclass
absent_class = fine_plugins:Gone
absent_module = no_such_module:P
raising = raising_plugins:P
exiting = exiting_plugins:P
garbled = not an entry point !!
"""


def distribution(folder: Path, package: str, entry_points: str, **modules: str) -> None:
    """A package as pip leaves it: modules beside a .dist-info."""
    info = folder / f"{package}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(entry_points)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch):
    """A folder on sys.path with one distribution of good and bad plugins."""
    distribution(
        tmp_path,
        "fine",
        f"[coolvid.quantizer]\n{QUANTIZERS}\n[coolvid.synthesis]\nsyn = fine_plugins:Synthesis\n",
        fine_plugins=MODULE,
        raising_plugins="raise RuntimeError('two\\nlines')\n",
        exiting_plugins="raise SystemExit(3)\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    yield tmp_path
    monkeypatch.undo()
    registry.refresh()
    for name in ("fine_plugins", "raising_plugins", "exiting_plugins"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", KINDS)
def test_built_ins_load(kind):
    for name in registry.names(kind):
        assert issubclass(registry.load(kind, name), BASES[kind])


def test_unknown_kind_names_the_choices():
    for call in (registry.names, registry.installed):
        with pytest.raises(ConfigError, match="no plugin kind 'sinthesis'; choose one of arm, upsampling"):
            call("sinthesis")


def test_unknown_name_names_the_installed_ones():
    with pytest.raises(UnknownPlugin, match=r"no quantizer named 'sofround'; installed: .*softround.*coolvid plugins"):
        registry.load("quantizer", "sofround")


PROBLEMS = [
    ("good", ""),
    ("abstract", "does not define quantize"),
    ("zero", "has version 0; versions are 1, 2"),
    ("bare", "not a frozen dataclass"),
    ("needy", "options without a default: width"),
    ("function", "is not a subclass of QuantizerPlugin"),
    ("absent_class", "does not load: AttributeError"),
    ("absent_module", "does not load: ModuleNotFoundError"),
    ("raising", "does not load: RuntimeError: two lines"),
    ("exiting", "does not load: SystemExit: 3"),
    ("garbled", "does not load: BadEntryPoint"),
]


@pytest.mark.parametrize("name, problem", PROBLEMS)
def test_a_broken_plugin_is_reported_and_the_others_stay(site, name, problem):
    found = {each.name: each for each in registry.installed("quantizer")}
    assert {"softround", "good", name} <= set(found) and not found["softround"].problem
    assert (found[name].package, found[name].package_version) == ("fine", "1.5")
    assert not found[name].is_normative
    assert problem in found[name].problem and bool(problem) == bool(found[name].problem)
    if problem:
        with pytest.raises(PluginError, match=f"quantizer '{name}' of fine "):
            registry.load("quantizer", name)


def test_two_packages_with_one_name(site):
    other = site / "other"
    distribution(other, "rival", "[coolvid.quantizer]\nsoftround = rival_plugins:P\ngood = rival_plugins:P\n")
    script = """
from coolvid.plugin import registry
from coolvid.errors import UnknownPlugin
for name in ("softround", "good"):
    try:
        registry.load("quantizer", name)
    except UnknownPlugin as error:
        print(error)
for each in registry.installed("quantizer"):
    print(each.name, each.package, each.problem)
registry.load("quantizer", "ste")
"""
    path = os.pathsep.join((str(site), str(other)))
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "quantizer 'softround' is offered by more than one package (coolvid, rival); uninstall all but one"
    )
    assert "(fine, rival)" in lines[1]
    assert sum("softround rival quantizer 'softround' is offered" in line for line in lines) == 1
    assert sum("softround coolvid quantizer 'softround' is offered" in line for line in lines) == 1


def test_one_package_found_twice_on_the_path_is_one(site, tmp_path, monkeypatch):
    again = tmp_path / "again"
    distribution(again, "fine", "[coolvid.quantizer]\ngood = fine_plugins:Good\n")
    monkeypatch.syspath_prepend(str(again))
    registry.refresh()
    assert registry.load("quantizer", "good").name == "good"


def test_unreadable_entry_points_name_the_file(site):
    distribution(site, "odd", "no section at all\n")
    registry.refresh()
    with pytest.raises(PluginError, match=r"repair or uninstall it: .*odd-1.5.dist-info"):
        registry.names("arm")


def test_refresh_forgets_removed_packages(site):
    assert "good" in registry.names("quantizer")
    (site / "fine-1.5.dist-info" / "entry_points.txt").unlink()
    assert "good" in registry.names("quantizer")
    registry.refresh()
    assert "good" not in registry.names("quantizer")


GIVEN = [
    ({}, (8, 0.5, True, "a", (3, 5))),
    ({"width": "12", "gain": "2", "fast": "no", "label": "7", "sizes": "(1,2,3)"}, (12, 2.0, False, "7", (1, 2, 3))),
    (
        {"width": 12, "gain": 2, "fast": False, "label": "x,y", "sizes": [1, [2, 3]]},
        (12, 2.0, False, "x,y", (1, (2, 3))),
    ),
    ({"fast": "True"}, (8, 0.5, True, "a", (3, 5))),
    ({"fast": "0"}, (8, 0.5, False, "a", (3, 5))),
    ({"sizes": "()"}, (8, 0.5, True, "a", ())),
    ({"sizes": "((8,1,'relu',True),)"}, (8, 0.5, True, "a", ((8, 1, "relu", True),))),
]


@pytest.mark.parametrize("given, values", GIVEN)
def test_options_are_converted_and_come_back(site, given, values):
    options = registry.make_options("quantizer", "good", given)
    assert options.values() == values
    assert [type(v) for v in options.values()] == [type(v) for v in values]
    assert type(options).from_values(options.values()) == options
    text = str(PluginChoice("good", tuple(vars(options).items())))
    assert registry.make_options("quantizer", "good", dict(PluginChoice.parse(text).options)) == options


BAD = [
    ({"wide": "1"}, "has no option 'wide'; it has: width, gain, fast, label, sizes"),
    ({"width": "two"}, "option width is 'two'; write a whole number"),
    ({"width": "2.5"}, "option width is '2.5'; write a whole number"),
    ({"width": 2.5}, "option width is 2.5; write a whole number"),
    ({"width": True}, "option width is true; write a whole number"),
    ({"gain": "x"}, "option gain is 'x'; write a number"),
    ({"fast": "maybe"}, "option fast is 'maybe'; write true or false"),
    ({"fast": 1}, "option fast is 1; write true or false"),
    ({"label": 3}, "option label is 3; write a string"),
    ({"sizes": "3"}, "option sizes is 3; write brackets"),
    ({"sizes": "3;4"}, r"option sizes is \'3;4\'; write brackets, for example \(3,5\)"),
    ({"sizes": [None]}, r"option sizes\[0\] is None; write"),
    ({"width": "65"}, "width is 65; choose at most 64"),
    ({"width": "13"}, "does not take these options: unlucky"),
]


@pytest.mark.parametrize("given, message", BAD)
def test_options_that_do_not_fit(site, given, message):
    with pytest.raises(ConfigError, match=f"quantizer 'good'.*{message}"):
        registry.make_options("quantizer", "good", given)


@pytest.mark.parametrize(
    "values", [(), (1, 2.0, True, "a"), ("8", 0.5, True, "a", ()), (8, 0.5, 1, "a", ()), (8, 0.5, True, "a", 3)]
)
def test_values_of_a_stream_that_do_not_fit(site, values):
    with pytest.raises(ConfigError):
        registry.load("quantizer", "good").Options.from_values(values)


def test_fit_option_keeps_types_apart():
    assert fit_like(1, 2.0, "a") == 1.0 and isinstance(fit_like(1, 2.0, "a"), float)
    assert fit_like([1, [2]], (), "a") == (1, (2,))
    assert PluginOptions().values() == ()


PORTS = Ports(3, 5)


def test_record_and_build(site):
    settings = {"ups_k_size": 8}
    record = registry.record("synthesis", "syn", PORTS, {"gain": "1.5"}, settings)
    assert record == PluginRecord("syn", 2, (4, 1.5, True, "a", (3, 5)))
    plugin = registry.build("synthesis", record, PORTS)
    assert (plugin.options.width, plugin.ports) == (4, PORTS)
    assert registry.record("synthesis", "syn", PORTS, {"width": "9"}, settings).options[0] == 9
    assert registry.record("synthesis", "syn", PORTS, {}).options[0] == 8


def test_what_options_may_follow(site, monkeypatch):
    with pytest.raises(PluginError, match=r"'syn' has an option 'width' that follows a setting 'ups_k_size'; .*: taps"):
        registry.record("synthesis", "syn", PORTS, {}, {"taps": 8})
    monkeypatch.setattr(registry.load("synthesis", "syn"), "follows", {"nonsense": "ups_k_size"})
    with pytest.raises(PluginError, match="defaults for options it does not have: nonsense"):
        registry.record("synthesis", "syn", PORTS, {}, {"ups_k_size": 8})


VALUES = (4, 1.5, True, "a", (3, 5))
UNBUILDABLE = [
    (PluginRecord("gone", 4, ()), MissingPlugin, r"needs the synthesis plugin 'gone' \(version 4\).*installed: conv"),
    (PluginRecord("syn", 3, VALUES), MissingPlugin, "needs version 3 of the synthesis plugin 'syn'; installed: 2"),
    (PluginRecord("syn", 2, VALUES[1:]), ConfigError, "takes 5 options, not 4"),
    (PluginRecord("syn", 2, (1, *VALUES[1:])), PluginError, "cannot be built with options .* ZeroDivisionError"),
]


@pytest.mark.parametrize("record, error, message", UNBUILDABLE)
def test_records_that_cannot_be_built(site, record, error, message):
    with pytest.raises(error, match=message):
        registry.build("synthesis", record, PORTS)


def test_a_plugin_offered_twice_is_not_called_missing(site):
    distribution(site, "rival", "[coolvid.synthesis]\nsyn = rival_plugins:P\n")
    registry.refresh()
    with pytest.raises(UnknownPlugin, match="offered by more than one package") as caught:
        registry.build("synthesis", PluginRecord("syn", 2, VALUES), PORTS)
    assert not isinstance(caught.value, StreamError)


def test_make_builds_from_text(site):
    choice = PluginChoice.parse("good:width=3,sizes=(1,2),label=x")
    plugin = registry.make("quantizer", choice.name, dict(choice.options))
    assert plugin.options.values() == (3, 0.5, True, "x", (1, 2))
