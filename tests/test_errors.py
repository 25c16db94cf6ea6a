"""Texts from files and streams are safe to show: in errors, on the console, and in the report."""

import io
import pickle

import pytest
from coolvid_cli.console import PrintableConsole, make_table

from coolvid.errors import MAX_MESSAGE, MAX_SHOWN, ConfigError, CoolvidError, MissingPlugin, choose, printable, within
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.toml import parse_setting, read_config
from coolvid.values import fit

SHOWN = [
    ("plain", "plain"),
    ("ünï 日本 😀 'q' \\", "ünï 日本 😀 'q' \\"),
    ("\x1b[2J\x07\x00", r"\x1b[2J\x07\x00"),
    ("a\nb\tc\r", r"a\nb\tc\r"),
    ("\x7f\x9b31m\x85", r"\x7f\x9b31m\x85"),
    ("gpj.\u202etxt\u202c\u2066x\u2069\u200f", r"gpj.\u202etxt\u202c\u2066x\u2069\u200f"),
    ("a\u200bb\u200dc\ufeff\u00ad", r"a\u200bb\u200dc\ufeff\xad"),
    ("a\u2028b\u2029c\xa0", r"a\u2028b\u2029c\xa0"),
    ("\udcff\U000e0001", r"\udcff\U000e0001"),
    (("tuple", 1), "('tuple', 1)"),
    ("x" * MAX_SHOWN, "x" * MAX_SHOWN),
    ("x" * (MAX_SHOWN + 1), "x" * (MAX_SHOWN - 1) + "…"),
    ("\x1b" * 99, (r"\x1b" * 25)[:99] + "…"),
]


@pytest.mark.parametrize("text, shown", SHOWN)
def test_printable_escapes_and_cuts(text, shown):
    assert printable(text) == shown


HOSTILE = "\x1b[2J\u202e" + "x" * 5000


@pytest.mark.parametrize(
    "error",
    [CoolvidError(HOSTILE), MissingPlugin("two\n lines \x1b"), pickle.loads(pickle.dumps(ConfigError(HOSTILE)))],
)
def test_every_error_is_one_printable_line(error):
    assert str(error).isprintable() and len(str(error)) <= MAX_MESSAGE
    assert "\\x1b" in str(error)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: choose("preset", HOSTILE, ("a", "b")),
        lambda: within("size", 10**4000, 1, 2),
        lambda: PluginChoice.parse(HOSTILE),
        lambda: fit(HOSTILE, int, "n"),
        lambda: fit(HOSTILE, PluginChoice, "n"),
        lambda: parse_setting(HOSTILE),
        lambda: parse_setting(f"{HOSTILE}=1"),
        lambda: parse_setting(f"training.{HOSTILE}.x=1"),
    ],
)
def test_values_in_messages_are_cut(refuse):
    with pytest.raises(ConfigError) as caught:
        refuse()
    message = str(caught.value)
    assert message.isprintable() and "…" in message and len(message) < 900


@pytest.mark.parametrize(
    "content", ["lmbda = " + "9" * 5000, "lmbda = 2024-13-45", "a" * 100_000, "\x00", 'x = "\\ud800"']
)
def test_any_text_as_settings_is_a_config_error(tmp_path, content):
    path = tmp_path / "a.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert len(str(caught.value)) < 1000


def shown(*things) -> str:
    out = io.StringIO()
    console = PrintableConsole(file=out, width=80, highlight=False, markup=False, emoji=False)
    for thing in things:
        console.print(thing)
    return out.getvalue()


def test_the_console_shows_strings_and_cells_as_printable():
    text = shown("a\x1b[1m:smile:[b]", make_table(("t\x1b", "n"), [("c\x1b\u202e\nd", 1)]))
    assert text.splitlines()[0] == r"a\x1b[1m:smile:[b]"
    assert r"t\x1b" in text and r"c\x1b\u202e\nd" in text
    assert text.replace("\n", "").isprintable()
