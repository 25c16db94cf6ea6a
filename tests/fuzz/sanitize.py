"""Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer in a temporary folder, and run with them.

    PYTHONPATH=tests python -P -m fuzz.sanitize                       the 20,000 streams, portable and widest set
    PYTHONPATH=tests python -P -m fuzz.sanitize --folder F --only v3 -- -m pytest tests/test_kernels_decode.py

What follows -- goes to Python. Needs GCC, pybind11 and setuptools; the build takes about ten minutes. A folder that is
named is kept, with the build.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETS = ("portable", "v3")
SANITIZE = "-fsanitize=address,undefined"
FLAGS = f"{SANITIZE} -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
FUZZ = ("-m", "fuzz", "--cases", "20000", "--seconds", "120")


def build(folder: Path) -> None:
    """coolvid with sanitized kernels under `folder`; what is built already stays."""
    sources = shutil.ignore_patterns("*.so", "__pycache__", "src")
    shutil.copytree(ROOT / "coolvid", folder / "coolvid", ignore=sources, dirs_exist_ok=True)
    options = {"COOLVID_SETS": ",".join(SETS), "CXXFLAGS": FLAGS, "LDFLAGS": SANITIZE}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder)]
    subprocess.run([*command, "--build-temp", str(folder / "temp")], check=True, cwd=ROOT, env=os.environ | options)


def library(name: str) -> str:
    """The path of a library of GCC."""
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(folder: Path, kernels: str, arguments: list[str]) -> int:
    """Python with these kernels; returns its exit status."""
    environment = os.environ | {
        "LD_PRELOAD": " ".join(map(library, ("libasan.so", "libstdc++.so"))),  # the latter for what kernels throw
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "COOLVID_KERNELS": kernels,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'tests'}",
    }
    return subprocess.run([sys.executable, "-P", *arguments], cwd=ROOT, env=environment).returncode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -P -m fuzz.sanitize", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to build; default: a temporary folder")
    parser.add_argument("--only", choices=SETS, help="one set of kernels")
    parser.add_argument("arguments", nargs="*", default=FUZZ, help="of Python; default: the 20,000 streams")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (wanted.folder or Path(temporary)).resolve()
        build(folder)
        for kernels in (wanted.only,) if wanted.only else SETS:
            if status := run(folder, kernels, list(wanted.arguments)):
                raise SystemExit(f"failed with the kernels '{kernels}': exit status {status}")


if __name__ == "__main__":
    main()
