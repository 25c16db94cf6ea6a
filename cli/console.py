"""The listener that draws: a live block on a terminal, one plain line per finished frame anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from io import TextIOWrapper
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coolvid import events
from coolvid.errors import MAX_MESSAGE, count_frames, printable

from .live import DecodeBlock, EncodeBlock

PLAIN_WIDTH = 240


class PrintableConsole(Console):
    """A console that shows every line of a string as printable() does."""

    def render_str(self, text: str, **options: Any) -> Text:
        safe = "\n".join(printable(line, MAX_MESSAGE) for line in text.split("\n"))
        return super().render_str(safe, **options)


def make_console() -> Console:
    """Standard output, with escapes for characters that its encoding lacks; wide if it is not a terminal."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = PrintableConsole(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def make_table(titles: Iterable[str], rows: Iterable[Iterable[object]], left: int = 1) -> Table:
    """A table without borders; the first `left` columns are text, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(titles):
        table.add_column(printable(title, MAX_MESSAGE), justify="left" if i < left else "right", no_wrap=i < left)
    for row in rows:
        table.add_row(*(printable(cell, MAX_MESSAGE) for cell in row))
    return table


class FrameConsole:
    """Listens to an encode, a search for a target, or a decode. Use it as a context manager around the call."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = make_console()
        self.quiet = quiet
        self.block: EncodeBlock | DecodeBlock = DecodeBlock()
        self._trial: events.TrialStarted | None = None
        self._live = Live("starting", console=self.console, transient=True)
        self._is_live = self.console.is_terminal and not quiet

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.EncodeStarted():
                self._start(event)
            case events.FrameDone() | events.FrameRestored() | events.FrameDecoded():
                if self._trial is None or not self._trial.is_short:
                    self.say(frame_line(event))
            case events.NotStored():
                self.say(not_stored_line(event))
            case events.PartCut():
                self.say(f"{event.part}: {event.problem}; {count_frames(event.n_kept)} kept")
            case events.TrialStarted():
                self._trial = event
            case events.TrialDone():
                self.say(self._trial_line(event))
        self.block.feed(event)
        if self._is_live:
            self._live.update(self.block)

    def say(self, text: str) -> None:
        """Print one permanent line."""
        if not self.quiet:
            self.console.print(printable(text, MAX_MESSAGE), soft_wrap=not self.console.is_terminal)

    def _start(self, event: events.EncodeStarted) -> None:
        trial, since = self._trial, self.block.since
        networks = f", I frames with {event.config.intra}" if trial is None else ""
        if trial is None or trial.number == 1:
            choice = f" ({event.choice})" if event.choice else ""
            self.say(f"{count_frames(event.n_frames)}{choice}{networks}, trained by {event.kernels}")
        self.block = EncodeBlock()
        self.block.since = since
        self.block.title = f"lambda {event.config.lmbda:g}, preset {event.config.preset}"
        if trial is not None:
            kind = "short trial" if trial.is_short else "trial"
            self.block.title = f"{kind} {trial.number} for {trial.target}: {self.block.title}"

    def _trial_line(self, event: events.TrialDone) -> str:
        assert self._trial is not None
        kind = "short trial" if event.is_short else "trial"
        return f"{kind} {event.number}: lambda {event.lmbda:g} gives {event.text}, wanted {self._trial.target}"


def not_stored_line(event: events.NotStored) -> str:
    """What a file cannot hold, in one line."""
    name = "standard output" if event.out == "-" else event.out
    return f"{name} cannot hold: {'; '.join(event.facts)}"


def frame_line(event: events.FrameDone | events.FrameRestored | events.FrameDecoded) -> str:
    """A finished frame in one line."""
    head = f"frame {event.display_index:4d} {event.frame_type.name}"
    if isinstance(event, events.FrameDecoded):
        return f"{head}  decoded in {event.duration_s:.3f} s"
    quality = f"{head} {event.n_bytes:8d} bytes  {event.psnr_db:6.2f} dB"
    if isinstance(event, events.FrameRestored):
        return f"{quality}  kept from the interrupted run"
    return f"{quality}  {event.iterations} iterations in {event.duration_s:.1f} s"
