"""The live block: as many lines as ever, no wider than the terminal, and a time left that is right."""

from io import StringIO

import pytest
from coolvid_cli import live
from coolvid_cli.console import FrameConsole
from coolvid_cli.live import DecodeBlock, EncodeBlock, Estimate, clock
from rich.console import Console

from coolvid import EncodeConfig, FrameType, events

PLAN = (
    events.PlannedFrame(0, FrameType.I, 100),
    events.PlannedFrame(4, FrameType.P, 80),
    events.PlannedFrame(2, FrameType.B, 50),
    events.PlannedFrame(1, FrameType.B, 50),
)
STARTED = events.EncodeStarted(4, EncodeConfig(), "kernels", PLAN)


def start(i):
    planned = PLAN[i]
    references = ((), (0,), (0, 4), (0, 2))[i]
    return events.FrameStarted(i, planned.display_index, planned.frame_type, references, planned.iterations)


def done(i, iterations, seconds):
    planned = PLAN[i]
    return events.FrameDone(
        i,
        planned.display_index,
        planned.frame_type,
        99,
        {"header": 792},
        31.5,
        iterations=iterations,
        duration_s=seconds,
    )


def progress(i, iteration, phase="phase 1"):
    return events.Progress(PLAN[i].display_index, phase, iteration, PLAN[i].iterations, 0.0123, 31.5, 0.125)


@pytest.fixture
def now(monkeypatch):
    """A clock that a test moves."""
    time = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: time[0])

    def move(seconds):
        time[0] += seconds

    return move


def drawn(block, width=80):
    console = Console(file=StringIO(), width=width, highlight=False, markup=False)
    console.print(block)
    return console.file.getvalue().splitlines()


STORY = [
    (STARTED,),
    (start(0),),
    (progress(0, 0, "warm-up 1.2"), progress(0, 50)),
    (progress(0, 100), done(0, 100, 20.0), start(1), progress(1, 20, "motion start")),
    (done(1, 80, 30.0), start(2), progress(2, 60, "phase 2"), events.Progress(2, "phase 1", 9, 50, 1e4, -3.25, 99.5)),
    (done(2, 50, 30.0), start(3), done(3, 50, 30.0)),
]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_jumps(now, width):
    block = EncodeBlock()
    columns = set()
    for told in ((), *STORY):
        for event in told:
            block.feed(event)
            now(1)
        lines = drawn(block, width)
        assert len(lines) == 5
        assert max(map(len, lines)) <= width
        columns.add((lines[1].find("%"), lines[2].find("%"), lines[4].find("left")))
    assert len(columns) == 1


def test_the_block_says_what_happens(now):
    block = EncodeBlock()
    for event in (STARTED, start(0), done(0, 100, 20.0), start(1), progress(1, 20, "motion start")):
        block.feed(event)
    text = [" ".join(line.split()) for line in drawn(block)]
    assert text[1].endswith("1/4 frames")
    assert text[2].endswith("25 % 20/80 iterations")
    assert text[3] == "4 P from 0 motion start loss 0.012300 0.1250 bpp 31.50 dB"
    for event in (done(1, 80, 30.0), start(2), progress(2, 50)):
        block.feed(event)
    assert "quantizing" in drawn(block)[3]


def test_time_left_is_measured_speed_times_the_iterations_that_are_left():
    estimate = Estimate(PLAN)
    assert estimate.left_s(0.0) is None
    estimate.start(start(0), 0.0)
    assert estimate.left_s(5.0) is None
    estimate.progress(50, 10.0)  # 0.2 s an iteration; P and B cost more
    assert estimate.left_s(10.0) == pytest.approx(0.2 * (50 + 1.35 * 80 + 1.75 * 100))
    assert estimate.left_s(12.0) == pytest.approx(estimate.left_s(10.0) - 2)
    estimate.done(done(0, 100, 20.0))
    estimate.start(start(1), 20.0)
    estimate.done(done(1, 40, 30.0))  # half the iterations, 0.75 s each
    estimate.start(start(2), 50.0)
    estimate.done(done(2, 100, 40.0))  # twice as many, 0.4 s each
    assert estimate.left_s(90.0) == pytest.approx(2 * 50 * 0.4)
    estimate.start(start(3), 90.0)
    assert estimate.left_s(95.0) == pytest.approx(50 * 0.4 - 5)
    assert estimate.left_s(500.0) == 0.0
    assert estimate.share(90.0, since=0.0) == pytest.approx(90 / 110)


def test_frames_of_an_earlier_run_take_no_time():
    estimate = Estimate(PLAN)
    estimate.skip(0)
    estimate.skip(4)
    estimate.start(start(2), 0.0)
    estimate.done(done(2, 50, 10.0))
    assert estimate.left_s(10.0) == pytest.approx(10.0)


def test_times_keep_their_width():
    assert [clock(s) for s in (None, 0, 59.6, 3661, 360000)] == [
        "   -:--:--", "   0:00:00", "   0:01:00", "   1:01:01", " 100:00:00",
    ]  # fmt: skip


def test_a_decode_is_one_line(now):
    block = DecodeBlock()
    for event in (events.DecodeStarted(4, 6), events.FrameDecoded(0, FrameType.I, 0.01)):
        block.feed(event)
    (line,) = drawn(block)
    assert "17 %" in line
    assert "1/6 frames" in line


def console_output(*told, terminal, quiet=False, monkeypatch=None):
    console = Console(file=StringIO(), force_terminal=terminal, width=100, highlight=False, markup=False)
    monkeypatch.setattr("coolvid_cli.console.make_console", lambda: console)
    with FrameConsole(quiet) as listener:
        for event in told:
            listener(event)
    return console.file.getvalue()


SEARCH = (
    events.TrialStarted(1, 0.01, True, "0.3 bpp"),
    *(STARTED, start(0), done(0, 100, 2.0)),
    events.TrialDone(1, 0.01, True, 0.5, "0.5 bpp", False),
    events.TrialStarted(2, 0.02, False, "0.3 bpp"),
    *(STARTED, events.FrameRestored(0, 0, FrameType.I, (), 99, {}, 31.5), start(1), done(1, 80, 2.0)),
    events.TrialDone(2, 0.02, False, 0.3, "0.3 bpp", True),
)


def test_a_search_says_a_line_a_trial_and_a_line_a_frame_of_whole_ones(monkeypatch):
    assert console_output(*SEARCH, terminal=False, monkeypatch=monkeypatch).splitlines() == [
        "4 frames, trained by kernels",
        "short trial 1: lambda 0.01 gives 0.5 bpp, wanted 0.3 bpp",
        "frame    0 I       99 bytes   31.50 dB  kept from the interrupted run",
        "frame    4 P       99 bytes   31.50 dB  80 iterations in 2.0 s",
        "trial 2: lambda 0.02 gives 0.3 bpp, wanted 0.3 bpp",
    ]


def test_a_terminal_gets_the_block_and_quiet_nothing(monkeypatch):
    text = console_output(*SEARCH, terminal=True, monkeypatch=monkeypatch)
    assert "trial 2 for 0.3 bpp: lambda 0.001, preset medium" in text
    assert "elapsed" in text
    assert console_output(*SEARCH, terminal=True, quiet=True, monkeypatch=monkeypatch) == ""
