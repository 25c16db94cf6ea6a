"""Figures of the page: for the whole stream and for every frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coolvid.bitstream.packet import PacketInfo
from coolvid.bitstream.stream import StreamReader
from coolvid.errors import MAX_MESSAGE, ConfigError, printable
from coolvid.picture.quality import bpp
from coolvid.picture.types import ColorInfo, FrameType, VideoFormat
from coolvid.study.inspection import PacketFacts, packet_facts

from .quality import Quality

MAX_CHOSEN = 9
MIN_CHOSEN = 3
CHOSEN_PIXELS = 9_000_000


def choose_frames(reader: StreamReader, frames: Sequence[int] | None) -> tuple[int, ...]:
    """Display indices of the frames to show, ascending: the requested ones, or evenly spaced with one of each type.

    frames: negative indices count from the end. Raises ConfigError for an index that is not in the stream, for an empty
    list, and for a stream without frames.
    """
    known = sorted(info.display_index for info in reader.packets)
    if not known:
        raise ConfigError("the stream has no frames to report on")
    if frames is None:
        return _even_choice(reader.packets, known, reader.header.format)
    if not frames:
        raise ConfigError("no frames to show; name at least one, for example 0 or 0,8,16")
    chosen = {index + known[-1] + 1 if index < 0 else index for index in frames}
    if unknown := sorted(chosen - set(known)):
        raise ConfigError(f"the stream has no frame {unknown[0]}; choose from {known[0]}..{known[-1]}")
    return tuple(sorted(chosen))


def _even_choice(packets: Sequence[PacketInfo], known: Sequence[int], format: VideoFormat) -> tuple[int, ...]:
    n = max(MIN_CHOSEN, min(MAX_CHOSEN, CHOSEN_PIXELS // (format.height * format.width)))
    if len(known) <= n:
        return tuple(known)
    firsts = {kind: min((p.display_index for p in packets if p.frame_type is kind), default=None) for kind in FrameType}
    chosen = {index for index in firsts.values() if index is not None}
    spread = [known[round(i * (len(known) - 1) / (n - 1))] for i in range(n)]
    for index in (spread[0], spread[-1], *spread):
        if len(chosen) < n:
            chosen.add(index)
    return tuple(sorted(chosen))


def summarise(path: Path, reader: StreamReader, quality: Quality) -> dict[str, Any]:
    """Name, header facts and all frames in display order, as JSON values."""
    found = packet_facts(reader)
    n_bytes = path.stat().st_size
    depths = frame_depths([each.info for each in found])
    frames = [_frame(order, each, depths, quality) for order, each in enumerate(found)]
    header = reader.header
    return {
        "name": printable(path.name, MAX_MESSAGE),
        "source": None if quality.source is None else printable(quality.source, MAX_MESSAGE),
        "width": header.format.width,
        "height": header.format.height,
        "planes": "RGB" if header.format.pixel_format.value == "rgb" else "YUV",
        "bpp": bpp(n_bytes, header.format, max(1, len(found))),
        "psnr_db": _overall_psnr(quality),
        "ssim": _mean([each["ssim"] for each in quality.by_frame.values()]),
        "facts": [*_format_facts(reader), *_size_facts(reader, found, n_bytes), *_quality_facts(quality)],
        "frames": sorted(frames, key=lambda frame: int(frame["index"])),
    }


def frame_depths(packets: Sequence[PacketInfo]) -> dict[int, int]:
    """Level of each frame (by display index) in the hierarchy: I 0, P 1, B one below its deepest reference."""
    out: dict[int, int] = {}
    for info in packets:
        if info.frame_type is FrameType.B:
            out[info.display_index] = 1 + max(1, *(out[r] for r in info.references))
        else:
            out[info.display_index] = info.frame_type.value
    return out


def _frame(order: int, found: PacketFacts, depths: Mapping[int, int], quality: Quality) -> dict[str, Any]:
    info = found.info
    measured = quality.by_frame.get(info.display_index, {})
    return {
        "index": info.display_index,
        "type": info.frame_type.name,
        "order": order,
        "depth": depths[info.display_index],
        "references": info.sources,
        "predictor": info.predictor,
        "is_copy": info.is_copy,
        "unchanged": sorted(found.unchanged),
        "bytes": info.n_bytes,
        "bits": dict(info.bits_by_part),
        "psnr_db": _number(measured.get("psnr_db")),
        "psnr_planes_db": [_number(value) for value in measured.get("psnr_planes_db", ())],
        "ssim": measured.get("ssim"),
    }


def _number(value: float | None) -> float | str | None:
    """The value, with "equal" for infinity, which JSON lacks."""
    return "equal" if value is not None and math.isinf(value) else value


def _format_facts(reader: StreamReader) -> list[tuple[str, str]]:
    header = reader.header
    form = header.format
    structure = "low delay" if header.low_delay else f"GOP {header.gop}" if header.gop > 1 else "intra only"
    period = f", intra period {header.intra_period}" if header.intra_period else ""
    return [
        ("Size", f"{form.width} × {form.height}"),
        ("Pixels", f"{form.pixel_format.value}, {form.bit_depth} bit"),
        ("Frame rate", f"{float(header.fps):.5g} / s" + (f" ({header.fps})" if header.fps.denominator > 1 else "")),
        ("Colour", "unspecified" if header.color == ColorInfo() else header.color.words),
        *((name.capitalize(), value) for name, value in header.display.facts),
        ("Structure", structure + period),
    ]


def _size_facts(reader: StreamReader, found: Sequence[PacketFacts], n_bytes: int) -> list[tuple[str, str]]:
    header, n = reader.header, max(1, len(found))
    kinds = [each.info.frame_type for each in found]
    counts = ", ".join(f"{kinds.count(kind)} {kind.name}" for kind in FrameType if kind in kinds)
    return [
        ("Frames", f"{len(found)} ({counts})"),
        ("File", f"{n_bytes:,} bytes".replace(",", " ")),
        ("Rate", f"{bpp(n_bytes, header.format, n):.4f} bpp"),
        ("Bit rate", f"{float(8 * n_bytes * header.fps / n) / 1000:.1f} kbit/s"),
    ]


def _quality_facts(quality: Quality) -> list[tuple[str, str]]:
    overall = _overall_psnr(quality)
    if overall is None:
        return []
    ssim = _mean([each["ssim"] for each in quality.by_frame.values()])
    in_db = "equal to the source" if isinstance(overall, str) else f"{overall:.2f} dB"
    return [("PSNR", in_db), ("SSIM", f"{ssim:.4f}"), ("Source", printable(quality.source or "", MAX_MESSAGE))]


def _overall_psnr(quality: Quality) -> float | str | None:
    """From the mean squared error over all frames, as in encode()."""
    mean = _mean([each["mse"] for each in quality.by_frame.values()])
    return None if mean is None else _number(math.inf if mean == 0 else -10 * math.log10(mean))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
