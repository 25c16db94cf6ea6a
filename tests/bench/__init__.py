"""Benchmarks: `python -m tests.bench` from the root of the repository.

They measure the installed coolvid. `-m` puts the root of the repository first on the path, where the sources have no
kernels unless they were built in place; importing this package takes it off again, in child processes too.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT.resolve()]


def stop(reason):
    """One line and exit code 2."""
    print(reason, file=sys.stderr)
    raise SystemExit(2)


try:
    from coolvid import kernels
except ModuleNotFoundError as error:
    stop(f"{error}; install coolvid first: pip install '.[test]'")


def require_kernels():
    """Stop where PyTorch would be measured unasked."""
    if kernels.compiled is None and not os.environ.get("COOLVID_KERNELS"):
        stop(
            f"{Path(kernels.__file__).parent} has no compiled kernels; install with a C++ compiler (pip install . or "
            "pip install -e .), or set COOLVID_KERNELS=none to measure PyTorch alone"
        )
