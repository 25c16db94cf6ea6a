"""A frame's encode is a pure job: it can be pickled, and the order of jobs does not change the bytes."""

import pickle
from fractions import Fraction

import pytest

from coolvid import EncodeConfig, FrameType, PixelFormat, StructureConfig, VideoFormat
from coolvid.bitstream.headers import StreamHeader
from coolvid.codec.gop import plan
from coolvid.encoding.candidates import encode_frame
from coolvid.encoding.manager import FrameEncoderManager
from coolvid.picture.types import ColorInfo
from coolvid.settings.config import frame_architecture
from coolvid.settings.presets import frame_configs
from pictures import waves

FORMAT = VideoFormat(32, 48, PixelFormat.YUV420, 8)
N_FRAMES = 9
CONFIG = EncodeConfig(
    lmbda=1e-4, preset="fast", intra="lop", residue="vlop", iterations=30, structure=StructureConfig(gop=4), threads=1
)
STEPS = plan(N_FRAMES, CONFIG.structure)
FRAMES = waves(FORMAT, N_FRAMES)


def manager(**options):
    types = (FrameType.I, FrameType.P, FrameType.B)
    configs = [each for t in types for each in frame_configs(CONFIG, t, t.value, (32, 48))]
    table = tuple(dict.fromkeys(map(frame_architecture, configs)))
    return FrameEncoderManager(
        CONFIG, StreamHeader(FORMAT, Fraction(25), ColorInfo(), N_FRAMES, 4, 0, False, table), **options
    )


def is_ready(step, done):
    return {*step.references, *([] if step.predictor is None else [step.predictor])} <= done


def ordered(prefer):
    """All steps, each once it is ready; among ready ones the first by `prefer`."""
    todo, done, order = list(STEPS), set(), []
    while todo:
        step = min((each for each in todo if is_ready(each, done)), key=prefer)
        todo.remove(step)
        done.add(step.display_index)
        order.append(step)
    return order


ORDERS = {
    "plan": list(STEPS),
    "anchors first": ordered(lambda step: (step.depth > 1, step.coding_index)),
    "by depth": ordered(lambda step: (step.depth, -step.display_index)),
    "deep first": ordered(lambda step: (step.depth <= 1, -step.display_index)),
}


def coded(order):
    encoder = manager()
    return {step.coding_index: encoder.encode(step, FRAMES[step.display_index]).data for step in order}


@pytest.fixture(scope="module")
def in_plan_order():
    return coded(ORDERS["plan"])


def test_the_orders_differ():
    assert len({tuple(step.display_index for step in order) for order in ORDERS.values()}) == len(ORDERS)


@pytest.mark.parametrize("name", [name for name in ORDERS if name != "plan"])
def test_the_order_of_coding_does_not_change_the_bytes(in_plan_order, name):
    assert coded(ORDERS[name]) == in_plan_order


def test_a_job_and_its_result_can_be_pickled():
    encoder, told = manager(), []
    encoder.encode(STEPS[0], FRAMES[0])
    step = STEPS[1]
    job = pickle.loads(pickle.dumps(encoder.job(step, FRAMES[step.display_index])))
    result = pickle.loads(pickle.dumps(encode_frame(job, told.append)))
    assert result.packet.data == encoder.encode(step, FRAMES[step.display_index]).data
    assert result.n_iterations == job.total_iterations and result.training_time_s > 0
    assert {event.display_index for event in told} == {step.display_index}
    assert pickle.loads(pickle.dumps(told)) == told
