"""Examine the streams of many seeds in this process, within limits of memory and time."""

import argparse
import faulthandler
import resource
import time
from collections import Counter

from coolvid import kernels

from .examine import examine
from .mutate import case


def arguments():
    parser = argparse.ArgumentParser(prog="python -P -m fuzz", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--cases", type=int, default=1000, help="number of cases")
    parser.add_argument("--depth", type=int, default=20, help="inspect and compare with plain Python every N-th case")
    parser.add_argument("--seconds", type=float, default=30, help="limit for a case")
    parser.add_argument("--megabytes", type=int, default=0, help="limit of address space; 0: none")
    return parser.parse_args()


def main() -> None:
    wanted = arguments()
    if wanted.megabytes:
        resource.setrlimit(resource.RLIMIT_AS, (wanted.megabytes << 20,) * 2)
    found, slowest = Counter(), (0.0, 0)
    for seed in range(wanted.first, wanted.first + wanted.cases):
        print(f"\rseed {seed}", end="", flush=True)
        faulthandler.dump_traceback_later(wanted.seconds, exit=True)
        start = time.monotonic()
        found[examine(case(seed), in_depth=seed % wanted.depth == 0)] += 1
        slowest = max(slowest, (time.monotonic() - start, seed))
    faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = ", ".join(f"{n} {name}" for name, n in found.most_common())
    print(f"\r{wanted.cases} streams with {kernels.description()}: {counts}; "
          f"slowest {slowest[0]:.2f} s (seed {slowest[1]}), peak {peak:.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
