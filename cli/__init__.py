"""The command line, installed as `coolvid_cli`: reads options, calls the library, displays its events."""
