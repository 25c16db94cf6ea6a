"""The main job through the front door: frames in, a file, and the same pictures out of a process of its own."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import coolvid
from coolvid import EncodeConfig, FrameType, PixelFormat, SourceSpec, StructureConfig, VideoFormat
from coolvid.bitstream.stream import StreamReader
from coolvid.errors import ConfigError, InputError, TrainingError
from coolvid.events import FrameDone, FrameRestored
from coolvid.settings import presets
from pictures import waves

WEAVE = Path(__file__).parents[1] / "sequences" / "tiny" / "weave_64x48_24p_yuv444_8b.yuv"
FAST = EncodeConfig(preset="fast", iterations=8, structure=StructureConfig(gop=2), threads=1)
VIDEOS = [
    (PixelFormat.YUV420, 8, 34, 50),
    (PixelFormat.YUV420, 8, 33, 19),
    (PixelFormat.YUV420, 10, 17, 35),
    (PixelFormat.YUV444, 8, 19, 33),
    (PixelFormat.YUV444, 10, 16, 21),
    (PixelFormat.RGB, 8, 21, 16),
    (PixelFormat.RGB, 10, 18, 23),
]


def moving(n_frames, pixel_format, bit_depth, height, width):
    return waves(VideoFormat(height, width, pixel_format, bit_depth), n_frames, grain=0.01)


def digest_elsewhere(path, threads):
    """What a fresh process decodes."""
    code = f"import coolvid; print(coolvid.digest({str(path)!r}, threads={threads}))"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("pixel_format, bit_depth, height, width", VIDEOS)
def test_i_p_and_b_frames_decode_to_the_encoders_pictures(tmp_path, pixel_format, bit_depth, height, width):
    path, seen = tmp_path / "out.cvd", []
    frames = moving(3, pixel_format, bit_depth, height, width)
    done = coolvid.encode_frames(frames, path, FAST, listen=seen.append)
    coded = [event for event in seen if isinstance(event, FrameDone)]
    assert [event.frame_type for event in coded] == [FrameType.I, FrameType.P, FrameType.B]
    assert done.n_bytes == path.stat().st_size >= sum(event.n_bytes for event in coded)
    assert all(sum(event.bits_by_part.values()) == 8 * event.n_bytes for event in coded)
    assert all(abs(event.psnr_db - event.float_psnr_db) < 0.05 for event in coded)
    assert {digest_elsewhere(path, threads) for threads in (1, 2)} == {done.digest}


def test_a_still_frame_is_a_copy_of_a_few_bytes(tmp_path):
    still, seen = moving(1, PixelFormat.YUV420, 8, 34, 50) * 5, []
    done = coolvid.encode_frames(
        still, tmp_path / "out.cvd", replace(FAST, structure=StructureConfig(gop=4)), listen=seen.append
    )
    coded = [event for event in seen if isinstance(event, FrameDone)]
    assert all(event.n_bytes <= 24 and event.iterations == 0 for event in coded[1:])
    assert all(packet.is_copy for packet in coolvid.read_info(tmp_path / "out.cvd").packets[1:])
    assert digest_elsewhere(tmp_path / "out.cvd", 2) == done.digest


def test_equal_seeds_give_equal_bytes_whatever_the_threads(tmp_path):
    frames = moving(2, PixelFormat.YUV420, 8, 24, 32)
    runs = {"one": FAST, "again": FAST, "two threads": replace(FAST, threads=2), "other seed": replace(FAST, seed=1)}
    made = {}
    for name, config in runs.items():
        coolvid.encode_frames(frames, tmp_path / "out.cvd", config)
        made[name] = (tmp_path / "out.cvd").read_bytes()
    assert made["one"] == made["again"] != made["other seed"]
    if coolvid.kernels.compiled is not None:
        assert made["one"] == made["two threads"]


@pytest.mark.parametrize(("large", "n_context"), [(10**9, 14), (1, 20)])
def test_networks_of_i_frames_are_as_large_as_the_first_picture_asks(tmp_path, monkeypatch, large, n_context):
    monkeypatch.setattr(presets, "SMALL", 0)
    monkeypatch.setattr(presets, "LARGE", large)
    seen = []
    frames = moving(2, PixelFormat.YUV420, 8, 18, 34)
    config = EncodeConfig(preset="slow", iterations=8, structure=StructureConfig(gop=1), threads=1)
    coolvid.encode_frames(frames, tmp_path / "out.cvd", config, listen=seen.append)
    (configuration,) = coolvid.read_info(tmp_path / "out.cvd").header.configurations
    assert configuration.residue.n_context == n_context
    assert seen[0].config == replace(config, intra={14: "hop", 20: "vhop"}[n_context])


def test_resuming_gives_the_bytes_of_an_encode_in_one_go(tmp_path):
    frames = moving(3, PixelFormat.YUV420, 8, 24, 32)
    whole, path = tmp_path / "whole.cvd", tmp_path / "out.cvd"
    coolvid.encode_frames(frames, whole, FAST)

    def interrupt(event):
        if isinstance(event, FrameDone) and event.coding_index == 0:  # a frame that was told of is kept
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coolvid.encode_frames(frames, path, FAST, listen=interrupt)
    assert not path.exists() and (tmp_path / "out.cvd.part").exists()
    done_again = []
    coolvid.encode_frames(frames, path, FAST, resume=True, listen=done_again.append)
    assert path.read_bytes() == whole.read_bytes()
    assert [e.coding_index for e in done_again if isinstance(e, FrameDone)] == [1, 2]
    with pytest.raises(InputError, match="nothing to resume"):
        coolvid.encode_frames(frames, path, FAST, resume=True)


def test_resuming_behind_a_copy_of_one_reference(tmp_path):
    first, last = moving(5, PixelFormat.YUV420, 8, 34, 50)[::4]
    config = replace(FAST, structure=StructureConfig(gop=4))
    whole, path, kept = tmp_path / "whole.cvd", tmp_path / "out.cvd", tmp_path / "out.cvd.part"
    frames = [first, first, first, last, last]
    coolvid.encode_frames(frames, whole, config)
    assert [info.references for info in coolvid.read_info(whole).packets[2:4]] == [(0, 0), (0, 2)]

    def interrupt(event):
        if isinstance(event, FrameDone) and event.coding_index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coolvid.encode_frames(frames, path, config, listen=interrupt)
    rest = kept.read_bytes()
    kept.write_bytes(rest + StreamReader(whole).read(4))  # without number 3
    with pytest.raises(InputError, match="holds other frames than these settings plan"):
        coolvid.encode_frames(frames, path, config, resume=True)
    kept.write_bytes(rest)
    told = []
    coolvid.encode_frames(frames, path, config, resume=True, listen=told.append)
    assert path.read_bytes() == whole.read_bytes()
    assert [event.references for event in told if isinstance(event, FrameRestored)] == [(), (0,), (0, 0)]


OTHER_RUNS = [
    (replace(FAST, lmbda=0.02), SourceSpec(), "lmbda 0.001 (now 0.02)"),
    (replace(FAST, seed=5), SourceSpec(), "seed 0 (now 5)"),
    (replace(FAST, training={"final": 3}), SourceSpec(), "training.final unset (now 3)"),
    (FAST, SourceSpec(start=1), "source.start 0 (now 1)"),
    (FAST, SourceSpec(crop=(32, 24, 0, 2)), "source.crop unset (now [32, 24, 0, 2])"),
]


@pytest.mark.parametrize("config, source_spec, told", OTHER_RUNS, ids=[told.split(" ")[0] for *_, told in OTHER_RUNS])
def test_resuming_with_other_settings_is_refused(tmp_path, config, source_spec, told):
    out, part = tmp_path / "out.cvd", tmp_path / "out.cvd.part"

    def interrupt(event):
        if isinstance(event, FrameDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coolvid.encode(WEAVE, out, replace(FAST, n_frames=2), listen=interrupt)
    kept = part.read_bytes()
    with pytest.raises(InputError, match=re.escape(told)):
        given = replace(config, n_frames=2, threads=2)
        coolvid.encode(WEAVE, out, given, resume=True, source_spec=source_spec)
    assert part.read_bytes() == kept
    (tmp_path / "out.cvd.part.toml").unlink()
    with pytest.raises(InputError, match="no readable"):
        coolvid.encode(WEAVE, out, replace(FAST, n_frames=2), resume=True)


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise TrainingError("the loss is nan")

    monkeypatch.setattr("coolvid.encoding.candidates.train_frame", diverge)
    with pytest.raises(TrainingError):
        coolvid.encode_frames(moving(1, PixelFormat.RGB, 8, 16, 16), tmp_path / "out.cvd", FAST)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_two_formats_are_refused(tmp_path):
    frames = moving(1, PixelFormat.RGB, 8, 16, 16) + moving(1, PixelFormat.RGB, 8, 16, 17)
    with pytest.raises(InputError, match="frame 1 is"):
        coolvid.encode_frames(frames, tmp_path / "out.cvd", FAST)
    with pytest.raises(InputError, match="no frames"):
        coolvid.encode_frames([], tmp_path / "out.cvd", FAST)


def test_a_device_that_is_not_here_is_refused(tmp_path):
    device = "cuda:99"
    with pytest.raises(ConfigError, match=f"cannot train on device '{device}'"):
        coolvid.encode_frames(moving(1, PixelFormat.RGB, 8, 16, 16), tmp_path / "out.cvd", replace(FAST, device=device))
    assert list(tmp_path.iterdir()) == []


def test_samples_beyond_the_bit_depth_are_refused(tmp_path):
    frame = moving(1, PixelFormat.RGB, 8, 16, 16)[0]
    frame.planes[1][3, 4] = 300
    with pytest.raises(ConfigError, match=r"frame 0 has a sample of 300; 8 bits hold 0\.\.255"):
        coolvid.encode_frames([frame], tmp_path / "out.cvd", FAST)
