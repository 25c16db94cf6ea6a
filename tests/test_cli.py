"""The command line: options arrive, events become lines, errors become one line and an exit code."""

import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from coolvid_cli.main import COMMANDS, main

import coolvid
from coolvid import events
from coolvid.bitstream.packet import PacketInfo
from coolvid.bitstream.stream import StreamReader
from coolvid.codec.gop import StructureConfig
from coolvid.errors import ConfigError, InputError
from coolvid.picture.types import ColorInfo, DisplayInfo, FrameType, PixelFormat, VideoFormat
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.config import EncodeConfig

ROOT = Path(__file__).parents[1]
TINY = sorted((ROOT / "sequences" / "tiny").glob("*_yuv420_8b.yuv"))
FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
VERIFIED = "Verified: a separate `coolvid decode` reproduces the encoder's pictures exactly."


def invoke(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def run(*args, cwd):
    """The command in a process of its own."""
    code = "from coolvid_cli.main import main; main(prog_name='coolvid')"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the library; records what the command line asked for."""
    seen = SimpleNamespace()

    def encode(source, out, config, *, listen, **options):
        seen.encode, seen.options = (source, out, config), options
        listen(events.EncodeStarted(2, replace(config, intra="hop"), "pytorch"))
        listen(events.FrameStarted(0, 0, FrameType.I, (), 20))
        listen(events.Progress(0, "main", 10, 20, 0.5, 30.0, 0.25))
        listen(events.FrameDone(0, 0, FrameType.I, 300, {"header": 2400}, 31.5, iterations=20, duration_s=2.0))
        listen(events.FrameStarted(1, 1, FrameType.P, (0,), 20))
        listen(events.FrameDone(1, 1, FrameType.P, 84, {"header": 672}, 32.5, iterations=20, duration_s=2.0))
        return events.EncodeDone(2, 384, 31.97, 4.25, "abc", 1.0, 46080.0)

    def decode(path, out, *, frames=None, threads=0, max_pixels, listen):
        seen.decode, seen.frames = (path, out, threads), frames
        listen(events.DecodeStarted(2, 2))
        listen(events.FrameDecoded(0, FrameType.I, 0.01))
        listen(events.FrameDecoded(1, FrameType.P, 0.02))
        return 2

    bits = {"header": 80, "residue.latents": 800, "residue.arm": 160, "motion.latents": 40, "motion.synthesis": 20}
    header = SimpleNamespace(
        format=FORMAT, fps=Fraction(30), color=ColorInfo(), display=DisplayInfo(), n_frames=2, gop=8, intra_period=0,
        low_delay=False, configurations=StreamReader(ROOT / "tests" / "golden" / "orbit.cvd").header.configurations,
    )  # fmt: skip
    packet = PacketInfo(1, 1, FrameType.P, (0,), 138, bits, predictor=0)
    info = coolvid.StreamInfo(header, (packet,), 200)
    for name, stand_in in (
        ("encode", encode),
        ("decode", decode),
        ("digest", lambda path, frames=None, threads=0, max_pixels=0: "abc"),
        ("read_info", lambda path: info),
    ):
        monkeypatch.setattr(coolvid, name, stand_in, raising=False)
    monkeypatch.setattr("coolvid_cli.encode.decode_elsewhere", lambda stream: getattr(seen, "digest", "abc"))
    return seen


OPTIONS = [
    ("", {}),
    ("--lmbda 0.01 --preset fast --seed 7", {"lmbda": 0.01, "preset": "fast", "seed": 7}),
    ("--gop 4 --intra-period 12", {"structure": StructureConfig(gop=4, intra_period=12)}),
    ("--low-delay", {"structure": StructureConfig(low_delay=True)}),
    ("--intra-pos 0,-1 --p-pos 4", {"structure": StructureConfig(intra_pos=(0, -1), p_pos=(4,))}),
    ("--intra vhop --residue vlop --motion lop", {"intra": "vhop", "residue": "vlop", "motion": "lop"}),
    ("--iterations 12 --warp-filter-size 6", {"iterations": 12, "warp_filter_size": 6}),
    ("--no-inherit", {"inherit": False}),
    ("--inherit", {"inherit": True}),
    ("--quantizer ste", {"quantizer": PluginChoice("ste")}),
    ("--quantizer softround:noise=gaussian", {"quantizer": PluginChoice("softround", (("noise", "gaussian"),))}),
    ("--arm mlp --warper sinc", {"plugins": (("arm", PluginChoice("mlp")), ("warper", PluginChoice("sinc")))}),
    (
        "--upsampling separable --synthesis conv",
        {"plugins": (("upsampling", PluginChoice("separable")), ("synthesis", PluginChoice("conv")))},
    ),
    ("--distortion mse", {"distortion": PluginChoice("mse")}),
    ("--motion-estimator dis", {"motion_estimator": PluginChoice("dis")}),
    ("--common-randomness --threads 2 --device cuda", {"common_randomness": True, "threads": 2, "device": "cuda"}),
    ("--frames 3", {"n_frames": 3}),
]


@pytest.mark.parametrize("options, settings", OPTIONS)
def test_options_become_a_config(calls, options, settings):
    result = invoke("encode", "clip.yuv", *shlex.split(options))
    assert result.exit_code == 0, result.output
    assert calls.encode == (Path("clip.yuv"), Path("clip.cvd"), EncodeConfig(**settings))


def test_source_options_reach_the_library(calls):
    result = invoke(
        "encode", "a/b.yuv", "-o", "c.cvd", "--size", "48x32", "--fps", "30000/1001", "--pix-fmt", "yuv444p"
    )
    assert result.exit_code == 0, result.output
    assert calls.encode[:2] == (Path("a/b.yuv"), Path("c.cvd"))
    spec = coolvid.SourceSpec((48, 32), Fraction(30000, 1001), "yuv444p")
    assert calls.options == {"source_spec": spec, "resume": False}


def test_piped_encode_is_one_line_a_frame_and_a_summary(calls):
    assert invoke("encode", "clip.yuv").stdout.splitlines() == [
        "2 frames, I frames with hop, trained by pytorch",
        "frame    0 I      300 bytes   31.50 dB  20 iterations in 2.0 s",
        "frame    1 P       84 bytes   32.50 dB  20 iterations in 2.0 s",
        "clip.cvd: 2 frames, 384 bytes, 1.0000 bpp, 46.1 kbit/s, PSNR 31.97 dB, lambda 0.001, 4.2 s",
        VERIFIED,
    ]


def test_quiet_and_unverified_say_less(calls):
    assert invoke("encode", "clip.yuv", "--quiet").output == ""
    assert VERIFIED not in invoke("encode", "clip.yuv", "--no-verify").output


def test_a_stream_that_decodes_differently_is_an_error(calls):
    calls.digest = "something else"
    result = invoke("encode", "clip.yuv")
    assert result.exit_code == 2
    assert VERIFIED not in result.output
    assert "coolvid: error: clip.cvd does not decode to the encoder's pictures" in result.stderr


def test_decode_can_print_a_digest_instead(calls):
    assert invoke("decode", "in.cvd", "--digest").stdout == "abc\n"
    for mistake in ((), ("out.mp4", "--digest")):
        assert invoke("decode", "in.cvd", *mistake).exit_code == 2


def test_decode_says_a_line_a_frame(calls):
    result = invoke("decode", "in.cvd", "out.mp4", "--threads", 3)
    assert calls.decode == (Path("in.cvd"), Path("out.mp4"), 3)
    assert result.stdout.splitlines() == [
        "frame    0 I  decoded in 0.010 s",
        "frame    1 P  decoded in 0.020 s",
        "out.mp4: 2 frames",
    ]


def test_info_shows_header_frames_and_parts(calls):
    lines = [" ".join(line.split()) for line in invoke("info", "in.cvd").stdout.splitlines()]
    for expected in (
        "size 48x32",
        "pixels yuv420, 8 bit",
        "structure gop 8, intra period none",
        "frames 1 of 2",
        "memory about 50 MB to decode",
        "frame type from networks from bytes header residue latents motion latents networks",
        "1 P 0 0 138 80 800 40 180",
        "residue.latents 800 72.7%",
    ):
        assert expected in lines


SOURCES_OF_NETWORKS = [
    (FrameType.I, (), None, False, "0 I - - 12 96"),
    (FrameType.I, (), -1, False, "0 I - prior 12 96"),
    (FrameType.B, (3, 0), None, False, "0 B 3,0 - 12 96"),
    (FrameType.B, (3, 0), 3, False, "0 B 3,0 3 12 96"),
    (FrameType.B, (3, 3), 3, False, "0 B 3,3 3 12 96"),
    (FrameType.B, (3, 0), None, True, "0 B 3,0 copy 12 96"),
    (FrameType.B, (3, 3), None, True, "0 B 3 copy 12 96"),
]


@pytest.mark.parametrize("frame_type, references, predictor, is_copy, row", SOURCES_OF_NETWORKS)
def test_info_says_where_networks_come_from(calls, monkeypatch, frame_type, references, predictor, is_copy, row):
    packet = PacketInfo(0, 0, frame_type, references, 12, {"header": 96}, predictor, is_copy)
    header = coolvid.read_info("in.cvd").header
    monkeypatch.setattr(coolvid, "read_info", lambda path: coolvid.StreamInfo(header, (packet,), 20))
    lines = [" ".join(line.split()) for line in invoke("info", "in.cvd").stdout.splitlines()]
    assert f"{row} 0" in lines


def test_plugins_lists_every_built_in_kind():
    lines = invoke("plugins").stdout.splitlines()
    rows = {tuple(line.split()[:2]): line for line in lines[1:]}
    assert lines[-1].startswith("Inner loops run in ")
    for kind, name, needed in (
        ("arm", "mlp", "yes"),
        ("upsampling", "separable", "yes"),
        ("synthesis", "conv", "yes"),
        ("warper", "sinc", "yes"),
        ("quantizer", "softround", "no"),
        ("distortion", "mse", "no"),
        ("motion", "block_matching", "no"),
    ):
        assert f" {needed} " in rows[kind, name]


MISTAKES = [
    ("encode clip.yuv --gop 0", "gop is 0; choose 1..4096"),
    ("encode clip.yuv --gop 4 --intra-period 6", "intra_period 6 is not a multiple of gop 4"),
    ("encode clip.yuv --lmbda nan", "lmbda is nan"),
    ("encode clip.yuv --size 48", "cannot read size '48'; write WIDTHxHEIGHT"),
    ("encode clip.yuv --fps 0", "cannot read frame rate '0'"),
    ("encode clip.yuv --fps 1/0", "cannot read frame rate '1/0'"),
    ("encode clip.yuv --intra-pos 0,x", "cannot read positions '0,x'"),
    ("encode clip.yuv --quantizer soft:round", "cannot read plugin choice 'soft:round'"),
    ("encode setup.cvd -o setup.cvd", "the output 'setup.cvd' is the input file"),
    ("encode setup.cvd.part -o setup.cvd", "the output 'setup.cvd.part' is the input file"),
    ("encode clip.yuv --log clip.cvd.part", "two outputs have the name 'clip.cvd.part'"),
    ("encode clip.yuv --csv clip.cvd.part.toml", "two outputs have the name 'clip.cvd.part.toml'"),
    ("encode clip.yuv -o none/clip.cvd", "cannot write none/clip.cvd: the folder none does not exist"),
    ("encode clip.yuv -o .", "cannot write .: it is a folder"),
    ("encode clip.yuv --log none/run.jsonl", "cannot write none/run.jsonl: the folder none does not exist"),
    ("encode clip.yuv --csv none/run.csv", "cannot write none/run.csv: the folder none does not exist"),
    ("encode clip.yuv --write-config none/a.toml", "cannot write none/a.toml: the folder none does not exist"),
]


@pytest.mark.parametrize("command, message", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(calls, command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("setup.cvd", "setup.cvd.part"):
        Path(name).touch()
    result = invoke(*shlex.split(command))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"coolvid: error: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command, out",
    [
        ("decode a.cvd a.cvd", "a.cvd"),
        ("decode a_0001.png a.png", "a_%d.png"),
        ("decode a_0001.png a_%04d.png", "a_%04d.png"),
        ("decode b.y4m.part b.y4m", "b.y4m.part"),
        ("review a.cvd --source b.mp4 -o b.mp4", "b.mp4"),
        ("review a_0001.png --source b.mp4 -o a.png", "a_%d.png"),
        ("report a.cvd --source b.mp4 -o b.mp4", "b.mp4"),
        ("compare c/comparison.png -o c", "c/comparison.png"),
    ],
)
def test_what_is_read_is_never_written(command, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c").mkdir()
    for name in ("a.cvd", "a_0001.png", "b.y4m.part", "b.mp4", "c/comparison.png"):
        Path(name).write_bytes(b"content")
    result = invoke(*shlex.split(command))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"coolvid: error: the output '{out}' is the input file; choose another name\n"
    assert all(path.read_bytes() == b"content" for path in tmp_path.rglob("*.*"))


@pytest.mark.parametrize("args", [["--debug", "encode", "clip.yuv"], ["encode", "clip.yuv", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(calls, monkeypatch, args):
    monkeypatch.setattr(coolvid, "encode", raising(InputError("no such\nfile")))
    result = invoke(*args)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("coolvid: error: no such file\n")


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_an_interruption_is_a_line_and_exit_code_130(calls, monkeypatch):
    monkeypatch.setattr(coolvid, "encode", raising(KeyboardInterrupt()))
    result = invoke("encode", "clip.yuv")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.startswith("coolvid: interrupted")


def test_a_full_disk_is_no_traceback(calls, monkeypatch):
    monkeypatch.setattr(coolvid, "encode", raising(OSError(28, "No space left on device")))
    result = invoke("encode", "clip.yuv")
    assert result.exit_code == 2
    assert result.stderr == "coolvid: error: [Errno 28] No space left on device\n"


def test_our_own_mistakes_are_not_hidden(calls, monkeypatch):
    monkeypatch.setattr(coolvid, "encode", raising(AssertionError("a bug")))
    assert isinstance(invoke("encode", "clip.yuv").exception, AssertionError)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_and_knows_debug(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "--debug" in result.output


def test_unknown_command_is_a_usage_error():
    result = invoke("encoed")
    assert result.exit_code == 2
    assert "encoed" in result.stderr


@pytest.mark.parametrize("args", ["['--help']", "['--version']", "['info', 'none.cvd']", "['encode', '--help']"])
def test_light_commands_do_not_load_torch(args):
    code = f"""
import sys
from coolvid_cli.main import main
try:
    main({args})
except SystemExit:
    print("torch loaded:", "torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.endswith("torch loaded: False\n"), result


def test_missing_source_is_one_line_in_a_process_too(tmp_path):
    result = run("encode", "none_48x32_30p_yuv420_8b.yuv", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("coolvid: error: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(100)], ids=["empty", "garbage", "zeros"])
def test_what_is_no_stream_is_one_line(tmp_path, content):
    (tmp_path / "bad.cvd").write_bytes(content)
    for args in (["info", "bad.cvd"], ["decode", "bad.cvd", "out.yuv"]):
        result = run(*args, cwd=tmp_path)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
        assert result.stderr.startswith("coolvid: error: ")
    assert not (tmp_path / "out.yuv").exists()


@pytest.mark.parametrize("n", [0, 1, 500])
def test_appended_bytes_are_shown_and_refused_with_strict(tmp_path, monkeypatch, n):
    monkeypatch.chdir(tmp_path)
    golden = ROOT / "tests" / "golden" / "orbit.cvd"
    Path("a.cvd").write_bytes(golden.read_bytes() + b"x" * n)
    shown = invoke("info", "a.cvd")
    assert (f"appended {n} bytes after the stream" in " ".join(shown.stdout.split())) == (n > 0)
    assert coolvid.read_info("a.cvd").n_appended == n
    for command in (["info", "a.cvd"], ["decode", "a.cvd", "--digest"], ["decode", "a.cvd", "b.y4m", "-q"]):
        assert invoke(*command).exit_code == 0
        Path("b.y4m").unlink(missing_ok=True)
        result = invoke(*command, "--strict")
        assert (result.exit_code, Path("b.y4m").exists()) == ((0, "b.y4m" in command) if n == 0 else (2, False))
        assert ("a.cvd has" in result.stderr) == (n > 0) == (result.stderr.count("\n") == 1)


def test_settings_can_be_written_to_a_device(calls):
    result = invoke("encode", "clip.yuv", "--write-config", "/dev/null", "--log", "/dev/null", "--csv", "/dev/null")
    assert result.exit_code == 0, result.output
    assert Path("/dev/null").is_char_device()


def test_tiny_sequence_there_and_back(tmp_path):
    """encode, info, decode of a shipped sequence, as in the README."""
    source = TINY[0]
    encoded = run(
        *("encode", source, "-o", "out.cvd", "--frames", 3, "--gop", 2),
        *("--preset", "fast", "--iterations", 12, "--threads", 1),
        cwd=tmp_path,
    )
    assert encoded.returncode == 0, encoded.stderr
    lines = encoded.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [["frame", "0", "I"], ["frame", "2", "P"], ["frame", "1", "B"]]
    assert lines[-1] == VERIFIED
    assert run("info", "out.cvd", cwd=tmp_path).returncode == 0
    decoded = run("decode", "out.cvd", "out.yuv", cwd=tmp_path)
    assert decoded.returncode == 0, decoded.stderr
    width, height = map(int, source.stem.split("_")[-4].split("x"))
    assert (tmp_path / "out.yuv").stat().st_size == 3 * (width * height + 2 * (-(-width // 2)) * (-(-height // 2)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.cvd", "out.yuv"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_encode_leaves_no_stream(tmp_path, ending):
    """As with Ctrl-C, in the middle of training."""
    code = "from coolvid_cli.main import main; main(prog_name='coolvid')"
    command = [
        sys.executable,
        "-P",
        "-c",
        code,
        "encode",
        str(TINY[0]),
        "-o",
        "out.cvd",
        "--preset",
        "slow",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not (tmp_path / "out.cvd.part").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(ending)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr == "coolvid: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_option_parsers_reject_by_name():
    from coolvid_cli.options import parse_positions, parse_size

    assert (parse_size("352x288"), parse_positions("0,-1")) == ((352, 288), (0, -1))
    for parse, text in ((parse_size, "x"), (parse_size, "1x"), (parse_positions, "1,,2")):
        with pytest.raises(ConfigError, match=text):
            parse(text)


def test_settings_that_are_read_are_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'preset = "fast"\n'
    Path("c.toml").write_text(text)
    shutil.copy(TINY[0], tmp_path)
    for option in ("--log", "--csv", "-o", "--write-config"):
        result = invoke("encode", TINY[0].name, "--config", "c.toml", option, "c.toml")
        assert result.exit_code == 2 and "is the input file" in result.stderr, option
    assert Path("c.toml").read_text() == text


def test_an_empty_argument_names_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("encode", "", "-o", "x.cvd")
    assert result.exit_code == 2 and "an argument is empty" in result.stderr


def test_a_stream_on_standard_output_has_no_text_in_it(tmp_path):
    options = ("--frames", "1", "--preset", "fast", "--iterations", "2", "--threads", "1")
    command = [sys.executable, "-P", "-m", "coolvid_cli", "encode", str(TINY[0]), "-o", "/dev/stdout", *options]
    for where in ("file", "pipe"):
        if where == "file":
            with (tmp_path / "out.cvd").open("wb") as file:
                subprocess.run(command, stdout=file, check=True, timeout=120)
        else:
            (tmp_path / "out.cvd").write_bytes(subprocess.check_output(command, timeout=120))
        info = coolvid.read_info(tmp_path / "out.cvd")
        assert (len(info.packets), info.n_appended) == (1, 0)
