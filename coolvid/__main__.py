"""`python -m coolvid` is the command line."""

from importlib import import_module

if __name__ == "__main__":
    import_module("coolvid_cli.main").main(prog_name="coolvid")
