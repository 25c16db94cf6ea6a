"""What plugins return is checked at the first call, in one line that names them."""

import numpy as np
import pytest
import torch

from coolvid.errors import PluginError
from coolvid.plugin.contract import check_integers, check_tensor

GOOD = torch.ones(1, 3, requires_grad=True)
BROKEN = [
    (0.5, "returns a float; expected a tensor [1, 3] (see"),
    (GOOD[0], "returns a tensor [3]; expected a tensor [1, 3] (see"),
    (torch.ones(1, 3, dtype=torch.int32), "returns a tensor of torch.int32; expected one of floating-point numbers"),
    (GOOD.detach(), "returns a detached tensor; expected one that autograd can differentiate"),
    (GOOD * torch.tensor([1.0, torch.nan, torch.inf]), "returns 2 of 3 values that are not finite"),
]


@pytest.mark.parametrize("value, message", BROKEN)
def test_a_tensor_that_breaks_the_contract(value, message):
    with pytest.raises(PluginError) as caught:
        check_tensor("synthesis", "mine", value, (1, 3), needs_grad=True)
    assert str(caught.value).startswith(f"synthesis 'mine' {message}") and "\n" not in str(caught.value)


def test_a_tensor_that_keeps_it():
    check_tensor("synthesis", "mine", GOOD, (1, 3), needs_grad=True)
    check_tensor("synthesis", "mine", GOOD.detach(), (1, 3))
    check_tensor("distortion", "mine", GOOD.sum(), (), needs_grad=True)
    with pytest.raises(PluginError, match=r"returns a tensor \[1, 3\]; expected a scalar tensor"):
        check_tensor("distortion", "mine", GOOD, ())


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], "returns a list"),
        (np.ones(3, np.int32), "returns an array [3]; expected an integer array [2]"),
        (np.ones(2), "returns an array of float64"),
    ],
)
def test_integers_that_break_the_contract(value, message):
    with pytest.raises(PluginError) as caught:
        check_integers("arm", "mine", value, (2,))
    assert str(caught.value).startswith(f"arm 'mine' {message}")
    check_integers("arm", "mine", np.ones(2, np.int32), (2,))
