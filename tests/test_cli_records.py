"""What --log and --csv write, line by line, through interruptions and searches."""

import csv
import json
import math
import os
import threading
from types import SimpleNamespace

import pytest
from coolvid_cli.journal import COLUMNS, FrameTable, RunLog, journals

import coolvid
from coolvid import EncodeConfig, FrameType, PixelFormat, VideoFormat, events
from coolvid.errors import OutputError
from coolvid.settings.presets import TABLE

PLAN = (events.PlannedFrame(0, FrameType.I, 20), events.PlannedFrame(1, FrameType.P, 15))
DONE = events.EncodeDone(2, 384, math.inf, 4.25, "abc", 1.0, 46080.0)


def started(n_restored=0, lmbda=0.001):
    form = VideoFormat(32, 48, PixelFormat.YUV420, 8)
    return events.EncodeStarted(2, EncodeConfig(lmbda=lmbda), "kernels", PLAN, n_restored, form, 30, "a.yuv", "a.cvd")


def frame(index, n_bytes=100):
    bits = {"header": 80, "residue.latents": 300, "residue.arm": 8 * n_bytes - 400, "motion.latents": 20}
    kind, references = (FrameType.I, ()) if index == 0 else (FrameType.P, (0,))
    return events.FrameDone(index, index, kind, n_bytes, bits, 30.5, 30.6, 0.25, 20, 1.5, references)


def restored(index, n_bytes=100):
    done = frame(index, n_bytes)
    bits = {"header": 80, "residue.latents": 300, "motion.latents": 20, "networks": 8 * n_bytes - 400}
    return events.FrameRestored(index, index, done.frame_type, done.references, n_bytes, bits, 30.5)


def trial(number, is_short=False):
    return events.TrialStarted(number, 0.01 * number, is_short, "0.3 bpp")


def trial_done(number, is_short=False):
    return events.TrialDone(number, 0.01 * number, is_short, 0.29, "0.29 bpp", False)


def records(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tell(journal, *told):
    with journal as listen:
        for event in told:
            listen(event)


def test_a_log_has_the_configuration_first_and_the_summary_last(tmp_path):
    path = tmp_path / "run.jsonl"
    tell(RunLog(path), started(), frame(0), frame(1), DONE)
    first, one, two, last = records(path)
    assert (first["event"], first["source"], first["kernels"]) == ("start", "a.yuv", "kernels")
    assert (first["version"], first["fps"], first["width"]) == (coolvid_version(), "30", 48)
    assert first["config"]["structure"]["gop"] == 8
    assert first["effective_preset"]["intra_iterations"] == TABLE["medium"].intra_iterations
    assert (one["event"], one["frame_type"], one["references"]) == ("frame", "I", [])
    assert two["bits"] == {"header": 80, "residue.latents": 300, "residue.arm": 400, "motion.latents": 20}
    assert (two["display_index"], two["coding_index"], two["references"], two["n_bytes"]) == (1, 1, [0], 100)
    assert (two["psnr_db"], two["loss"], two["iterations"], two["duration_s"]) == (30.5, 0.25, 20, 1.5)
    assert (last["event"], last["n_bytes"], last["lmbda"], last["psnr_db"]) == ("summary", 384, 0.001, None)


def coolvid_version():
    from importlib.metadata import version

    return version("coolvid")


def test_a_log_of_a_search_numbers_its_trials(tmp_path):
    path = tmp_path / "run.jsonl"
    whole = (trial(2), started(), frame(0), frame(1), DONE, trial_done(2))
    done = events.TargetDone(2, 0.02, 0.29, "0.29 bpp", True, "a.cvd", DONE)
    tell(RunLog(path), trial(1, True), started(), frame(0), frame(1), DONE, trial_done(1, True), *whole, done)
    kinds = [(r["event"], r.get("trial")) for r in records(path)]
    one = [("start", 1), ("frame", 1), ("frame", 1), ("trial", 1)]
    assert kinds == [*one, ("start", 2), ("frame", 2), ("frame", 2), ("trial", 2), ("summary", 2)]
    assert records(path)[-1]["lmbda"] == 0.02
    assert records(path)[3]["is_short"]


@pytest.mark.parametrize(
    "error, kind", [(KeyboardInterrupt("kept"), "interrupted"), (coolvid.CoolvidError("nan"), "error")]
)
def test_a_log_says_how_a_run_ended_and_goes_on_behind_it(tmp_path, error, kind):
    path = tmp_path / "run.jsonl"
    with pytest.raises(type(error)), RunLog(path) as log:
        log(started())
        log(frame(0))
        assert len(records(path)) == 2  # on disk already
        raise error
    assert records(path)[-1] == {"event": kind, "message": str(error)}
    tell(RunLog(path, resume=True), started(1), restored(0), frame(1), DONE)
    kinds = [r["event"] for r in records(path)]
    assert kinds == ["start", "frame", kind, "start", "frame_restored", "frame", "summary"]
    tell(RunLog(path), started())
    assert [r["event"] for r in records(path)] == ["start"]


def test_a_table_has_one_row_a_frame_at_once(tmp_path):
    path = tmp_path / "frames.csv"
    with FrameTable(path) as table:
        table(started())
        table(frame(0))
        assert len(rows(path)) == 1
        table(frame(1))
        table(DONE)
    one, two = rows(path)
    assert tuple(one) == COLUMNS
    assert (one["type"], one["references"], one["bytes"]) == ("I", "", "100")
    expected = {
        "display_index": "1", "coding_index": "1", "type": "P", "references": "0", "bytes": "100", "bits_header": "80",
        "bits_residue_latents": "300", "bits_motion_latents": "20", "bits_networks": "400", "rate_bpp": "0.520833",
        "psnr_db": "30.5", "loss": "0.25", "iterations": "20", "duration_s": "1.5",
    }  # fmt: skip
    assert two == expected
    assert sum(int(two[name]) for name in COLUMNS if name.startswith("bits_")) == 8 * int(two["bytes"])


def test_a_resumed_table_keeps_the_rows_of_the_frames_that_were_kept(tmp_path):
    path = tmp_path / "frames.csv"
    with pytest.raises(KeyboardInterrupt), FrameTable(path) as table:
        for event in (started(), frame(0), frame(1)):  # the second one never reached the stream
            table(event)
        raise KeyboardInterrupt
    before = rows(path)
    tell(FrameTable(path, resume=True), started(1), restored(0), frame(1, 90), DONE)
    assert rows(path)[0] == before[0]
    assert [r["bytes"] for r in rows(path)] == ["100", "90"]


@pytest.mark.parametrize("left", [None, "", "a,b\n1,2\n", f"{','.join(COLUMNS)}\n0,0,I,,77\n"])
def test_a_table_that_is_gone_is_filled_from_the_stream(tmp_path, left):
    path = tmp_path / "frames.csv"
    if left is not None:
        path.write_text(left)
    tell(FrameTable(path, resume=True), started(1), restored(0), frame(1), DONE)
    one, two = rows(path)
    assert (one["bytes"], one["bits_networks"], one["psnr_db"], one["loss"], one["duration_s"]) == (
        "100", "400", "30.5", "", "",
    )  # fmt: skip
    assert two["loss"] == "0.25"


def test_a_table_of_a_search_is_that_of_the_trial_that_made_the_file(tmp_path, monkeypatch):
    path = tmp_path / "frames.csv"
    short = (trial(1, True), started(), frame(0, 70), frame(1, 70), DONE, trial_done(1, True))
    one = (trial(2), started(), frame(0, 80), frame(1, 80), DONE, trial_done(2))
    two = (trial(3), started(), frame(0, 90), frame(1, 90), DONE, trial_done(3))
    for number, wanted in ((2, "80"), (3, "90")):
        done = events.TargetDone(number, 0.02, 0.29, "0.29 bpp", True, "a.cvd", DONE)
        tell(FrameTable(path), *short, *one, *two, done)
        assert [r["bytes"] for r in rows(path)] == [wanted, wanted]
    form = SimpleNamespace(header=SimpleNamespace(format=started().format), packets=(restored(0, 60), restored(1, 60)))
    monkeypatch.setattr(coolvid, "read_info", lambda path: form)
    done = events.TargetDone(1, 0.02, 0.29, "0.29 bpp", False, "a.cvd", DONE)
    tell(FrameTable(path), trial(1), trial_done(1), *two, done)  # trial 1 was of an earlier run
    assert [(r["bytes"], r["rate_bpp"]) for r in rows(path)] == [("60", "0.3125")] * 2


def test_what_is_not_wanted_is_not_made(tmp_path):
    with journals(None, None, False) as none:
        assert none == []
    with journals(tmp_path / "a", tmp_path / "b", False) as both:
        assert len(both) == 2
    assert list(tmp_path.iterdir()) == []


SEARCH = (
    *(trial(1), started(), frame(0, 80), DONE, trial_done(1), trial(2), started(), frame(0, 90), DONE, trial_done(2)),
    events.TargetDone(1, 0.02, 0.29, "0.29 bpp", True, "a.cvd", DONE),
)


@pytest.mark.parametrize("journal", [RunLog, FrameTable])
@pytest.mark.parametrize("resume", [False, True])
def test_a_fifo_is_opened_once_and_stays(tmp_path, journal, resume):
    """Also where a table starts again, as for each trial of a search."""
    path, got = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    tell(journal(path, resume), *SEARCH)
    reader.join(timeout=10)
    assert path.is_fifo() and len(got[0].splitlines()) == (7 if journal is RunLog else 6)


@pytest.mark.parametrize("journal", [RunLog, FrameTable])
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, journal):
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot write .*full: No space left on device"):
        tell(journal(path), started())
    assert path.is_symlink()


def test_a_log_continues_after_its_last_whole_line(tmp_path):
    path = tmp_path / "run.jsonl"
    tell(RunLog(path), started())
    path.write_text(path.read_text() + '{"event": "fra')
    tell(RunLog(path, resume=True), frame(0))
    assert [r["event"] for r in records(path)] == ["start", "frame"]


def test_a_table_does_not_keep_a_row_that_was_cut(tmp_path):
    path = tmp_path / "frames.csv"
    tell(FrameTable(path), started(), frame(0), frame(1))
    path.write_text(path.read_text()[:-2])
    tell(FrameTable(path, resume=True), started(2), restored(0), restored(1))
    assert [row["loss"] for row in rows(path)] == ["0.25", ""]
