"""The store of networks: what it keeps, what it lets go, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from coolvid.architecture import Architecture, FrameArchitecture, PluginRecord
from coolvid.coded import CodedModule
from coolvid.errors import StreamError
from coolvid.networks import STORED_FRAMES, FrameNetworks, NetworkStore, parameter_names, same_parameters
from coolvid.types import FrameType

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
    assert store.find(3, shape(FrameType.B)) is store.frames[-1]
    with pytest.raises(StreamError, match=r"frame 2; those of \[3, 4, 5, 6, 7, 8, 9, 10\] are kept"):
        store.find(2, shape(FrameType.B))


def test_an_intra_frame_makes_those_before_it_unreachable():
    store = NetworkStore([frame(0, FrameType.I), frame(4, FrameType.P), frame(8, FrameType.I)])
    assert [each.display_index for each in store.frames] == [8]
    store.add(frame(6))
    assert [each.display_index for each in store.frames] == [6, 8]


def test_another_architecture_is_refused():
    store = NetworkStore([frame(0, FrameType.P)])
    with pytest.raises(StreamError, match="another architecture"):
        store.find(0, shape(FrameType.B))


def module(**values):
    return CodedModule({name: np.array(each, np.int32) for name, each in values.items()}, 3, 5, (7,))


def test_modules_without_parameters_have_no_name():
    modules = {"residue": {"arm": module(a=[1]), "ifce": module()}, "motion": {"synthesis": module(b=[2])}}
    assert parameter_names(modules) == ("residue.arm", "motion.synthesis")


def test_equal_parameters():
    one = module(a=[1, 2], b=[3])
    assert same_parameters(one, replace(one, scales=(1,)))
    others = (module(a=[1, 2]), module(a=[1, 2], b=[4]), replace(one, weight_shift=4), replace(one, bias_shift=4))
    assert not any(same_parameters(one, other) for other in others)
