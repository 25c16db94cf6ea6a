"""What every test starts with: torch on one thread, for tensors are tiny and threads would only wait for each other;
kernels on all. Ctrl-C works in child processes, which inherit that it is ignored where a script runs pytest with &."""

import signal

import pytest
import torch
from distortions import install

from coolvid import kernels
from coolvid.plugin import registry

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def threads_as_before():
    with kernels.using(0):
        yield
    torch.set_num_threads(1)


@pytest.fixture
def other_distortions(tmp_path_factory, monkeypatch):
    """The distortions of distortions.py, known by name."""
    install(tmp_path_factory.mktemp("distortions"), monkeypatch)
    yield
    monkeypatch.undo()
    registry.refresh()
