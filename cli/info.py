"""`coolvid info`: header, frames, and where the bits go."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

import coolvid
from coolvid.errors import printable

from .console import make_console, make_table
from .options import debug_option, refuse_appended, strict_option

FRAME_TITLES = ("frame", "type", "from", "networks from", "bytes", "header")


@click.command("info")
@click.argument("stream", type=click.Path(path_type=Path))
@strict_option
@debug_option
def command(stream: Path, strict: bool) -> None:
    """Show header, frames and bits of STREAM.

    Frames are listed in coding order. "from" lists the references. "networks from" is the frame whose networks predict
    those of this frame: "prior" means the networks built into coolvid, "-" none. A "copy" has no networks; it repeats
    one reference or the mean of both. The columns after "bytes" are bits.
    """
    if strict:
        refuse_appended(stream)
    info = coolvid.read_info(stream)
    console = make_console()
    console.print(make_table((str(stream), ""), header_rows(info), left=2))
    console.print()
    console.print(frame_table(info.packets))
    console.print()
    console.print(make_table(("part", "bits", "share"), part_rows(info.packets)))


def header_rows(info: Any) -> list[tuple[str, str]]:
    """The stream header in words."""
    header, n_bytes = info.header, sum(p.n_bytes for p in info.packets)
    form = header.format
    pixels = max(1, form.height * form.width * len(info.packets))
    structure = "low delay" if header.low_delay else f"gop {header.gop}"
    rows = [
        ("size", f"{form.width}x{form.height}"),
        ("pixels", f"{form.pixel_format.value}, {form.bit_depth} bit"),
        ("frame rate", f"{header.fps} per second"),
        ("colour", header.color.words),
        *header.display.facts,
        ("structure", f"{structure}, intra period {header.intra_period or 'none'}"),
        ("frames", f"{len(info.packets)} of {header.n_frames or 'an unknown number'}"),
        ("packets", f"{n_bytes} bytes, {8 * n_bytes / pixels:.4f} bpp"),
        ("memory", memory_words(info.decoding_bytes, machine_bytes())),
    ]  # fmt: skip
    if info.n_appended:
        rows.append(("appended", f"{info.n_appended} bytes after the stream, which decoding ignores"))
    return rows + [(f"configuration {i}", _configuration(c)) for i, c in enumerate(header.configurations)]


def memory_words(needed: int, there: int | None) -> str:
    """What decoding needs, and what there is if that is less."""
    words = f"about {_size(needed)} to decode"
    return words if there is None or needed <= there else f"{words}; this machine has only {_size(there)}"


def machine_bytes() -> int | None:
    """The memory of this machine, or the limit of this process if that is less; None where neither is known."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, AttributeError, ValueError, OSError):
        return None
    return there if limit == resource.RLIM_INFINITY else min(there, limit)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"


def _configuration(frame: Any) -> str:
    """The plugins of one frame architecture, for example 'P: residue mlp+conv+separable'."""
    branches = [f"{n} {_names(c.arm, c.synthesis, c.upsampling)}" for n, c in frame.branches.items()]
    warper = [f"warper {_names(frame.warper)}"] if frame.warper else []
    return f"{frame.frame_type.name}: {', '.join(branches + warper)}"


def _names(*plugins: Any) -> str:
    return "+".join(printable(each.name) for each in plugins)


def frame_table(packets: Any) -> Any:
    """One row per frame in coding order; the columns after bytes are bits."""
    latents = sorted({part for p in packets for part in p.bits_by_part if part.endswith(".latents")}, reverse=True)
    titles = (*FRAME_TITLES, *(part.replace(".", " ") for part in latents), "networks")
    return make_table(titles, (_frame_row(p, latents) for p in packets))


def _frame_row(packet: Any, latents: list[str]) -> list[object]:
    bits = packet.bits_by_part
    apart = [bits.get(part, 0) for part in ("header", *latents)]
    references = ",".join(map(str, packet.sources)) or "-"
    networks = sum(bits.values()) - sum(apart)
    source = _networks_from(packet)
    return [packet.display_index, packet.frame_type.name, references, source, packet.n_bytes, *apart, networks]


def _networks_from(packet: Any) -> str:
    """The source of a frame's networks, in one word."""
    if packet.is_copy:
        return "copy"
    if packet.predictor is None:
        return "-"
    return "prior" if packet.predictor < 0 else str(packet.predictor)


def part_rows(packets: Any) -> list[tuple[str, int, str]]:
    """Bits of every part over all frames, largest first."""
    total: Counter[str] = Counter()
    for packet in packets:
        total.update(packet.bits_by_part)
    all_bits = max(1, total.total())
    return [(part, n, f"{n / all_bits:.1%}") for part, n in total.most_common()]
