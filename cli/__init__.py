"""The command line, installed as `coolvid_cli`: reads options, calls the library, draws what the library tells."""
