"""Where settings come from on the command line, targets, records, and a real terminal."""

import json
import os
import pty
import re
import select
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from coolvid_cli.main import main
from coolvid_cli.presets import text

import coolvid
from coolvid import EncodeConfig, PluginChoice, StructureConfig, Target, events
from coolvid.settings.measured import measurement
from coolvid.settings.presets import TABLE
from coolvid.settings.toml import make_config, read_config

ORBIT = Path(__file__).parents[1] / "sequences" / "tiny" / "orbit_96x64_30p_yuv420_8b.yuv"
DONE = events.EncodeDone(2, 384, 31.97, 4.25, "abc", 1.0, 46080.0)
FILE = """
lmbda = 0.25
preset = "slow"
quantizer = "ste"

[structure]
gop = 4
intra_period = 8

[plugins]
warper = "sinc:taps=6"

[training]
final = 7
start_lr = 0.02
"""


def invoke(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Stand-ins for the library in a folder with a run.toml; the list of what was asked for."""
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(FILE)
    seen = []

    def encode(source, out, config, *, listen, resume, **_):
        seen.append((config, None, resume))
        return DONE

    def encode_to_target(source, out, target, config, *, listen, resume, **_):
        seen.append((config, target, resume))
        return events.TargetDone(3, 0.0125, 0.5, "0.5 bpp", target.value < 9, str(out), DONE)

    monkeypatch.setattr(coolvid, "encode", encode)
    monkeypatch.setattr(coolvid, "encode_to_target", encode_to_target)
    monkeypatch.setattr("coolvid_cli.encode.decode_elsewhere", lambda stream: "abc")
    return seen


FROM_FILE = EncodeConfig(
    lmbda=0.25,
    preset="slow",
    quantizer=PluginChoice("ste"),
    structure=StructureConfig(gop=4, intra_period=8),
    plugins=(("warper", PluginChoice("sinc", (("taps", "6"),))),),
    training={"final": 7, "start_lr": 0.02},
)
LAYERS = [
    ("", FROM_FILE),
    ("--set preset=fast", replace(FROM_FILE, preset="fast")),
    ("--preset medium --lmbda 0.001", replace(FROM_FILE, preset="medium", lmbda=0.001)),
    ("--set preset=fast --preset placebo", replace(FROM_FILE, preset="placebo")),
    ("--set structure.gop=2 --set structure.gop=1", replace(FROM_FILE, structure=StructureConfig(1, 8))),
    ("--set structure.gop=2 --gop 8", replace(FROM_FILE, structure=StructureConfig(8, 8))),
    ("--set training.final=9", replace(FROM_FILE, training={"final": 9, "start_lr": 0.02})),
    ("--warper sinc", replace(FROM_FILE, plugins=(("warper", PluginChoice("sinc")),))),
    ("--quantizer hardround --frames 3", replace(FROM_FILE, quantizer=PluginChoice("hardround"), n_frames=3)),
]


@pytest.mark.parametrize("options, config", LAYERS)
def test_preset_then_file_then_set_then_options(asked, options, config):
    result = invoke("encode", "clip.yuv", "--config", "run.toml", *shlex.split(options))
    assert result.exit_code == 0, result.output
    assert asked == [(config, None, False)]


TARGETS = [
    ("--bpp 0.3", Target("bpp", 0.3)),
    ("--bitrate 300k", Target("bitrate", 300_000.0)),
    ("--bitrate 1.5M", Target("bitrate", 1_500_000.0)),
    ("--bitrate 64000 --resume", Target("bitrate", 64_000.0)),
    ("--psnr 8 --config run.toml", Target("psnr", 8.0)),
]


@pytest.mark.parametrize("options, target", TARGETS[::4] + TARGETS[:1])
def test_a_target_that_is_met_is_summed_up_with_its_lambda(asked, options, target):
    result = invoke("encode", "clip.yuv", *shlex.split(options), "--write-config", "used.toml")
    assert result.exit_code == 0, result.output
    assert asked[0][1] == target
    assert "lambda 0.0125" in result.stdout.splitlines()[-2]
    assert make_config([read_config("used.toml")]) == replace(asked[0][0], lmbda=0.0125)


@pytest.mark.parametrize("options, target", TARGETS[1:4])
def test_a_target_that_is_missed_keeps_the_closest_and_fails(asked, options, target):
    result = invoke("encode", "clip.yuv", *shlex.split(options))
    assert asked == [(EncodeConfig(), target, "--resume" in options)]
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"coolvid: error: no trial met {target}; clip.cvd is the closest, with 0.5 bpp at lambda"
    )
    assert "384 bytes" in result.stdout


MISTAKES = [
    ("--bpp 0.3 --psnr 30", "give only one of --lmbda, --bpp, --bitrate, --psnr, not --bpp and --psnr"),
    ("--lmbda 0.001 --bitrate 1M", "give only one of --lmbda, --bpp, --bitrate, --psnr, not --lmbda and --bitrate"),
    ("--set lmbda=0.1 --psnr 30", "give only one of --lmbda, --bpp, --bitrate, --psnr, not --set lmbda and --psnr"),
    ("--bitrate 3m", "cannot read bit rate '3m'; write bits per second, for example 300k or 1.5M"),
    ("--bpp 0", "target bpp is 0.0"),
    ("--set gop=2", "no setting 'gop'; did you mean structure.gop?"),
    ("--set training.turns=2", "no setting 'training.turns'; choose one of: training.intra_iterations"),
    ("--config none.toml", "cannot read none.toml: No such file"),
    ("--config clip.yuv", "clip.yuv is not valid TOML"),
    ("--csv clip.yuv", "the output 'clip.yuv' is the input file"),
    ("--log clip.yuv", "the output 'clip.yuv' is the input file"),
    ("--write-config clip.yuv", "the output 'clip.yuv' is the input file"),
    ("--write-config none/run.toml", "cannot write none/run.toml: the folder none does not exist; create it first"),
    ("--csv clip.cvd", "two outputs have the name 'clip.cvd'; choose another name for one"),
    ("--csv a --log a", "two outputs have the name 'a'; choose another name for one"),
]


@pytest.mark.parametrize("options, message", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_encoded(asked, options, message):
    Path("clip.yuv").write_bytes(bytes([255]))
    result = invoke("encode", "clip.yuv", *shlex.split(options))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"coolvid: error: {message}")
    assert asked == []
    assert sorted(p.name for p in Path().iterdir()) == ["clip.yuv", "run.toml"]


def test_presets_show_every_setting_and_what_was_measured():
    lines = [" ".join(line.split()) for line in invoke("presets").stdout.splitlines()]
    assert lines[0] == f"setting {' '.join(TABLE)}"
    values = " ".join(text(preset.warmup) for preset in TABLE.values())
    assert f"training.warmup {values}" in lines
    found = measurement()
    assert set(found.presets) <= set(TABLE)
    for figures in found.presets.values():
        assert f"{figures.seconds_per_frame:.1f}" in lines[-5]
        assert f"{figures.rate_bpp:.4f}" in lines[-4]
        assert f"{figures.psnr_db:.2f}" in lines[-3]
    assert found.clip in lines[-1]
    assert found.date in lines[-1]


HOW = "add --resume (in Python: resume=True)"


def in_terminal(command, cwd, interrupt_after=None):
    """(output, exit status) of a command in a terminal of its own; Ctrl-C once the output matches a pattern."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.environ |= {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        os.execv(sys.executable, [sys.executable, "-P", "-m", "coolvid_cli", *map(str, command)])
    text, deadline = "", time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    read = os.read(master, 65536)
                except OSError:
                    break
                text += read.decode(errors="replace")
                if not read:
                    break
            if interrupt_after and re.search(interrupt_after, text):
                os.write(master, b"\x03")
                interrupt_after = None
    finally:
        os.close(master)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return text, status


def test_control_c_in_a_terminal_says_how_to_go_on_and_that_works(tmp_path):
    options = ("--frames", 2, "--low-delay", "--preset", "fast", "--iterations", 6, "--threads", 1, "--no-verify")
    command = ("encode", ORBIT, "-o", "a.cvd", *options, "--csv", "a.csv", "--log", "a.jsonl")
    text, status = in_terminal(command, tmp_path, r"frame +0 I +\d+ bytes")
    assert status == 130, text
    said = " ".join(text[text.rindex("coolvid: interrupted") :].split())
    assert said == f"coolvid: interrupted; a.cvd.part holds 1 finished frame: {HOW}"
    assert "elapsed" in text
    assert "\x1b[?25h" in text  # the cursor is back

    text, status = in_terminal((*command, "--resume"), tmp_path)
    assert "kept from the interrupted run" in text
    log = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [log[0]["event"], log[-1]["event"]] == ["start", "summary"]
    assert {"interrupted", "frame_restored"} <= {record["event"] for record in log}
    assert status == 0

    coolvid.encode(ORBIT, tmp_path / "b.cvd", make_config([log[0]["config"]]))
    assert (tmp_path / "b.cvd").read_bytes() == (tmp_path / "a.cvd").read_bytes()
    sizes = [int(line.split(",")[4]) for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert sizes == [packet.n_bytes for packet in coolvid.read_info(tmp_path / "a.cvd").packets]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.cvd", "a.jsonl", "b.cvd"]
