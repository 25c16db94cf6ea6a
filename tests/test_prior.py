"""The prior: the shipped file is the one of this format, another is refused, and packing is the inverse of reading."""

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest

from coolvid import EncodeConfig, FrameType
from coolvid.bitstream.weights import module_bits
from coolvid.codec import prior
from coolvid.codec.coded_frame import MAX_PARAMETER, MODULES, CodedModule
from coolvid.codec.networks import fits
from coolvid.codec.prior import pack_prior, prior_modules
from coolvid.errors import UnsupportedStream
from coolvid.settings.presets import frame_config

FILE = Path(prior.__file__).with_name("prior.npz")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """install(data): as if these bytes were the installed file."""

    def install(data):
        (tmp_path / "prior.npz").write_bytes(data)
        monkeypatch.setattr(prior, "_FILE", tmp_path / "prior.npz")
        prior_modules.cache_clear()

    yield install
    prior_modules.cache_clear()


def test_the_shipped_file_is_the_one_of_this_format():
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == prior._SHA256
    assert set(prior_modules()) == set(MODULES)
    assert prior_modules() is prior_modules()


def test_modules_are_what_a_stream_can_carry():
    for name, module in prior_modules().items():
        assert 0 <= module.weight_shift < 32 and 0 <= module.bias_shift < 32
        assert all(0 <= scale < 16 for scale in module.scales)
        assert all(type(each) is int for each in (module.weight_shift, module.bias_shift, *module.scales))
        for values in module.parameters.values():
            assert values.dtype == np.int32 and np.abs(values).max() <= MAX_PARAMETER, name


def test_it_has_the_shapes_of_the_networks_of_small_pictures():
    from coolvid.encoding.model.frame_encoder import FrameEncoder
    from coolvid.picture.types import PixelFormat, VideoFormat

    config = frame_config(EncodeConfig(intra="mop"), FrameType.I, 0, (64, 64))
    encoder = FrameEncoder(config, VideoFormat(64, 64, PixelFormat.YUV420, 8))
    tensors = encoder.branches["residue"].tensors
    assert all(fits(prior_modules()[name], specs) for name, specs in tensors.items())
    assert sum(module_bits("arm", prior_modules()["arm"], tensors["arm"]).values()) > 1000  # not zeros


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_another_byte_is_another_format(installed, position):
    data = bytearray(FILE.read_bytes())
    data[position] ^= 1
    installed(bytes(data))
    with pytest.raises(UnsupportedStream, match=r"prior\.npz is not the prior of this stream format; install coolvid"):
        prior_modules()


def test_packing_is_the_inverse_of_reading(installed, tmp_path, monkeypatch):
    modules = {
        "arm": CodedModule(
            {"w.0": np.array([[1, -MAX_PARAMETER]], np.int32), "b": np.array([7], np.int32)}, 8, 31, (15,)
        ),
        "ifce": CodedModule({}, 0, 0, ()),
        "synthesis": CodedModule({"w": np.zeros((2, 1, 3, 3), np.int32)}, 1, 2, (3, 4, 5)),
    }
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file in files:
        np.savez_compressed(file, **pack_prior(modules))
    data = files[0].read_bytes()
    assert data == files[1].read_bytes()
    monkeypatch.setattr(prior, "_SHA256", hashlib.sha256(data).hexdigest())
    installed(data)
    found = prior_modules()
    assert list(found) == list(modules)
    for name, module in modules.items():
        other = found[name]
        assert (other.weight_shift, other.bias_shift, other.scales) == (
            module.weight_shift, module.bias_shift, module.scales)  # fmt: skip
        assert list(other.parameters) == list(module.parameters)
        for key, values in module.parameters.items():
            assert other.parameters[key].dtype == np.int32 and np.array_equal(other.parameters[key], values)


def test_the_shipped_file_is_what_packing_its_modules_gives():
    with np.load(FILE, allow_pickle=False) as file:
        arrays = dict(file)
    again = pack_prior(prior_modules())
    assert list(again) == list(arrays)
    assert all(
        np.array_equal(again[name], values) and again[name].dtype == values.dtype for name, values in arrays.items()
    )


def test_the_file_is_shipped():
    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["coolvid"]
    shipped = {path for pattern in listed for path in (root / "coolvid").glob(pattern)}
    data = {
        path for path in (root / "coolvid").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "kernels" not in path.parts and path.suffix != ".py"
    }  # fmt: skip
    assert FILE.name in {path.name for path in shipped} and shipped == data
