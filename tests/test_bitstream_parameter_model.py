"""The model of network parameters: starting probabilities, the geometry of tensors, and what contexts depend on."""

from coolvid.bitstream.adaptive import LEAST, ONE
from coolvid.bitstream.parameter_model import N_CONTEXTS, START, ParameterModel, blocks_of
from coolvid.codec.coded_frame import TensorSpec

ARM = (
    TensorSpec("hidden.weight", (6, 6)),
    TensorSpec("hidden.bias", (6,), "bias"),
    TensorSpec("output.weight", (2, 6)),
    TensorSpec("output.bias", (2,), "bias"),
)
CONV = (
    TensorSpec("layers.0.weight", (5, 3, 1, 1)),
    TensorSpec("layers.1.weight", (2, 5, 3, 3)),
    TensorSpec("stabiliser.weight", (2, 3, 1, 1)),
)
FILTERS = tuple(TensorSpec(f"{name}.{i}", (n,)) for i in range(3) for name, n in (("up", 4), ("pre", 3)))


def test_every_context_starts_in_range():
    assert len(START) == N_CONTEXTS and all(LEAST <= probability <= ONE - LEAST for probability in START)


def test_blocks_know_their_feeder_and_what_is_above():
    assert [(b.rows, b.columns, b.taps, b.feeder) for b in blocks_of(ARM, "weight")] == [(6, 6, 1, -1), (2, 6, 1, 0)]
    assert [(b.rows, b.columns, b.taps, b.feeder) for b in blocks_of(CONV, "weight")] == [
        (5, 3, 1, -1), (2, 45, 9, 0), (2, 3, 1, -1)]  # fmt: skip
    assert [b.above for b in blocks_of(FILTERS, "weight")] == [-1, -1, 0, 1, 2, 3]
    assert [b.start for b in blocks_of(ARM, "bias")] == [0, 6]
    assert blocks_of(ARM[:1], "bias") == ()


def test_levels_rise_with_the_magnitudes_around_a_number():
    model = ParameterModel(is_difference=False)
    levels = [model.surroundings(m, m, m, False).level for m in (0, 1, 2, 3, 4, 8, 100, 1 << 23)]
    assert levels == sorted(levels) and levels[-1] == 23
    assert [model.surroundings(m, None, None, False).near for m in (0, 1, 2, 3, 4, 99, None)] == [
        4,
        9,
        14,
        14,
        19,
        19,
        24,
    ]


def test_the_mean_follows_magnitudes_and_stands_in_for_absent_neighbours():
    model = ParameterModel(is_difference=True)
    before = model.surroundings(None, None, None, False).level
    for _ in range(40):
        model.observe(50)
    assert model.surroundings(None, None, None, False).level > before


def test_all_contexts_exist_once():
    model = ParameterModel(is_difference=False)
    around = [
        model.surroundings(left, left, above, quiet)._replace(level=level)
        for left in (0, 1, 2, 4, None) for above in (0, 1, 2, 4, None) for quiet in (False, True) for level in range(24)
    ]  # fmt: skip
    contexts = {c for each in around for c in (*each.not_zero(), *(c for n in range(12) for c in each.halve(n)))}
    contexts |= {model.common(n) for n in range(6)} | {ParameterModel(True).common(n) for n in range(6)}
    contexts |= {model.below(n) for n in range(1, 12)}
    assert contexts == set(range(N_CONTEXTS)) - {0, 1, 10, 11}
