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
from coolvid.picture.quality import psnr
from coolvid.picture.types import PixelFormat, VideoFormat

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


# -- falling leaves -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaves():
    spec = importlib.util.spec_from_file_location("coolvid_test_leaves", FOLDER / "leaves.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("height, width", [(48, 64), (64, 32)])
def test_leaves_are_pictures_of_the_size_asked_for(leaves, height, width):
    (picture,) = leaves.scene(height, width, 3, (0,))
    assert picture.format == VideoFormat(height, width, PixelFormat.YUV420, 8)
    assert [plane.shape for plane in picture.planes] == list(picture.format.plane_shapes)
    y, *chroma = picture.planes
    assert 16 <= y.min() < y.max() <= 235 and np.std(y) > 15
    assert all(16 <= plane.min() < plane.max() <= 240 for plane in chroma)


def test_a_scene_of_leaves_is_its_seed(leaves):
    one, same, other = (leaves.scene(48, 64, seed, (0, 2)) for seed in (1, 1, 2))
    assert one == same
    assert all(psnr(a, b) < 20 for a, b in zip(one, other, strict=True))
    assert leaves.scene(48, 64, 1, (0,)) == one[:1]


def test_leaves_move_the_farther_the_later(leaves):
    start, *later = leaves.scene(64, 96, 5, (0, 1, 4))
    assert start != later[0]
    assert psnr(start, later[0]) > psnr(start, later[1]) + 1
    background = moved_by(start.planes[0].astype(int), later[1].planes[0].astype(int), 8)
    assert background != (0, 0)


def moved_by(before, after, reach):
    """The whole-pixel displacement (y, x) that explains the middle of the later picture best."""
    height, width = before.shape
    middle = after[reach : height - reach, reach : width - reach]
    steps = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]

    def difference(step):
        top, left = reach - step[0], reach - step[1]
        return np.abs(middle - before[top : top + height - 2 * reach, left : left + width - 2 * reach]).mean()

    return min(steps, key=difference)
