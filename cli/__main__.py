"""`python -m coolvid_cli`, the same as `coolvid`: without the current folder on the path, where -m puts it first."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]

from .main import main

main()
