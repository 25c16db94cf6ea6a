"""What the machine or the user's shell may lack: one line and exit code 2, or work without it."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from coolvid_cli.main import main
from coolvid_cli.process import prepare

import coolvid
from coolvid import kernels
from coolvid.errors import ConfigError, InputError
from coolvid.settings.toml import parse_setting

STREAM = next((Path(__file__).parent / "golden").glob("*.cvd")).resolve()
DEEP = "[" * 5000 + "]" * 5000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="written for Linux")


def invoke(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def one_line(result):
    """The error that a command printed."""
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.exception
    (line,) = result.output.splitlines()
    return line.removeprefix("coolvid: error: ")


def coolvid_process(*args, redirect="", **environment):
    command = f'exec "$0" -P -m coolvid_cli "$@" {redirect}'
    given = ["sh", "-c", command, sys.executable, *map(str, args)]
    return subprocess.run(given, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


@pytest.mark.parametrize("name, lacks", [("v9", ()), ("v4", ("v4",)), ("AVX2", ())])
def test_a_set_of_kernels_that_is_not_here_is_refused_at_its_first_use(monkeypatch, name, lacks):
    found = tuple(each for each in kernels.available() if each not in lacks)
    monkeypatch.setattr(kernels, "available", lambda: found)
    monkeypatch.setenv("COOLVID_KERNELS", name)
    refused = kernels._load_wanted()
    with pytest.raises(ConfigError, match=f"no compiled kernels '{name}' here; set COOLVID_KERNELS to one of: .*none"):
        _ = refused.decode
    monkeypatch.setattr(kernels, "compiled", refused)
    with pytest.raises(ConfigError, match="no compiled kernels"):
        kernels.description()


FIRST_USE = """
import coolvid
for use in (lambda: coolvid.digest("{stream}"), lambda: coolvid.read_info("{stream}")):
    try:
        use()
    except coolvid.CoolvidError as error:
        print(error)
"""


def test_an_unknown_set_of_kernels_in_the_environment():
    done = coolvid_process("decode", STREAM, "--digest", COOLVID_KERNELS="v9")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("coolvid: error: no compiled kernels 'v9' here; set COOLVID_KERNELS to one of: ")
    script = FIRST_USE.format(stream=STREAM)
    environment = {**os.environ, "COOLVID_KERNELS": "v9"}
    output = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, env=environment)
    assert (output.stderr, output.stdout.count("no compiled kernels 'v9'")) == ("", 2)


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("redirect", CLOSED)
def test_closed_standard_streams_do_no_harm(tmp_path, redirect):
    out = tmp_path / "out.yuv"
    assert invoke("decode", STREAM, tmp_path / "expected.yuv").exit_code == 0
    done = coolvid_process("decode", STREAM, out, redirect=redirect)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert out.read_bytes() == (tmp_path / "expected.yuv").read_bytes()
    missing = coolvid_process("info", tmp_path / "none.cvd", redirect=redirect)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


def test_no_other_file_gets_the_number_of_a_closed_stream(tmp_path):
    script = f"""
import os, sys
from coolvid_cli.process import prepare
for number in (0, 1, 2):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
prepare()
file = open({str(tmp_path / "file")!r}, "w")
assert file.fileno() > 2
os.write(2, b"a message of a library")
print("a line", flush=True)
print("an error", file=sys.stderr, flush=True)
assert sys.stdin.read() == ""
file.write("content")
"""
    assert subprocess.run([sys.executable, "-P", "-c", script], timeout=60).returncode == 0
    assert (tmp_path / "file").read_text() == "content"


def test_open_streams_stay():
    before = sys.stdin, sys.stdout, sys.stderr, [os.fstat(n).st_ino for n in range(3)]
    prepare()
    assert before == (sys.stdin, sys.stdout, sys.stderr, [os.fstat(n).st_ino for n in range(3)])


def test_files_that_are_nested_too_deeply_are_one_line(tmp_path):
    for name, text in (("deep.toml", f"a = {DEEP}"), ("long.toml", f"seed = {'1' * 5000}"), ("deep.json", DEEP)):
        (tmp_path / name).write_text(text)
    source = tmp_path / "source_16x16_1p_yuv420_8b.yuv"
    source.write_bytes(bytes(384))
    assert "is not valid TOML: it is nested too deeply" in one_line(
        invoke("encode", source, "--config", tmp_path / "deep.toml")
    )
    assert "is not valid TOML" in one_line(invoke("encode", source, "--config", tmp_path / "long.toml"))
    compare = invoke("report", STREAM, "-o", tmp_path / "r.html", "--compare", tmp_path / "deep.json")
    assert "deep.json is not JSON (it is nested too deeply)" in one_line(compare)
    with pytest.raises(ConfigError, match="seed is"):
        parse_setting(f"seed={DEEP}")


@pytest.mark.parametrize("text", [DEEP, "5", "{}", json.dumps({"purpose": 1, "running": "", "trials": 3})])
def test_a_search_whose_record_is_damaged_is_not_resumed(tmp_path, text):
    source, out = tmp_path / "source_16x16_1p_yuv420_8b.yuv", tmp_path / "out.cvd"
    source.write_bytes(bytes(384))
    (tmp_path / "out.cvd.search").write_text(text)
    with pytest.raises(InputError, match="delete it to start again"):
        coolvid.encode_to_target(source, out, coolvid.Target("psnr", 30), resume=True)


def test_a_resume_with_a_damaged_note_is_refused(tmp_path):
    source, out = tmp_path / "source_16x16_1p_yuv420_8b.yuv", tmp_path / "out.cvd"
    source.write_bytes(bytes(384))
    (tmp_path / "out.cvd.part").write_bytes(STREAM.read_bytes())
    (tmp_path / "out.cvd.part.toml").write_text(f"a = {DEEP}")
    with pytest.raises(InputError, match=r"has no readable \.part\.toml"):
        coolvid.encode(source, out, coolvid.EncodeConfig(preset="fast"), resume=True)


def sparse(path, head=b""):
    """A file of 1 TB that takes no room."""
    path.write_bytes(head)
    os.truncate(path, 1 << 40)
    return path


@pytest.mark.parametrize("command", [("info",), ("decode", "--digest")])
def test_what_is_no_stream_is_one_line_in_bounded_memory(tmp_path, command):
    streams = {
        "/dev/zero": "this is not a coolvid stream: it starts with 00000000",
        tmp_path: "cannot read .*: Is a directory",
        sparse(tmp_path / "zeros"): "this is not a coolvid stream: it starts with 00000000",
        sparse(tmp_path / "huge", STREAM.read_bytes()): "is larger than any stream, 4294967296 bytes",
        "/dev/null": "this is not a coolvid stream: it starts with nothing",
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for stream, says in streams.items():
        assert re.search(says, one_line(invoke(command[0], stream, *command[1:]))), stream
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_stream_is_read_from_a_pipe(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "coolvid_cli", "decode", "/dev/stdin", "--digest"],
        input=STREAM.read_bytes(), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.decode().strip() == coolvid.digest(STREAM)


def test_a_source_without_end_is_one_line(tmp_path):
    out = tmp_path / "out.cvd"
    for source in ("/dev/zero", sparse(tmp_path / "zeros"), tmp_path):
        assert one_line(invoke("encode", source, "-o", out))
    assert not out.exists()


@pytest.mark.parametrize("device", ["meta", "cuda:99", "nonsense"])
@pytest.mark.parametrize("target", [(), ("--psnr", "30")])
def test_a_device_that_cannot_train_is_one_line_before_anything_else(tmp_path, device, target):
    source, out = tmp_path / "source_16x16_1p_yuv420_8b.yuv", tmp_path / "out.cvd"
    source.write_bytes(bytes(384))
    line = one_line(invoke("encode", source, "-o", out, "--device", device, *target))
    assert f"device '{device}'" in line or f"device is '{device}'" in line
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
