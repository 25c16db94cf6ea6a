"""The first two commands of the README do their own setup, .ci/run runs exactly its test command, and links lead
somewhere. That all examples run is shown by test_docs.py."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL_LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
TEST_COMMAND = next(line for line in SHELL_LINES if line.endswith("&& pytest"))

# A python that makes an environment whose programs only write down how they were called.
FAKE_PYTHON = """#!/bin/sh
echo "python $*" >> "$LOG"
mkdir -p "$3/bin"
for program in pip pytest; do
    printf '#!/bin/sh\\necho "%s $*" >> "$LOG"; exit $STATUS\\n' $program > "$3/bin/$program"
    chmod +x "$3/bin/$program"
done
"""


def run_ci(folder, status):
    """.ci/run with the fake python; returns the finished process and the log."""
    python, log = folder / "python", folder / "log"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "LOG": str(log), "TMPDIR": str(folder), "STATUS": str(status)}
    result = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True, cwd=folder)
    return result, log.read_text().splitlines()


def test_ci_runs_the_readmes_test_command_in_a_fresh_environment(tmp_path):
    result, (made, *ran) = run_ci(tmp_path, status=0)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"+ {TEST_COMMAND}"
    assert re.fullmatch(rf"python -m venv {re.escape(str(tmp_path))}/\S+", made)
    install, test = TEST_COMMAND.replace("'", "").split(" && ")
    assert [line.strip() for line in ran] == [install, test]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "python"]


def test_ci_fails_when_a_command_fails(tmp_path):
    result, log = run_ci(tmp_path, status=3)
    assert (result.returncode, len(log)) == (3, 2)


def test_the_first_two_commands_do_their_own_setup():
    assert [line.startswith("pip install ") for line in SHELL_LINES[:2]] == [True, True]
    source = re.search(r"sequences/tiny/\S+", SHELL_LINES[0])
    assert source
    assert (ROOT / source[0]).is_file()


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), f"{page}: {target}"
