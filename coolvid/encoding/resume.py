"""State of an interrupted encode: <out>.part with its finished frames, and <out>.part.toml with its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coolvid.bitstream.headers import StreamHeader
from coolvid.bitstream.packet import Packet
from coolvid.bitstream.stream import StreamReader
from coolvid.codec.gop import CodingStep
from coolvid.errors import InputError
from coolvid.files import PART, check_writable, is_in_place, part_of, write_text
from coolvid.settings.config import EncodeConfig
from coolvid.settings.toml import settings_of_bytes, to_toml
from coolvid.values import parse_toml

NOTE = f"{PART}.toml"
Settings = dict[str, Any]


def run_settings(config: EncodeConfig, origin: Mapping[str, Any]) -> Settings:
    """Everything except the frames that decides the bytes of an encode. origin: what was read, and how."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in origin.items()}
    source = {name: value for name, value in plain.items() if value is not None}
    return {**settings_of_bytes(config), "source": source}


@contextmanager
def noting(out: str | Path, settings: Settings) -> Iterator[None]:
    """Keep the settings next to the part file while it grows or after an interruption. Raises OutputError."""
    check_writable(out)
    if is_in_place(out):  # no part, so nothing to resume
        yield
        return
    note = Path(f"{out}{NOTE}")
    write_text(note, to_toml(settings))
    try:
        yield
    finally:
        if not part_of(out).exists():
            note.unlink(missing_ok=True)


def kept_packets(
    out: str | Path, header: StreamHeader, settings: Settings, steps: Sequence[CodingStep]
) -> list[Packet]:
    """Finished frames of an interrupted encode of the same frames with the same settings. Raises InputError."""
    part = part_of(out)
    if is_in_place(out) or not part.exists():
        raise InputError(f"nothing to resume: there is no {part}")
    if problem := _difference(_read_note(Path(f"{out}{NOTE}")), settings):
        raise InputError(f"{part} {problem}; resume with the earlier settings, or start again without resume")
    with StreamReader(part) as reader:
        if reader.header != header:
            raise InputError(f"{part} was made from another video; resume with that one, or start again without resume")
        kept = [Packet(reader.read(i), info) for i, info in enumerate(reader.packets[: len(steps)])]
    for step, packet in zip(steps, kept, strict=False):
        if packet.info.display_index != step.display_index or not {*packet.info.references} <= {*step.references}:
            raise InputError(f"{part} holds other frames than these settings plan; start again without resume")
    return kept


def _read_note(note: Path) -> Settings | None:
    try:
        return parse_toml(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _difference(kept: Settings | None, settings: Settings) -> str:
    """Why the encode cannot resume; empty if it can."""
    if kept is None:
        return f"has no readable {NOTE} with its settings"
    before, now = _flat(kept), _flat(settings)
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = (f"{name} {before.get(name, 'unset')} (now {now.get(name, 'unset')})" for name in different[:3])
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    return f"was made with {', '.join(told)}{more}" if different else ""


def _flat(settings: Mapping[str, Any], path: str = "") -> Settings:
    """Settings by dotted name."""
    out: Settings = {}
    for name, value in settings.items():
        out |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return out
