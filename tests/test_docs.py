"""Every command and every Python example of README.md and docs, run as it stands there but with little training.

A page's blocks run in order in an empty folder with `sequences` in it. sh: command lines. python: statements that share
their names. toml: the entry points of a package to install. Where the first line is `# file: NAME`, the block is that
file. Other blocks, as `text`, are not run.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from coolvid_cli.main import COMMANDS, main

import coolvid
from coolvid.errors import MissingExtra
from coolvid.plugin import registry

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BUDGET = {
    "encode": ["--preset", "fast", "--iterations", "8", "--threads", "1", "--no-verify"],
    "compare": ["--preset", "fast", "--iterations", "8", "--threads", "1"],
}
SHIM = """#!/bin/sh
case $1 in
    encode) set -- "$@" {encode} ;;
esac
exec {python} -P -m coolvid_cli "$@"
"""
RUN = {"sh", "python", "toml"}
ALL_EXTRAS = all(importlib.util.find_spec(name) for name in ("PIL", "matplotlib"))


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of a page's blocks."""
    return BLOCK.findall((ROOT / page).read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the sequences, to run a page in; what the page installs is forgotten afterwards."""
    (tmp_path / "sequences").symlink_to(ROOT / "sequences")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "coolvid"
    shim.write_text(SHIM.format(encode=" ".join(BUDGET["encode"]), python=shlex.quote(sys.executable)))
    shim.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
    monkeypatch.undo()
    registry.refresh()


class Page:
    """Runs blocks; `missing` collects what needs an extra that is not installed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.missing = folder, {"__name__": "docs"}, []

    def run(self, language: str, content: str) -> None:
        if named := re.match(r"# file: (\S+)\n", content):
            (self.folder / named[1]).write_text(content)
        elif language == "python":
            self._python(content)
        elif language == "toml":
            self._install(content)
        elif language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                self._line(line)

    def _python(self, content: str) -> None:
        try:
            exec(compile(content, "<docs>", "exec"), self.names)
        except MissingExtra as error:
            self._lacks(content, str(error))

    def _install(self, content: str) -> None:
        groups = tomllib.loads(content)["project"]["entry-points"]
        info = self.folder / "docs_example-0.1.dist-info"
        info.mkdir()
        lines = [line for group, points in groups.items() for line in (f"[{group}]", *map(" = ".join, points.items()))]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: docs-example\nVersion: 0.1\n")
        registry.refresh()

    def _line(self, line: str) -> None:
        if "|" in shlex.split(line, comments=True):
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, capture_output=True)
            return
        for command in line.split(" && "):
            words = shlex.split(command, comments=True)
            if words and words[0] == "coolvid":
                self._coolvid(words[1:])
            elif words and words[0] not in ("pip", "pytest"):
                subprocess.run(words, check=True)

    def _coolvid(self, words: list[str]) -> None:
        result = CliRunner().invoke(main, [*words, *BUDGET.get(words[0], [])], catch_exceptions=False)
        if "pip install 'coolvid[" in result.output and not ALL_EXTRAS:
            self._lacks(shlex.join(words), result.output)
            return
        missed_target = re.search(r"no trial met|cannot reach", result.output)  # with so little training
        assert result.exit_code == (2 if missed_target else 0), f"coolvid {shlex.join(words)}\n{result.output}"
        if "cannot reach" in result.output:  # and nothing was kept
            out = words[words.index("-o") + 1] if "-o" in words else f"{Path(words[1]).stem}.cvd"
            assert not Path(out).exists()
            return
        for option, value in pairwise(words):
            assert option not in ("-o", "--log", "--csv", "--write-config") or Path(value).exists(), value

    def _lacks(self, what: str, why: str) -> None:
        assert not ALL_EXTRAS, why
        self.missing.append(what)


@pytest.mark.parametrize("page", [page for page in PAGES if RUN & {name for name, _ in blocks(page)}])
def test_examples_run_as_written(page, folder):
    walk = Page(folder)
    for language, content in blocks(page):
        walk.run(language, content)
    if walk.missing:
        pytest.skip(f"all but what needs an extra: {walk.missing}")


def test_the_python_page_names_everything_public():
    text = (ROOT / "docs" / "API.md").read_text()
    assert not [name for name in coolvid.__all__ if not re.search(rf"`(coolvid\.)?{name}\b", text)]


def test_the_command_page_has_a_section_for_every_command():
    text = (ROOT / "docs" / "CLI.md").read_text()
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == [name for name in SECTIONS if name in COMMANDS]
    assert set(SECTIONS) == set(COMMANDS)


SECTIONS = ("encode", "decode", "info", "review", "report", "compare", "presets", "plugins")


@pytest.mark.parametrize("page", ["README.md", "docs/CLI.md"])
def test_options_in_the_text_exist(page):
    text = BLOCK.sub("", (ROOT / page).read_text())
    known = {option for name in COMMANDS for p in main.get_command(None, name).params for option in p.opts}
    known |= {option for name in COMMANDS for p in main.get_command(None, name).params for option in p.secondary_opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert named
    assert named <= known | {"--help"}
