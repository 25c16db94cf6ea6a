"""The first two commands of the README do their own setup, .ci/run runs exactly its test command, and links lead
somewhere. That all examples run is shown by test_docs.py."""

import re
import shutil
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
FAKE_PYTHON = """#!/usr/bin/env bash
echo "python $*" >> "$LOG"
mkdir -p "$3/bin"
for program in python pip pytest ruff mypy; do
    printf '#!/usr/bin/env bash\\necho "%s $*" >> "$LOG"; test "$FAILS" != %s\\n' $program $program > "$3/bin/$program"
    chmod +x "$3/bin/$program"
done
"""
FAKE_APT = """#!/bin/sh
echo "apt-get $*" >> "$LOG"
exit 1
"""
NEEDED = ("bash", "sh", "env", "cat", "chmod", "dirname", "grep", "id", "mkdir", "mktemp", "rm", "uname")


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def run_ci(folder, fails="", clang=False):
    """.ci/run with the fake python and without clang, or with one; returns the finished process and the log."""
    programs, log = folder / "programs", folder / "log"
    programs.mkdir()
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name))
    script(programs / "apt-get", FAKE_APT)
    if clang:
        script(programs / "clang++", "#!/bin/sh\n")
    python = script(folder / "python", FAKE_PYTHON)
    environment = {"PATH": programs, "PYTHON": python, "LOG": log, "TMPDIR": folder, "FAILS": fails}
    environment = {name: str(value) for name, value in environment.items()}
    result = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True, cwd=folder)
    return result, [line.strip() for line in log.read_text().splitlines()]


def of_tests(log):
    """What ran besides the build with clang, which runs beside the rest."""
    return [line for line in log if not line.startswith(("apt-get", "python setup.py")) and "build.txt" not in line]


INSTALL, TEST = TEST_COMMAND.replace("'", "").split(" && ")


def test_ci_runs_the_readmes_test_command_in_a_fresh_environment(tmp_path):
    result, (made, install, _, tools, *ran) = run_ci(tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(rf"python -m venv {re.escape(str(tmp_path))}/\S+", made)
    assert install == INSTALL and tools.startswith("pip install -r ")
    assert of_tests(ran) == ["ruff check .", "ruff format --check .", "mypy", TEST]
    assert result.stdout.splitlines()[-1] == "clang++ not found: SKIPPED the kernels as clang builds them"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "programs", "python"]


@pytest.mark.parametrize("program, n_ran", [("pip", 2), ("ruff", 5), ("mypy", 7), ("pytest", 8)])
def test_ci_fails_when_a_command_fails(tmp_path, program, n_ran):
    result, log = run_ci(tmp_path, fails=program)
    assert result.returncode == 1 and len(of_tests(log)) == n_ran and of_tests(log)[-1].startswith(program)


def test_ci_fails_when_clang_leaves_out_the_kernels(tmp_path):
    result, log = run_ci(tmp_path, clang=True)
    assert result.returncode and sum(line.startswith("python setup.py -q build ") for line in log) == 1
    assert result.stdout.splitlines()[-1].startswith("+ grep -l 'clang version'")


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
