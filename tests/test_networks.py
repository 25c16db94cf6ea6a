"""The store of networks: what it keeps, what it lets go, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from coolvid.codec.architecture import Architecture, FrameArchitecture, PluginRecord
from coolvid.codec.coded_frame import CodedModule, TensorSpec
from coolvid.codec.networks import PRIOR, STORED_FRAMES, FrameNetworks, NetworkStore, fits, fitted, same_parameters
from coolvid.codec.prior import prior_modules
from coolvid.errors import StreamError
from coolvid.picture.types import FrameType

PLAIN = PluginRecord("plain", 1)


def shape(frame_type):
    def branch(n_out):
        return Architecture((0, 2), None, None, 0, 3, False, "bicubic", n_out, PLAIN, PLAIN, PLAIN)

    if frame_type is FrameType.I:
        return FrameArchitecture(frame_type, branch(frame_type.n_residue), None, None)
    return FrameArchitecture(frame_type, branch(frame_type.n_residue), branch(frame_type.n_motion), PLAIN)


def frame(index, frame_type=FrameType.B):
    return FrameNetworks(index, shape(frame_type), {})


def test_the_frames_coded_last_are_kept():
    store = NetworkStore(frame(i) for i in range(STORED_FRAMES + 3))
    assert [each.display_index for each in store.frames] == [*range(STORED_FRAMES + 2, 2, -1)]
    assert store.find(3, shape(FrameType.B)) is store.find(3, shape(FrameType.P)) is store.frames[-1]
    with pytest.raises(StreamError, match=r"frame 2; those of \[3, 4, 5, 6, 7, 8, 9, 10\] are kept"):
        store.find(2, shape(FrameType.B))


def test_the_prior_is_for_intra_frames_whatever_is_kept():
    for store in (NetworkStore(), NetworkStore([frame(0, FrameType.I)])):
        found = store.find(PRIOR, shape(FrameType.I))
        assert (found.display_index, found.architecture) == (PRIOR, shape(FrameType.I))
        assert found.modules == {"residue": prior_modules()}
        with pytest.raises(StreamError, match="frame -1"):
            store.find(PRIOR, shape(FrameType.P))


def test_an_intra_frame_makes_those_before_it_unreachable():
    store = NetworkStore([frame(0, FrameType.I), frame(4, FrameType.P), frame(8, FrameType.I)])
    assert [each.display_index for each in store.frames] == [8]
    store.add(frame(6))
    assert [each.display_index for each in store.frames] == [6, 8]


def module(**values):
    return CodedModule({name: np.array(each, np.int32) for name, each in values.items()}, 3, 5, (7,))


def test_equal_parameters():
    one = module(a=[1, 2], b=[3])
    assert same_parameters(one, replace(one, scales=(1,)))
    others = (module(a=[1, 2]), module(a=[1, 2], b=[4]), replace(one, weight_shift=4), replace(one, bias_shift=4))
    assert not any(same_parameters(one, other) for other in others)


def test_modules_are_fitted_to_other_shapes_from_their_first_corner_on():
    own = module(a=[[1, 2, 3], [4, 5, 6]], b=[7, 8], c=[9])
    same = (TensorSpec("a", (2, 3)), TensorSpec("b", (2,)), TensorSpec("c", (1,)))
    assert fits(own, same) and fitted(own, same) is own
    other = (TensorSpec("a", (3, 2)), TensorSpec("b", (1,)), TensorSpec("c", (1, 1)), TensorSpec("new", (2,)))
    found = fitted(own, other)
    assert not fits(own, other) and not fits(own, same[:2]) and not fits(None, same)
    assert {name: values.tolist() for name, values in found.parameters.items()} == {
        "a": [[1, 2], [4, 5], [0, 0]], "b": [7], "c": [[0]], "new": [0, 0]}  # fmt: skip
    assert (found.weight_shift, found.bias_shift, found.scales) == (3, 5, (7,))
    assert fitted(own, (TensorSpec("new", (2,)),)) is None and fitted(None, same) is None
