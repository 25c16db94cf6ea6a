"""Damaged and forged streams give a picture or a CoolvidError, with kernels and without, in bounded time and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.examine import examine
from fuzz.mutate import GOLDEN, PACKETS, STREAMS, Parts, case, corpus

ROOT = Path(__file__).parents[2]
BATCH, N_BATCHES = 50, 10
SLOW_BATCH, N_SLOW_BATCHES = 1000, 20
MEGABYTES = 2048  # address space, of which an interpreter with numpy takes most
PEAK_MB = 256  # resident
SLOWEST_S = 30  # a case, on a busy core


def test_the_corpus_is_the_golden_streams_and_they_survive_being_taken_apart():
    assert len(corpus()) == len(list(GOLDEN.iterdir()))
    for stream in corpus():
        assert Parts.of(stream).joined() == stream
        assert examine(stream) == "pictures"


def test_a_seed_is_a_stream_and_every_way_to_damage_one_is_taken():
    assert case(7) == case(7)
    assert len({case(seed) for seed in range(50)}) > 40
    assert len(set(PACKETS + STREAMS)) == 18


@pytest.mark.parametrize("batch", range(N_BATCHES))
def test_streams_give_pictures_or_a_line(batch):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        try:
            examine(case(seed), in_depth=seed % 50 == 0)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


def run_apart(*options, timeout):
    """`python -m fuzz` in a child process, and its last line."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-P", "-m", "fuzz", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    last = result.stdout.rpartition("\r")[2]
    assert result.returncode == 0, f"{last}\n{result.stderr}"
    return last


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(N_SLOW_BATCHES))
def test_20000_streams_within_limits_of_time_and_memory(batch):
    limits = ("--seconds", SLOWEST_S, "--megabytes", MEGABYTES)
    last = run_apart("--first", batch * SLOW_BATCH, "--cases", SLOW_BATCH, *limits, timeout=290)
    assert float(last.partition("peak ")[2].split()[0]) < PEAK_MB, last
