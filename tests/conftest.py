"""What every test starts with: torch on one thread, for tensors are tiny and threads would only wait for each other;
kernels on all."""

import pytest
import torch

from coolvid import kernels


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def threads_as_before():
    yield
    torch.set_num_threads(1)
    kernels.set_threads(0)
