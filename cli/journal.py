"""Listeners that write a run as JSON lines and its frames as CSV. Every line reaches the disk at once."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import coolvid
from coolvid import events
from coolvid.errors import OutputError
from coolvid.files import failure, is_in_place, open_lines
from coolvid.settings.presets import effective_preset
from coolvid.settings.toml import settings_of

COLUMNS = (
    "display_index", "coding_index", "type", "references", "bytes", "bits_header", "bits_residue_latents",
    "bits_motion_latents", "bits_networks", "rate_bpp", "psnr_db", "loss", "iterations", "duration_s",
)  # fmt: skip
Frame = events.FrameDone | events.FrameRestored


@contextmanager
def journals(log: Path | None, table: Path | None, resume: bool) -> Iterator[list[events.Listener]]:
    """The listeners for --log and --csv, where given; with resume they continue the files of the earlier run."""
    with ExitStack() as stack:
        out: list[events.Listener] = []
        if log is not None:
            out.append(stack.enter_context(RunLog(log, resume)))
        if table is not None:
            out.append(stack.enter_context(FrameTable(table, resume)))
        yield out


class RunLog:
    """One JSON object per line: start (with the whole configuration), frames, trials of a search, and a summary."""

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path, self.resume = path, resume
        self._file: TextIO | None = None
        self._trial: int | None = None
        self._lmbda = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with suppress(OutputError):  # a full disk is told by the error that ended the run
                if kind is not None:
                    message = "; ".join((*filter(None, (str(error),)), *getattr(error, "__notes__", ())))
                    self._write("interrupted" if kind is KeyboardInterrupt else "error", {"message": message})
            with suppress(OSError):
                self._file.close()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.TrialStarted():
                self._trial = event.number
            case events.EncodeStarted():
                self._lmbda = event.config.lmbda
                self._write("start", start_record(event))
            case events.FrameDone():
                self._write("frame", frame_record(event))
            case events.FrameRestored():
                self._write("frame_restored", frame_record(event))
            case events.TrialDone():
                self._write("trial", {n: v for n, v in asdict(event).items() if n != "number"})
                self._trial = None
            case events.TargetDone():
                found = {"trial": event.number, "lmbda": event.lmbda, "target_is_met": event.is_met}
                self._write("summary", asdict(event.encode) | found)
            case events.EncodeDone() if self._trial is None:
                self._write("summary", asdict(event) | {"lmbda": self._lmbda})

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = open_lines(self.path, append=self.resume)
        trial = {} if self._trial is None else {"trial": self._trial}
        with explaining(self.path):
            self._file.write(json.dumps({"event": kind, **trial, **_finite(record)}) + "\n")
            self._file.flush()


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise failure(path, error) from error


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with None for the PSNR of a perfect picture, because JSON has no infinity."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in record.items()}


def start_record(event: events.EncodeStarted) -> dict[str, Any]:
    """The start of an encode: source, output, format, kernels and the effective configuration."""
    form = event.format
    size = {"width": form.width, "height": form.height} if form else {}
    pixels = {"pixel_format": form.pixel_format.value, "bit_depth": form.bit_depth} if form else {}
    return {
        "version": version("coolvid"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": event.source,
        "choice": event.choice,
        "out": event.out,
        **size,
        **pixels,
        "fps": str(event.fps),
        "n_frames": event.n_frames,
        "n_restored": event.n_restored,
        "kernels": event.kernels,
        "config": settings_of(event.config),
        "effective_preset": asdict(effective_preset(event.config)),
    }


def frame_record(event: Frame) -> dict[str, Any]:
    """A frame as a JSON record."""
    fields = {name: value for name, value in vars(event).items() if name not in ("frame_type", "bits_by_part")}
    return {**fields, "frame_type": event.frame_type.name, "bits": dict(event.bits_by_part)}


class FrameTable:
    """One CSV row per frame, in coding order; for a search, the frames of the trial whose file was kept."""

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        self._kept = _rows_of(path) if resume else {}
        self._file: TextIO | None = None
        self._pixels = 1
        self._trial: events.TrialStarted | None = None
        self._rows: dict[int, list[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.TrialStarted():
                self._trial = event
            case events.EncodeStarted() if not self._is_short:
                self._pixels = event.format.height * event.format.width if event.format else 1
                self._restart([])
            case events.FrameDone() if not self._is_short:
                self._add(self._row(event.coding_index, event))
            case events.FrameRestored() if not self._is_short:
                row = self._row(event.coding_index, event)
                earlier = self._kept.get(str(event.coding_index), {})
                self._add(earlier if earlier.get("bytes") == str(event.n_bytes) else row)
            case events.TargetDone():
                self._finish_search(event)

    @property
    def _is_short(self) -> bool:
        return self._trial is not None and self._trial.is_short

    def _row(self, coding_index: int, frame: Any) -> dict[str, Any]:
        """frame: an event, or a PacketInfo, which has fewer fields."""
        bits = frame.bits_by_part
        latents = [bits.get(f"{branch}.latents", 0) for branch in ("residue", "motion")]
        networks = 8 * frame.n_bytes - bits["header"] - sum(latents)
        references = " ".join(map(str, frame.references))
        known = (frame.display_index, coding_index, frame.frame_type.name, references, frame.n_bytes, bits["header"])
        rate = f"{8 * frame.n_bytes / self._pixels:.6g}"
        rest = (getattr(frame, name, "") for name in ("psnr_db", "loss", "iterations", "duration_s"))
        texts = (f"{value:.6g}" if isinstance(value, float) else value for value in rest)
        return dict(zip(COLUMNS, (*known, *latents, networks, rate, *texts), strict=True))

    def _restart(self, rows: list[dict[str, Any]]) -> None:
        """Rewrite the file with these rows only; a FIFO or a device receives them after what it has."""
        if self._file is None:
            self._file = open_lines(self.path)
        elif not is_in_place(self.path):
            self._file.seek(0)
            self._file.truncate()
        self._rows[self._number] = []
        self._write(dict(zip(COLUMNS, COLUMNS, strict=True)))
        for row in rows:
            self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        self._write(row)
        self._rows[self._number].append(row)

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None
        with explaining(self.path):
            csv.DictWriter(self._file, COLUMNS, lineterminator="\n").writerow(row)
            self._file.flush()

    @property
    def _number(self) -> int:
        return self._trial.number if self._trial is not None else 0

    def _finish_search(self, event: events.TargetDone) -> None:
        """Write the rows of the trial that made the file; rows that are no longer known come from the stream."""
        if event.number == self._number and event.number in self._rows:
            return
        rows = self._rows.get(event.number)
        if rows is None:
            info = coolvid.read_info(event.out)
            self._pixels = info.header.format.height * info.header.format.width
            rows = [self._row(i, packet) for i, packet in enumerate(info.packets)]
        self._restart(rows)


def _rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """Whole rows of an earlier run by coding index; none if there is no file, or it has other columns."""
    if not path.is_file() or is_in_place(path):
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    wanted = tuple(reader.fieldnames or ()) == COLUMNS
    return {row["coding_index"]: row for row in reader if None not in row.values()} if wanted else {}
