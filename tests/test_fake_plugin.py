"""A third-party distribution works like the built-ins, from `coolvid plugins` to a decode that misses it; and what
docs/PLUGINS.md tells plugin authors runs as it stands there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

FAKE = Path(__file__).parent / "fake_plugin"
GUIDE = Path(__file__).parents[1] / "docs" / "PLUGINS.md"
WIDTH, HEIGHT, N_FRAMES = 48, 32, 2


def install(source: Path, site: Path) -> Path:
    """What pip would leave in `site` of the distribution in `source`: its modules and a .dist-info."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    shutil.copytree(source, site, ignore=shutil.ignore_patterns("__pycache__", "pyproject.toml"), dirs_exist_ok=True)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def run(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess:
    """python with these arguments, and `site` on its path."""
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    return subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, env=environment)


def coolvid(*arguments: object, site: Path | None = None) -> subprocess.CompletedProcess:
    return run("-c", "from coolvid_cli.main import main; main()", *map(str, arguments), site=site)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return install(FAKE, tmp_path_factory.mktemp("site"))


def write_clip(path: Path) -> Path:
    """A soft blob that moves by two pixels a frame, 4:2:0, 8 bits."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    blobs = (64 + 120 * np.exp(-((x - 20 - 2 * t) ** 2 + (y - 16) ** 2) / 60) for t in range(N_FRAMES))
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8).tobytes() * 2
    path.write_bytes(b"".join(blob.astype(np.uint8).tobytes() + chroma for blob in blobs))
    return path


@pytest.fixture(scope="module")
def stream(site: Path, tmp_path_factory) -> Path:
    """A stream that needs the fake synthesis."""
    folder = tmp_path_factory.mktemp("stream")
    clip = write_clip(folder / f"blob_{WIDTH}x{HEIGHT}_25p_yuv420_8b.yuv")
    plugins = ("--quantizer", "fake_sine:strength=0.8", "--synthesis", "fake_fold:width=4")
    effort = ("--preset", "fast", "--iterations", 10, "--frames", N_FRAMES, "--threads", 1)
    done = coolvid("encode", clip, "-o", folder / "blob.cvd", *plugins, *effort, site=site)
    assert done.returncode == 0, done.stderr
    return folder / "blob.cvd"


def test_plugins_lists_it(site):
    done = coolvid("plugins", site=site)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "fake" in line]
    assert sorted(words[:5] for words in lines) == [
        ["quantizer", "fake_sine", "coolvid_fake", "1.0", "1"],
        ["synthesis", "fake_fold", "coolvid_fake", "1.0", "3"],
    ]
    assert "fake" not in coolvid("plugins").stdout


CHECKS = """
from coolvid.testing import check
check("quantizer", "fake_sine", {"strength": "0.5"})
check("synthesis", "fake_fold", {"width": "4"})
check("synthesis", "fake_fold", {"absolute": "no"})
"""


def test_it_conforms(site):
    done = run("-W", "error", "-c", CHECKS, site=site)
    assert done.returncode == 0, done.stderr


def test_it_decodes_where_it_is_installed(site, stream, tmp_path):
    for name in ("first.yuv", "second.yuv"):
        done = coolvid("decode", stream, tmp_path / name, site=site)
        assert done.returncode == 0, done.stderr
    decoded = (tmp_path / "first.yuv").read_bytes()
    assert len(decoded) == N_FRAMES * HEIGHT * WIDTH * 3 // 2
    assert decoded == (tmp_path / "second.yuv").read_bytes()


def test_without_it_decoding_asks_for_it_by_name(stream, tmp_path):
    done = coolvid("decode", stream, tmp_path / "out.yuv")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "this stream needs the synthesis plugin 'fake_fold' (version 3), which is not installed" in done.stderr
    assert not list(tmp_path.iterdir())


def test_info_needs_no_plugin(stream):
    done = coolvid("info", stream)
    assert done.returncode == 0, done.stderr
    assert "fake_fold" in done.stdout


WRONG = [
    (("--synthesis", "fake_fold:width=0"), "width is 0; choose 1..64"),
    (("--quantizer", "fake_cosine"), "no quantizer named 'fake_cosine'"),
]


@pytest.mark.parametrize("options, message", WRONG, ids=[w[0][1] for w in WRONG])
def test_wrong_options_end_in_one_line(site, tmp_path, options, message):
    clip = write_clip(tmp_path / f"blob_{WIDTH}x{HEIGHT}_25p_yuv420_8b.yuv")
    done = coolvid("encode", clip, "-o", tmp_path / "out.cvd", "--preset", "fast", "-q", *options, site=site)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [clip]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_guide_for_authors_runs_as_written(tmp_path):
    """Blocks that start with `# file: NAME` are files, the toml block is their pyproject; the others run in order."""
    source = tmp_path / "source"
    source.mkdir()
    script = []
    for block in blocks("python"):
        name = re.match(r"# file: (\S+)\n", block)
        if name:
            (source / name[1]).write_text(block)
        else:
            script.append(block)
    (source / "pyproject.toml").write_text(*blocks("toml"))
    assert len(script) >= 3
    done = run("-W", "error", "-c", "\n".join(script), site=install(source, tmp_path / "site"))
    assert done.returncode == 0, done.stderr


def test_the_quantizer_of_the_guide_has_twenty_lines():
    (quantizer,) = (b for b in blocks("python") if b.startswith("# file: coolvid_arctan.py"))
    assert len([line for line in quantizer.splitlines()[1:] if line.strip()]) <= 20
