"""What this machine needs for a training iteration and for decoding, with compiled kernels and without.

Every measurement runs in a process of its own; the two ways of computing take turns. Times are medians in
milliseconds (in brackets the least). reach: the ratio or the number that the project wants on two cores.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coolvid import kernels

from . import ROOT, require_kernels

SMALL, MIDDLE, LARGE = (352, 288), (832, 480), (1920, 1080)
TRAINING = {  # name: frame type, operating points
    "I hop": ("I", {"intra": "hop"}),
    "P mop/mop": ("P", {"residue": "mop", "motion": "mop"}),
    "B mop/mop": ("B", {"residue": "mop", "motion": "mop"}),
    "B lop/lop": ("B", {"residue": "lop", "motion": "lop"}),
}
QUICK = ("I hop", "B mop/mop")
PARTS = ("arm", "upsampling", "synthesis", "warp")
REACH = {
    ("I hop", SMALL): ">= 15x, <= 12 ms",
    ("B mop/mop", SMALL): ">= 20x, <= 28 ms",
}
MEMORY_REACH = {("B mop/mop", SMALL): "<= 300 MB"}
FPS_REACH = {SMALL: 100, MIDDLE: 45}
DECODED_FRAMES = 9
BUDGET_S, QUICK_BUDGET_S = 4.0, 2.0  # for one series of repeated calls
MIN_WIDTH = 110  # of the table, also where the output is a file


@dataclass(frozen=True)
class Row:
    """One line: a value with kernels, without (None: not measured), and what to reach."""

    what: str
    with_kernels: float | None
    without: float | None
    reach: str = ""
    least: float | None = None

    @property
    def ratio(self):
        """How many times faster the kernels are, for times; how many times more, for frames per second."""
        if not self.with_kernels or self.without is None:
            return None
        ratio = self.without / self.with_kernels
        return 1 / ratio if "fps" in self.what else ratio


def measure(has_kernels, **task):
    """The worker's answer, or an error with its last words."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    if not has_kernels:
        environment["COOLVID_KERNELS"] = "none"
    command = [sys.executable, "-m", "tests.bench.worker", json.dumps(task)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def both(**task):
    """The answers with and without kernels; the first is None where none are built."""
    return measure(True, **task) if kernels.compiled is not None else None, measure(False, **task)


def value(answer, *keys):
    for key in keys:
        answer = None if answer is None else answer.get(key)
    return answer


# -- the chapters ---------------------------------------------------------------------------------------------


def training_rows(name, size, threads, budget_s):
    frame_type, points = TRAINING[name]
    fast, plain = both(
        task="training", frame_type=frame_type, points=points, size=size, threads=threads, budget_s=budget_s
    )
    title = f"{name} {size[0]}x{size[1]}"

    def row(part, *keys, reach=""):
        return Row(f"{title} {part}", value(fast, *keys, "median"), value(plain, *keys, "median"), reach,
                   value(fast, *keys, "least"))  # fmt: skip

    yield row("iteration", "iteration", reach=REACH.get((name, size), ""))
    for part in PARTS:
        if part in plain:
            yield row(part, part)
    rest = [
        None if a is None else a["iteration"]["median"] - sum(a[p]["median"] for p in PARTS if p in a)
        for a in (fast, plain)
    ]
    yield Row(f"{title} rest", *rest)
    yield row("of which optimizers", "optimizers", reach="<= 5 % of the iteration")
    reach = MEMORY_REACH.get((name, size), "")
    yield Row(f"{title} memory above start, MB", value(fast, "above_mb"), value(plain, "above_mb"), reach)


def scaling_rows(threads, budget_s):
    """Time per pixel of a large picture, against that of a small one, kernels only."""
    if kernels.compiled is None:
        return
    task = {"task": "training", "frame_type": "I", "points": {"intra": "hop"}, "threads": threads, "parts": False}
    times = [measure(True, size=size, budget_s=budget_s, **task)["iteration"]["median"] for size in (SMALL, LARGE)]
    yield Row(f"I hop {LARGE[0]}x{LARGE[1]} iteration", times[1], None)
    pixels = LARGE[0] * LARGE[1] / (SMALL[0] * SMALL[1])
    yield Row("time per pixel, against 352x288", times[1] / times[0] / pixels, None, "<= 1.3")


def encode_rows(threads, folder):
    """An I frame with the default preset, from the frame to the stream."""
    if kernels.compiled is None:
        return
    answer = measure(
        True, task="encode", size=SMALL, threads=threads, iterations=0, out=str(folder / "intra.cvd"), n_frames=1
    )
    yield Row("encode of one I frame 352x288, s", answer["seconds"], None)
    yield Row("outside kernels, % of that encode", 100 * answer["outside"], None, "<= 15")
    yield Row("of which imports, PyTorch's above all, %", 100 * answer["imports_s"] / answer["seconds"], None)


def decode_rows(size, threads, iterations, folder, budget_s):
    """A stream with a group of 8, trained too shortly to look good."""
    path = str(folder / f"{size[0]}.cvd")
    coded = measure(
        True, task="encode", size=size, threads=threads, iterations=iterations, out=path, n_frames=DECODED_FRAMES
    )
    fast, plain = both(task="decode", path=path, threads=threads, budget_s=budget_s)
    kilobytes = coded["bytes"] / 1000
    title = f"decode {size[0]}x{size[1]}"
    yield Row(f"{title} fps ({kilobytes:.0f} kB, {DECODED_FRAMES} frames)", value(fast, "fps"), plain["fps"],
              f">= {FPS_REACH[size]}")  # fmt: skip
    parts = {name: None for answer in (fast, plain) if answer for name in answer["parts"]}
    for name in parts:
        yield Row(f"{title} {name}, ms a frame, 1 thread", value(fast, "parts", name), value(plain, "parts", name))


# -- the table ------------------------------------------------------------------------------------------------


def rows(options, folder):
    if options.quick:
        for name in QUICK:
            yield from training_rows(name, SMALL, options.threads, QUICK_BUDGET_S)
        return
    if options.only in (None, "training"):
        for size in (SMALL, MIDDLE):
            for name in TRAINING:
                yield from training_rows(name, size, options.threads, BUDGET_S)
        yield from scaling_rows(options.threads, BUDGET_S)
    if options.only in (None, "encode"):
        yield from encode_rows(options.threads, folder)
    if options.only in (None, "decode"):
        for size in (SMALL, MIDDLE):
            yield from decode_rows(size, options.threads, options.iterations, folder, BUDGET_S)


def shown(number):
    return "" if number is None else f"{number:.3g}" if abs(number) < 10 else f"{number:.1f}"


def table_of(found, title):
    table = Table("what", title=title, title_justify="left")
    for heading in ("kernels", "(least)", "PyTorch", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("reach")
    for row in found:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}x"
        table.add_row(row.what, shown(row.with_kernels), shown(row.least), shown(row.without), ratio, row.reach)
    return table


def write_tsv(path, found):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("what", "kernels_ms", "pytorch_ms", "ratio", "reach"))
        for row in found:
            numbers = (row.with_kernels, row.without, row.ratio)
            writer.writerow((row.what, *("" if n is None else f"{n:.4g}" for n in numbers), row.reach))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the I and B rows at 352x288, within 40 s")
    parser.add_argument("--only", choices=("training", "encode", "decode"), help="one chapter of the full run")
    parser.add_argument("--threads", type=int, default=2, help="threads of both ways of computing (default: 2)")
    parser.add_argument("--iterations", type=int, default=60, help="of an I frame of the decoded streams (default: 60)")
    parser.add_argument("--tsv", metavar="FILE", help="also write the rows as tab-separated values")
    options = parser.parse_args()
    require_kernels()
    console, found = Console(log_time=False, log_path=False), []
    console.width = max(console.width, MIN_WIDTH)
    with tempfile.TemporaryDirectory() as folder, console.status("measuring"):
        for row in rows(options, Path(folder)):
            console.log(row.what, shown(row.with_kernels), shown(row.without), row.reach)
            found.append(row)
    title = f"{kernels.description()}, {options.threads} threads; ms unless named otherwise"
    console.print(table_of(found, f"{title}\n{Path(kernels.__file__).parent}"))
    if options.tsv:
        write_tsv(options.tsv, found)


if __name__ == "__main__":
    main()
