"""Hostile streams, sources and settings: seeded, so that a number repeats a failure. Nothing is stored.

A plain `pytest` runs 500 damaged streams, `pytest -m slow` 20,000 in child processes with limits of time and memory.
More of them, or those of one seed:

    PYTHONPATH=tests python -P -m fuzz --first 4711 --cases 1

`PYTHONPATH=tests python -P -m fuzz.sanitize` builds the kernels with AddressSanitizer and UndefinedBehaviorSanitizer
in a temporary folder and runs the cases with them.
"""
