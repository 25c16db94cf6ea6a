"""Child processes run the installed coolvid, even in a checkout, whose coolvid has no kernels."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from coolvid_cli.encode import decode_elsewhere

from coolvid import kernels, testing

ROOT = Path(__file__).parents[1]
# What each prints; the current folder is one where `import coolvid` from there fails.
MEASURE = """
from tests.bench.__main__ import measure
task = dict(task="training", frame_type="I", points={"intra": "hop"}, size=(32, 32), threads=1)
print(measure(True, **task, budget_s=0, parts=False)["kernels"])
"""


def copy(folder, to):
    """The sources alone."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The current folder: the bench, and a coolvid that cannot be imported."""
    shutil.copytree(
        ROOT / "tests" / "bench", tmp_path / "tests" / "bench", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "coolvid").mkdir()
    (tmp_path / "coolvid" / "__init__.py").write_text("raise RuntimeError('coolvid of the current folder')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments, **environment):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def output(*arguments):
    done = python(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


STARTERS = {
    "verification after encode": (lambda: decode_elsewhere(Path("none.cvd")), "none.cvd"),
    "python -m coolvid_cli": (lambda: output("-m", "coolvid_cli", "plugins"), "softround"),
    "conformance of a plugin": (lambda: str(testing.check("upsampling", "separable")), "None"),
    "bench, its help": (lambda: output("-m", "tests.bench", "--help"), "--quick"),
    "bench, its worker": (lambda: output("-c", MEASURE), kernels.description()),
    "bench of bits, its help": (lambda: output("-m", "tests.bench.rd", "--help"), "--lmbda"),
    "bench of bits, its streams": (
        lambda: output("-c", "from tests.bench.rd import coolvid; coolvid('plugins'); print('done')"),
        "done",
    ),
}


@pytest.mark.parametrize("start, expected", STARTERS.values(), ids=STARTERS)
def test_the_current_folder_does_not_shadow_the_installation(checkout, start, expected):
    found = start()
    assert expected in found and "coolvid of the current folder" not in found


def test_the_current_folder_would_shadow_it_otherwise(checkout):
    assert "coolvid of the current folder" in python("-c", "import coolvid").stderr


@pytest.mark.parametrize("module", ["tests.bench", "tests.bench.rd"])
def test_the_bench_stops_where_there_are_no_kernels(checkout, module):
    sources = checkout / "elsewhere"
    copy(ROOT / "coolvid", sources / "coolvid")
    arguments = ["city"] if module.endswith("rd") else ["--quick"]
    done = python("-m", module, *arguments, PYTHONPATH=str(sources), COOLVID_KERNELS="")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(str(sources)) and "has no compiled kernels" in line and "pip install" in line


def test_every_child_process_is_started_with_P():
    """All but the bench's worker, which is in the checkout; and those above."""
    found = [
        (path.name, words)
        for folder in ("coolvid", "cli", "plugins", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for words in re.findall(r'sys\.executable,\s*"(-[mc].*)', path.read_text())
    ]
    assert [name for name, words in found] == ["__main__.py"] and "tests.bench.worker" in found[0][1]
