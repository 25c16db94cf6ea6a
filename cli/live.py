"""The live block: a fixed number of lines in which only the numbers change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coolvid import events
from coolvid.picture.types import FrameType

# Time per iteration relative to I frames, for types not measured yet (docs/PERFORMANCE.md).
USUAL_COST = {FrameType.I: 1.0, FrameType.P: 1.35, FrameType.B: 1.75}
LABEL_WIDTH = 7
COUNT_WIDTH = 29


def clock(seconds: float | None) -> str:
    """Seconds as h:mm:ss, ten characters wide; dashes while unknown."""
    if seconds is None:
        return f"{'-:--:--':>10}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}".rjust(10)


@dataclass
class Speed:
    """Measured time and iterations of the finished frames of one type."""

    n_frames: int = 0
    iterations: int = 0
    planned: int = 0
    seconds: float = 0.0


class Estimate:
    """Work done and time left, from the measured speed of each frame type. Times are from time.monotonic()."""

    def __init__(self, plan: Sequence[events.PlannedFrame] = ()) -> None:
        self._left = list(plan)
        self._speeds = {frame_type: Speed() for frame_type in FrameType}
        self._current: events.PlannedFrame | None = None
        self._started = 0.0
        self._iteration = 0
        self._total = 0
        self._spent = 0.0

    def start(self, frame: events.FrameStarted, now: float) -> None:
        """The next frame of the plan begins."""
        self._current = self._take(frame.display_index)
        self._started, self._iteration, self._total = now, 0, frame.total_iterations

    def progress(self, iteration: int, now: float) -> None:
        """The current frame has reached this iteration."""
        self._iteration, self._spent = iteration, now - self._started

    def skip(self, display_index: int) -> None:
        """A frame that needs no more work."""
        self._take(display_index)

    def done(self, frame: events.FrameDone) -> None:
        """The current frame is finished."""
        speed = self._speeds[frame.frame_type]
        speed.n_frames += 1
        speed.iterations += frame.iterations
        speed.planned += self._current.iterations if self._current else frame.iterations
        speed.seconds += frame.duration_s
        self._current, self._iteration, self._spent = None, 0, 0.0

    def _take(self, display_index: int) -> events.PlannedFrame | None:
        found = next((frame for frame in self._left if frame.display_index == display_index), None)
        self._left = [frame for frame in self._left if frame is not found]
        return found

    def _cost(self) -> float | None:
        """Seconds per iteration of an I frame, from all measurements."""
        weighted = sum(USUAL_COST[t] * s.iterations for t, s in self._speeds.items())
        seconds = sum(s.seconds for s in self._speeds.values())
        if self._current:
            weighted += USUAL_COST[self._current.frame_type] * self._iteration
            seconds += self._spent if self._iteration else 0.0
        return seconds / weighted if weighted else None

    def _seconds(self, frame_type: FrameType, iterations: float, unit: float) -> float:
        """Seconds for this number of iterations; unit: seconds per iteration of an I frame."""
        speed = self._speeds[frame_type]
        each = speed.seconds / speed.iterations if speed.iterations else unit * USUAL_COST[frame_type]
        return iterations * each

    def left_s(self, now: float) -> float | None:
        """Seconds until the end; None before the first measurement."""
        unit = self._cost()
        if unit is None:
            return None
        later = 0.0
        for frame in self._left:
            speed = self._speeds[frame.frame_type]
            share = speed.iterations / speed.planned if speed.planned else 1.0
            later += self._seconds(frame.frame_type, share * frame.iterations, unit)
        if self._current:
            rest = self._seconds(self._current.frame_type, max(0, self._total - self._iteration), unit)
            later += max(0.0, rest - (now - self._started - self._spent))
        return later

    def share(self, now: float, since: float) -> float:
        """The finished share of all work, 0 to 1."""
        left = self.left_s(now)
        return (now - since) / max(1e-9, now - since + left) if left is not None else 0.0


class EncodeBlock:
    """Five lines about an encode. feed() updates it; rich redraws it."""

    def __init__(self) -> None:
        self.title = "starting"
        self.n_frames = self.n_done = 0
        self.estimate = Estimate()
        self.since = self.begun = time.monotonic()
        self.frame = self.phase = ""
        self.iteration = self.total = 0
        self.figures = ""

    def feed(self, event: events.Event) -> None:
        """Update the state from an event."""
        now = time.monotonic()
        match event:
            case events.EncodeStarted():
                self.n_frames, self.n_done, self.begun = event.n_frames, 0, now
                self.estimate = Estimate(event.plan)
            case events.FrameRestored():
                self.n_done += 1
                self.estimate.skip(event.display_index)
            case events.FrameStarted():
                self.estimate.start(event, now)
                self.frame, self.phase, self.figures = frame_name(event), "starting", ""
                self.iteration, self.total = 0, event.total_iterations
            case events.Progress():
                self.estimate.progress(event.iteration, now)
                self.iteration, self.total = event.iteration, event.total_iterations
                self.phase = event.phase if event.iteration != event.total_iterations else "quantizing"
                self.figures = f"loss {event.loss:<10.6f}{event.rate_bpp:8.4f} bpp{event.psnr_db:8.2f} dB"
            case events.FrameDone():
                self.n_done += 1
                self.estimate.done(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now, width = time.monotonic(), options.max_width
        share = self.estimate.share(now, self.begun)
        done = min(1.0, self.iteration / self.total) if self.total else 0.0
        video = f"{self.n_done:>6}/{self.n_frames} frames"
        frame = f"{min(self.iteration, self.total):>6}/{self.total} iterations" if self.total else ""
        left = self.estimate.left_s(now)
        yield Group(
            _line(self.title),
            bar_line("video", share, video, width),
            bar_line("frame", done, frame, width),
            _line(f"{'':{LABEL_WIDTH}}{self.frame:<18}{self.phase:<14}{self.figures}"),
            _line(f"{'time':{LABEL_WIDTH}}elapsed{clock(now - self.since)}     left{clock(left)}"),
        )


class DecodeBlock:
    """One line about a decode."""

    def __init__(self) -> None:
        self.n_frames = self.n_done = 0
        self.since = time.monotonic()

    def feed(self, event: events.Event) -> None:
        """Update the state from an event."""
        match event:
            case events.DecodeStarted():
                self.n_frames = event.n_decoded
            case events.FrameDecoded():
                self.n_done += 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        share = self.n_done / self.n_frames if self.n_frames else 0.0
        elapsed = clock(time.monotonic() - self.since)
        yield bar_line("video", share, f"{self.n_done:>6}/{self.n_frames} frames{elapsed}", options.max_width)


def frame_name(event: events.FrameStarted) -> str:
    """A frame and its references: 24 B from 16 32."""
    references = " ".join(map(str, event.references))
    return f"{event.display_index} {event.frame_type.name}{' from ' if references else ''}{references}"


def bar_line(label: str, share: float, count: str, width: int) -> Table:
    """A label, a bar and a count, in columns of fixed width."""
    bar = max(8, min(40, width - LABEL_WIDTH - COUNT_WIDTH - 6))
    grid = Table.grid()
    for column in (LABEL_WIDTH, bar, 6, COUNT_WIDTH):
        grid.add_column(width=column, no_wrap=True)
    percent = Text(f"{100 * share:4.0f} %")
    grid.add_row(Text(label), ProgressBar(total=1.0, completed=min(1.0, share), width=bar), percent, Text(count))
    return grid


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")
