"""The test sequences: catalogue, generator and files tell the same story."""

import hashlib
import importlib.util
import sys
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from coolvid.media import open_source
from coolvid.metrics import psnr

FOLDER = Path(__file__).parent.parent / "sequences"
CATALOG = tomllib.loads((FOLDER / "catalog.toml").read_text())["sequence"]
NAMES = [Path(entry["file"]).name for entry in CATALOG]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("coolvid_test_generate", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_catalogue_generator_and_folder_list_the_same_files(generate):
    on_disk = sorted(path.name for path in (FOLDER / "tiny").iterdir())
    assert sorted(NAMES) == on_disk == sorted(sequence.file for sequence in generate.SEQUENCES)


def test_all_of_it_is_small():
    assert sum(entry["bytes"] for entry in CATALOG) < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_generating_again_gives_the_same_bytes(generate, name):
    sequence = next(s for s in generate.SEQUENCES if s.file == name)
    assert generate.content(sequence) == (FOLDER / "tiny" / name).read_bytes()


@pytest.mark.parametrize("entry", CATALOG, ids=NAMES)
def test_the_catalogue_tells_the_truth(entry):
    data = (FOLDER / entry["file"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
    with open_source(FOLDER / entry["file"]) as source:
        frames = list(source)
        described = (entry["width"], entry["height"], entry["pixel_format"], entry["bit_depth"])
        f = source.format
        assert (f.width, f.height, f.pixel_format.value, f.bit_depth) == described
        assert (source.fps, source.n_frames, len(frames)) == (Fraction(entry["fps"]), entry["frames"], entry["frames"])


@pytest.mark.parametrize("entry", [e for e in CATALOG if e["frames"] > 1], ids=lambda e: Path(e["file"]).name)
def test_frames_move_and_have_texture(entry):
    with open_source(FOLDER / entry["file"]) as source:
        first, second = next(source), next(source)
    assert 15 < psnr(first, second) < 40
    assert np.std(first.planes[0].astype(float) / first.format.peak) > 0.05


def test_sweep_moves_by_seven_and_three_pixels():
    with open_source(FOLDER / "tiny" / "sweep_112x64_25p_yuv420_8b.yuv") as source:
        first, second = (frame.planes[0].astype(int) for frame in (next(source), next(source)))
    assert np.abs(second[:-3, :-7] - first[3:, 7:]).max() <= 10
    assert np.abs(second - first).mean() > 3 * np.abs(second[:-3, :-7] - first[3:, 7:]).mean()
