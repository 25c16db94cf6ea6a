"""`python -m coolvid_cli`, the same as `coolvid`."""

from .main import main

main()
