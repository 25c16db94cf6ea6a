"""What an encode leaves when it ends early, and what a resume makes of it: no finished frame is lost, none is mixed."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from coolvid_cli.main import main

import coolvid
from coolvid import EncodeConfig, PixelFormat, SourceSpec, StructureConfig, VideoFormat, events
from coolvid.bitstream.stream import StreamReader, StreamWriter
from coolvid.encoding.candidates import encode_frame
from coolvid.encoding.resume import frame_digest
from coolvid.errors import InputError, OutputError, StreamError
from coolvid.files import locked
from pictures import noise, waves

FAST = EncodeConfig(preset="fast", iterations=2, structure=StructureConfig(gop=2), threads=1)
FORMAT = VideoFormat(16, 16, PixelFormat.YUV420, 8)
FRAMES = waves(FORMAT, 3, grain=0.01)
HOW = "add --resume (in Python: resume=True)"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


CODED = {}


def coded_once(job, listen):
    """encode_frame(), which trains for the same job only once in this module."""
    pictures = tuple(frame_digest(frame) for frame in (job.frame, *job.references))
    key = repr((job.step, job.seed, job.configs, pictures))
    if key not in CODED:
        CODED[key] = encode_frame(job, listen)
    return CODED[key]


@pytest.fixture(autouse=True, scope="module")
def quick_jobs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coolvid.encoding.manager.encode_frame", coded_once)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an encode in one go."""
    path = tmp_path_factory.mktemp("whole") / "whole.cvd"
    coolvid.encode_frames(FRAMES, path, FAST)
    return path.read_bytes()


def raising_at(coding_index, error):
    """A listener that fails at this frame."""

    def listen(event):
        if isinstance(event, events.FrameDone) and event.coding_index == coding_index:
            raise error

    return listen


@pytest.fixture
def left(tmp_path):
    """out.cvd, of which an earlier run left the first two packets."""
    with pytest.raises(KeyboardInterrupt):
        coolvid.encode_frames(FRAMES, tmp_path / "out.cvd", FAST, listen=raising_at(1, KeyboardInterrupt()))
    assert names(tmp_path) == ["out.cvd.part", "out.cvd.part.toml"]
    return tmp_path / "out.cvd"


def resumed(path, frames=FRAMES):
    """Events of a resume."""
    told = []
    coolvid.encode_frames(frames, path, FAST, resume=True, listen=told.append)
    assert names(path.parent) == [path.name]
    return told


ERRORS = [
    ValueError("the listener"),
    OSError(errno.ENOSPC, "No space left on device"),
    BrokenPipeError(),
    MemoryError(),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_keeps_finished_frames_and_says_how_to_go_on(tmp_path, whole, error):
    path = tmp_path / "out.cvd"
    with pytest.raises(type(error)) as info:
        coolvid.encode_frames(FRAMES, path, FAST, listen=raising_at(0, error))
    assert names(tmp_path) == ["out.cvd.part", "out.cvd.part.toml"]
    assert info.value.__notes__ == [f"{path}.part holds 1 finished frame: {HOW}"]
    told = resumed(path)
    assert [type(event) for event in told if isinstance(event, events.FrameRestored | events.PartCut)] == [
        events.FrameRestored
    ]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("at", [events.EncodeStarted, events.FrameStarted, events.Progress])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_encode_that_finished_no_frame_leaves_nothing(tmp_path, at, error):
    def listen(event):
        if isinstance(event, at):
            raise error

    with pytest.raises(error) as info:
        coolvid.encode_frames(FRAMES, tmp_path / "out.cvd", replace(FAST, seed=3), listen=listen)
    assert names(tmp_path) == [] and not hasattr(info.value, "__notes__")


def test_a_source_that_ends_early_keeps_the_frames_before(tmp_path, monkeypatch):
    source = tmp_path / "a_16x16_25p_yuv420_8b.yuv"
    source.write_bytes(b"".join(plane.astype("u1").tobytes() for frame in FRAMES for plane in frame.planes))
    monkeypatch.setattr("coolvid.media.raw.RawSource._count", lambda *_: 5)
    monkeypatch.chdir(tmp_path)
    options = ("--gop", 1, "--preset", "fast", "--iterations", 2, "--threads", 1)
    result = CliRunner().invoke(main, ["encode", source.name, "-o", "out.cvd", *map(str, options)])
    assert result.exit_code == 2
    assert result.stderr.endswith(f"in frame 3 of 5; out.cvd.part holds 3 finished frames: {HOW}\n")
    assert names(tmp_path) == [source.name, "out.cvd.part", "out.cvd.part.toml"]


def test_refusals_do_not_say_to_resume(left):
    before = {path.name: path.read_bytes() for path in left.parent.iterdir()}
    for frames, config, message in (
        (FRAMES, replace(FAST, seed=1), "was made with seed 0"),
        (FRAMES[:2], FAST, "was made from another video"),
        ([FRAMES[0], FRAMES[1], FRAMES[0]], FAST, "frame 2 of the source differs"),
        (FRAMES, replace(FAST, device="cuda"), "was made with device"),
    ):
        with pytest.raises(InputError, match=message) as info:
            coolvid.encode_frames(frames, left, config, resume=True)
        assert not hasattr(info.value, "__notes__")
        assert {path.name: path.read_bytes() for path in left.parent.iterdir()} == before


def changed(i):
    frames = list(FRAMES)
    planes = [plane.copy() for plane in frames[i].planes]
    planes[2][-1, -1] ^= 1
    frames[i] = replace(frames[i], planes=tuple(planes))
    return frames


def test_other_content_is_refused_with_the_first_frame_that_differs(left, whole):
    for i in (0, 2):  # those that were coded
        with pytest.raises(InputError, match=f"frame {i} of the source differs from the one that .*part was made from"):
            coolvid.encode_frames(changed(i), left, FAST, resume=True)
    both = [changed(0)[0], FRAMES[1], changed(2)[2]]
    with pytest.raises(InputError, match="frame 0 of the source differs"):
        coolvid.encode_frames(both, left, FAST, resume=True)
    resumed(left)
    assert left.read_bytes() == whole


def test_a_digest_of_64_bits_tells_samples_and_formats_apart():
    deep = replace(FRAMES[0], format=replace(FORMAT, bit_depth=10))
    digests = {frame_digest(frame) for frame in (*FRAMES, deep, *(changed(i)[i] for i in range(3)))}
    assert len(digests) == 7 and all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_the_digest_is_stored_before_its_packet(tmp_path, monkeypatch):
    """Whatever stops in between leaves a part whose every packet has its digest."""
    append, seen = StreamWriter.append, []

    def look(self, packet):
        note = (tmp_path / "out.cvd.part.toml").read_text()
        seen.append(f'{packet.info.display_index} = "{frame_digest(FRAMES[packet.info.display_index])}"\n' in note)
        append(self, packet)

    monkeypatch.setattr(StreamWriter, "append", look)
    coolvid.encode_frames(FRAMES, tmp_path / "out.cvd", FAST)
    assert seen == [True] * 3


def sizes(path):
    """Offsets in the part: end of the header, and of each packet."""
    reader = StreamReader(path)
    return [reader.end_of(n) for n in range(len(reader) + 1)]


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGE = [
    (lambda data, ends: flip(data, ends[1] - 1), 0, "packet 0: a packet does not match its checksum"),
    (lambda data, ends: flip(data, ends[1] + 3), 1, "packet 1: a packet does not match its checksum"),
    (lambda data, ends: data[:-1], 1, "packet 1 is incomplete"),
    (lambda data, ends: data + data[ends[1] : -3], 2, "packet 2 is incomplete"),
    (lambda data, ends: data + bytes(100), 2, "packet 2 is incomplete"),
    (lambda data, ends: flip(data, 7), 2, ""),  # in the header, which is known
    (lambda data, ends: data[:9], 0, ""),
    (lambda data, ends: b"", 0, ""),
]


@pytest.mark.parametrize("damage, n_kept, problem", DAMAGE)
def test_a_damaged_packet_ends_what_is_kept(left, whole, damage, n_kept, problem):
    part = Path(f"{left}.part")
    part.write_bytes(damage(part.read_bytes(), sizes(part)))
    told = resumed(left)
    assert left.read_bytes() == whole
    assert sum(isinstance(event, events.FrameRestored) for event in told) == n_kept
    cuts = [(event.part, event.n_kept) for event in told if isinstance(event, events.PartCut)]
    assert cuts == ([(str(part), n_kept)] if problem else [])
    assert all(problem in event.problem for event in told if isinstance(event, events.PartCut))


NOTES = [
    (lambda text: text + '1 = "0123', 2),  # a full disk
    (lambda text: text[: text.rindex("2 =")], 1),
    (lambda text: text[: text.index("[frames]")], 0),
]


@pytest.mark.parametrize("damage, n_kept", NOTES)
def test_frames_without_a_digest_are_coded_again(left, whole, damage, n_kept):
    note = Path(f"{left}.part.toml")
    note.write_text(damage(note.read_text()))
    told = resumed(left)
    assert left.read_bytes() == whole
    assert sum(isinstance(event, events.FrameRestored) for event in told) == n_kept
    assert any(isinstance(event, events.PartCut) for event in told) == (n_kept < 2)


def test_a_second_interruption_loses_nothing(left, whole):
    with pytest.raises(ValueError, match="once more") as info:
        coolvid.encode_frames(FRAMES, left, FAST, resume=True, listen=raising_at(2, ValueError("once more")))
    assert info.value.__notes__ == [f"{left}.part holds 3 finished frames: {HOW}"]

    def refuse(event):
        if isinstance(event, events.FrameRestored):
            raise ValueError("and again")

    with pytest.raises(ValueError, match="and again"):
        coolvid.encode_frames(FRAMES, left, FAST, resume=True, listen=refuse)
    assert [type(event) for event in resumed(left)].count(events.FrameRestored) == 3
    assert left.read_bytes() == whole


def test_starting_again_does_not_mix_with_what_was_left(left):
    """Neither part nor note of the earlier run survive where the new one stops before its first frame."""

    def stop(event):
        if isinstance(event, events.FrameStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coolvid.encode_frames(FRAMES, left, replace(FAST, seed=1), listen=stop)
    assert names(left.parent) == []


def test_a_second_encode_to_the_same_output_is_refused(tmp_path, whole):
    path, found = tmp_path / "out.cvd", []

    def again(event):
        if isinstance(event, events.FrameDone) and event.coding_index == 1:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()

    def attempt():
        for resume in (False, True):
            try:
                coolvid.encode_frames(FRAMES, path, FAST, resume=resume)
            except OutputError as error:
                found.append(str(error))

    coolvid.encode_frames(FRAMES, path, FAST, listen=again)
    assert found == [f"cannot write {path}: process {os.getpid()} is writing it; wait, or choose another name"] * 2
    assert path.read_bytes() == whole and names(tmp_path) == ["out.cvd"]


UNWRITABLE = ["folder", "none/out.cvd", "taken"]


@pytest.mark.parametrize("name", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_said(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.part").mkdir()
    with pytest.raises(OutputError, match="folder"):
        coolvid.encode_frames(FRAMES, tmp_path / name, FAST, listen=lambda event: pytest.fail(str(event)))
    assert names(tmp_path) == ["folder", "taken.part"]


def test_names_that_toml_cannot_hold_as_they_are(tmp_path, whole):
    source = tmp_path / os.fsdecode(b"odd \x7f_16x16_25p_yuv420_8b.yuv")
    source.write_bytes(b"".join(plane.astype("u1").tobytes() for frame in FRAMES for plane in frame.planes))
    (tmp_path / "to").mkdir()
    path = tmp_path / "to" / "out.cvd"
    with pytest.raises(KeyboardInterrupt):
        coolvid.encode(source, path, FAST, listen=raising_at(0, KeyboardInterrupt()))
    coolvid.encode(source, path, FAST, resume=True)
    assert path.read_bytes() == whole


def raw_source(folder, n_frames=3, size=16):
    """A raw file, and the options of a quick encode of it."""
    form = VideoFormat(size, size, PixelFormat.YUV420, 8)
    source = folder / f"a_{size}x{size}_25p_yuv420_8b.yuv"
    frames = waves(form, n_frames, grain=0.01)
    source.write_bytes(b"".join(plane.astype("u1").tobytes() for frame in frames for plane in frame.planes))
    return source, ("--gop", "2", "--preset", "fast", "--iterations", "2", "--threads", "1", "--no-verify")


def child(*arguments, cwd, **options):
    """`coolvid encode` in a process of its own."""
    command = [sys.executable, "-P", "-m", "coolvid_cli", "encode", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_of_the_output_that_goes_away_stops_the_encode_and_keeps_it(tmp_path):
    source, options = raw_source(tmp_path)
    with child(source, "-o", "out.cvd", *options, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # "3 frames, ..."
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == f"coolvid: out.cvd.part holds 1 finished frame: {HOW}\n"
    part = StreamReader(tmp_path / "out.cvd.part")
    assert len(part.packets) == 1


def test_a_log_on_a_full_disk_keeps_the_part(tmp_path, monkeypatch):
    source, options = raw_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("run.jsonl").symlink_to("/dev/full")
    for flag in ("--log", "--csv"):
        result = CliRunner().invoke(main, ["encode", source.name, "-o", "out.cvd", *options, flag, "run.jsonl"])
        assert result.exit_code == 2
        assert result.stderr == (
            "coolvid: error: cannot write run.jsonl: No space left on device; check the folder and its free space\n"
        )
        assert names(tmp_path) == [source.name, "run.jsonl"]  # it failed before the first frame

    from coolvid_cli import journal

    write, seen = journal.RunLog._write, []

    def fill(self, kind, record):
        seen.append(kind)
        if kind in ("frame", "error"):
            raise OutputError("cannot write run.jsonl: No space left on device")
        write(self, kind, record)

    monkeypatch.setattr(journal.RunLog, "_write", fill)
    result = CliRunner().invoke(main, ["encode", source.name, "-o", "out.cvd", *options, "--log", "other.jsonl"])
    assert seen == ["start", "frame", "error"]
    assert result.stderr.endswith(f"No space left on device; out.cvd.part holds 1 finished frame: {HOW}\n")


def test_a_target_search_is_kept_and_knows_its_source(tmp_path):
    source, _ = raw_source(tmp_path)
    out, target = tmp_path / "out.cvd", coolvid.Target("psnr", 30.0)
    encode = lambda **options: coolvid.encode_to_target(source, out, target, FAST, max_encodes=2, **options)  # noqa: E731
    with pytest.raises(ValueError, match="stop") as info:
        encode(listen=raising_at(1, ValueError("stop")))
    assert info.value.__notes__ == [f"{out}.search holds the search so far: {HOW}"]
    with pytest.raises(InputError, match="another source, target or configuration"):
        encode(resume=True, source_spec=SourceSpec(start=1))
    with locked(out), pytest.raises(OutputError, match=f"process {os.getpid()} is writing it"):
        encode(resume=True)
    data = source.read_bytes()
    source.write_bytes(flip(data, 16 * 16 * 3 // 2))
    with pytest.raises(InputError, match="another source: frame 1 differs; delete it to start again"):
        encode(resume=True)
    source.write_bytes(data)
    told = []
    encode(resume=True, listen=told.append)
    assert [type(event) for event in told].count(events.FrameRestored) == 2
    assert names(tmp_path) == [source.name, "out.cvd"]


def test_a_target_search_leaves_nothing_beside_a_device(tmp_path):
    source, _ = raw_source(tmp_path)
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    target, seen = coolvid.Target("psnr", 30.0), set()
    found = coolvid.encode_to_target(
        source, fifo, target, FAST, max_encodes=1, listen=lambda _: seen.update(names(tmp_path))
    )
    reader.join(timeout=30)
    assert len(got[0]) == found.encode.n_bytes and StreamReader(got[0]).packets
    assert seen == {source.name, "fifo"} == set(names(tmp_path)) and fifo.is_fifo()
    with pytest.raises(InputError, match=r"nothing to resume: a search that writes to .*fifo leaves nothing"):
        coolvid.encode_to_target(source, fifo, target, FAST, resume=True)


PLACES = {
    "the note": (lambda ends: 90, 0),
    "the first packet": (lambda ends: ends[1] - 9, 0),
    "between packets": (lambda ends: ends[2], 2),
    "the third packet": (lambda ends: ends[2] + 9, 2),
    "the index": (lambda ends: ends[3] + 2, 3),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_keeps_whole_frames(tmp_path, place):
    """The limit of the size of a file stands for the disk: a write that passes it stores what fits, and fails."""
    resource = pytest.importorskip("resource")
    noisy = noise(VideoFormat(48, 48, PixelFormat.YUV420, 8), 3)
    config = replace(FAST, lmbda=1e-5, structure=StructureConfig(gop=1))
    whole, path = tmp_path / "whole.cvd", tmp_path / "out.cvd"
    coolvid.encode_frames(noisy, whole, config)
    limit, n_kept = PLACES[place][0](sizes(whole)), PLACES[place][1]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large") as info:
            coolvid.encode_frames(noisy, path, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if n_kept == 0:
        assert names(tmp_path) == ["whole.cvd"]
        return
    assert info.value.__notes__ == [f"{path}.part holds {n_kept} finished frames: {HOW}"]
    told = []
    coolvid.encode_frames(noisy, path, config, resume=True, listen=told.append)
    assert [type(event) for event in told].count(events.FrameRestored) == n_kept
    assert path.read_bytes() == whole.read_bytes()


def finished(part):
    """Whole frames in a part, which may be absent."""
    try:
        return len(StreamReader(part).sound_packets()[0])
    except (InputError, StreamError):
        return 0


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_frame(tmp_path):
    """20 random moments: frames that were announced are in the part, and the bytes are those of an encode in one go."""
    source, options = raw_source(tmp_path, n_frames=7)
    moments, n_killed, lost, n_files, kept = random.Random(29), 0, 0, 0, []
    start = time.monotonic()
    with child(source, "-o", "whole.cvd", *options, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        assert process.wait() == 0
    duration = time.monotonic() - start
    while n_killed < 20:
        out, n_said, n_files = tmp_path / f"{n_files}.cvd", 0, n_files + 1
        part = Path(f"{out}.part")
        while not out.exists():
            resume, start = ("--resume",) if part.exists() else (), time.monotonic()
            with child(source, "-o", out.name, *options, *resume, cwd=tmp_path, stdout=subprocess.PIPE) as process:
                try:
                    process.wait(moments.uniform(0.3, 1.0) * duration if n_killed < 20 else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                lines, said = process.stdout.read(), process.stderr.read()
            assert process.returncode in (0, -signal.SIGKILL), said
            if process.returncode == 0 and not resume:
                duration = time.monotonic() - start  # of a whole encode, which others on this machine slow down
            n_said = max(n_said, len(re.findall("^frame ", lines, re.MULTILINE)))
            if process.returncode and not out.exists():
                n_killed += 1
                kept.append(finished(part))
                lost += max(0, n_said - kept[-1])
        assert out.read_bytes() == (tmp_path / "whole.cvd").read_bytes()
    print(f"{n_killed} kills with {kept} frames finished, {n_files} files with equal bytes, {lost} frames lost")
    assert lost == 0 and max(kept) > 0
    assert not [name for name in names(tmp_path) if name.endswith(".part")]
