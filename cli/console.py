"""The listener that draws: a live line on a terminal, one plain line per finished frame anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from coolvid import events

PLAIN_WIDTH = 240


def make_console() -> Console:
    """Standard output; wide enough not to fold lines when it is not a terminal."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PLAIN_WIDTH)


def make_table(titles: Iterable[str], rows: Iterable[Iterable[object]], left: int = 1) -> Table:
    """A table without frame; the first `left` columns are text, the others are figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < left else "right", no_wrap=i < left)
    for row in rows:
        table.add_row(*map(str, row))
    return table


def count_frames(n: int) -> str:
    """1 frame, 2 frames."""
    return f"{n} frame{'' if n == 1 else 's'}"


class FrameConsole:
    """Listens to an encode or a decode. Use it as a context manager around the call."""

    def __init__(self, quiet: bool = False, n_frames: int = 0) -> None:
        self.console = make_console()
        self.quiet = quiet
        self._n_frames = n_frames
        self._n_done = 0
        self._live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._live.start()
        self._task = self._live.add_task("starting", total=self._n_frames or None, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.EncodeStarted():
                self._n_frames = event.n_frames
                self.say(f"{count_frames(event.n_frames)}, trained by {event.kernels}")
                self._show("encoding", "")
            case events.FrameStarted():
                self._show(f"frame {event.display_index} {event.frame_type.name}", "")
            case events.Progress():
                self._show_progress(event)
            case events.FrameDone() | events.FrameDecoded():
                self._n_done += 1
                self.say(frame_line(event))
                self._show("", "")

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self.console.print(text, soft_wrap=True)

    def _show_progress(self, event: events.Progress) -> None:
        fraction = min(1.0, event.iteration / max(1, event.total_iterations))
        self._show(
            f"frame {event.display_index} {event.phase} {event.iteration}/{event.total_iterations}",
            f"{self._n_done}/{self._n_frames} frames  {event.psnr_db:.2f} dB  {event.rate_bpp:.4f} bpp",
            fraction,
        )

    def _show(self, description: str, detail: str, fraction: float = 0.0) -> None:
        if self._task is not None:
            self._live.update(
                self._task,
                description=description,
                detail=detail,
                total=self._n_frames or None,
                completed=self._n_done + fraction,
            )


def frame_line(event: events.FrameDone | events.FrameDecoded) -> str:
    """A finished frame in one line."""
    head = f"frame {event.display_index:4d} {event.frame_type.name}"
    if isinstance(event, events.FrameDecoded):
        return f"{head}  decoded in {event.duration_s:.3f} s"
    return (
        f"{head} {event.n_bytes:8d} bytes  {event.psnr_db:6.2f} dB  "
        f"{event.iterations} iterations in {event.duration_s:.1f} s"
    )
