"""Calls in several threads of one process: each gives what it gives alone, and leaves the process as it was."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import coolvid
from coolvid import EncodeConfig, FrameType, PixelFormat, StructureConfig, VideoFormat, encode_frames, kernels
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.noise import seeded
from coolvid.encoding.threads import use_threads
from coolvid.encoding.training.loop import Counters
from coolvid.encoding.training.train import train
from coolvid.settings.presets import frame_config
from pictures import noise

N_THREADS = 4
LATELY = 60
TINY = {"preset": "fast", "iterations": 1, "intra": "lop", "training": {"warmup": ((1, 1),), "latent_rdo_rounds": 1}}
LARGER = {"preset": "medium", "iterations": 40, "structure": StructureConfig(gop=2)}


def at_once(calls):
    """The results of calls that start together, each in its own thread."""
    gate = threading.Barrier(len(calls))

    def run(call):
        gate.wait(LATELY)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def encodes(folder, name, size, n_frames, settings):
    """Four encodes that differ in pictures, settings and threads; two have the same kernels."""
    format = VideoFormat(*size, PixelFormat.YUV420, 8)

    def call(k):
        frames = noise(format, n_frames, seed=k)
        config = EncodeConfig(**settings, seed=k, threads=1 + k % 3, lmbda=1e-3 * (1 + k // 2))
        return lambda: encode_frames(frames, folder / f"{name}-{k}.cvd", config).digest

    return [call(k) for k in range(N_THREADS)]


def test_encodes_in_threads_give_what_they_give_alone(tmp_path):
    alone = [call() for call in encodes(tmp_path, "alone", (16, 16), 1, TINY)]
    assert len(set(alone)) == N_THREADS
    for run in range(10):
        assert at_once(encodes(tmp_path, run, (16, 16), 1, TINY)) == alone
    for k in range(N_THREADS):
        assert (tmp_path / f"9-{k}.cvd").read_bytes() == (tmp_path / f"alone-{k}.cvd").read_bytes()
    decodes = [lambda k=k: coolvid.digest(tmp_path / f"9-{k}.cvd", threads=2) for k in range(N_THREADS)]
    assert at_once(decodes) == alone


def test_trainings_in_threads_give_what_they_give_alone():
    """Of B frames, so with all kernels: forward and backward of four models of two shapes take turns."""
    format = VideoFormat(32, 48, PixelFormat.YUV420, 8)
    past, frame, future = noise(format)

    def training(k):
        points = {"residue": "lop", "motion": "lop"} if k % 2 else {"residue": "mop", "motion": "mop"}
        config = frame_config(EncodeConfig(**points), FrameType.B, 2, (32, 48))

        def call():
            encoder = FrameEncoder(config, frame, (past, future), seed=k)
            train(encoder, frame, Counters(), 1e-3, max_iterations=4, frequency_validation=2)
            return float(sum(value.double().sum() for value in encoder.get_param().values()))

        return call

    trainings = [training(k) for k in range(N_THREADS)]
    alone = [call() for call in trainings]
    for _ in range(10):
        assert at_once(trainings) == alone


@pytest.mark.slow
def test_larger_encodes_in_threads_give_what_they_give_alone(tmp_path):
    alone = [call() for call in encodes(tmp_path, "alone", (96, 144), 3, LARGER)]
    for run in range(10):
        assert at_once(encodes(tmp_path, run, (96, 144), 3, LARGER)) == alone


def test_threads_and_random_numbers_of_the_process_stay(tmp_path):
    before = torch.get_num_threads(), kernels.threads(), torch.get_rng_state(), dict(os.environ)
    torch.set_num_threads(3)
    encodes(tmp_path, "one", (16, 16), 1, TINY)[0]()
    assert torch.get_num_threads() == 3
    at_once(encodes(tmp_path, "many", (16, 16), 1, TINY))
    fresh = at_once([torch.get_num_threads])
    torch.set_num_threads(before[0])
    assert fresh == [3] and kernels.threads() == before[1] and dict(os.environ) == before[3]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_block_sets_the_threads_of_its_own_python_thread():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with use_threads(3):
            inside.set()
            leave.wait(LATELY)
            return kernels.threads()

    here = kernels.threads()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(other)
        inside.wait(LATELY)
        assert kernels.threads() == here
        with use_threads(5), use_threads():
            assert kernels.threads() == 5
        leave.set()
        assert found.result() == 3


def test_kernel_objects_belong_to_a_thread_and_a_block():
    made = kernels.kept(lambda size: np.zeros(size))
    with kernels.using(1):
        mine = made(4)
        assert made(4) is mine and made(5) is not mine
        assert at_once([lambda: made(4)])[0] is not mine
        with kernels.using(None):
            assert kernels.threads() == 1 and made(4) is not mine
        assert made(4) is mine


def test_one_thread_at_a_time_draws_parameters():
    def draw(seed):
        with seeded(seed):
            return [float(torch.rand(())) for _ in range(200)]

    alone = [draw(seed) for seed in range(N_THREADS)]
    assert at_once([lambda seed=seed: draw(seed) for seed in range(N_THREADS)]) == alone


FEWER = """
import os, resource
import numpy as np
from coolvid.kernels import compiled
picture = np.arange(3 * 64 * 4096, dtype=np.float32)
expected = compiled.squared_error(picture, picture + 1, 1)[0]
if os.getuid() == 0:  # no limit holds for root
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
print(compiled.squared_error(picture, picture + 1, 64)[0] == expected)
"""


@pytest.mark.skipif(kernels.compiled is None or sys.platform != "linux", reason="for compiled kernels on Linux")
def test_a_pool_works_with_the_threads_that_start():
    run = subprocess.run([sys.executable, "-P", "-c", FEWER], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True\n", "")
