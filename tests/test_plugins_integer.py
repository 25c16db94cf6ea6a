"""Integer forms of the built-in modules against slow loops of their formulas, at odd sizes and at the extremes."""

import math

import numpy as np
import pytest

from coolvid.codec.architecture import PluginRecord, Ports
from coolvid.codec.fixed_point import (
    ARM_OUT_BITS,
    CONTEXT_BITS,
    INT16_MAX,
    INT16_MIN,
    TAP_BITS,
    FixedPoint,
    align_bias,
    fit_weights,
    saturate16,
    shift_round,
    unit,
)
from coolvid.errors import ConfigError, MissingPlugin
from coolvid.plugin.registry import build, load

HUGE = (1 << 23) - 1
CONV = ((8, 1, False, True), (4, 3, False, False), (0, 3, True, True), (0, 5, True, False))

NARROW = ((8, 1, False, True), (0, 3, False, False), (0, 3, True, True))


def make(kind, name, ports, *options):
    cls = load(kind, name)
    values = cls.Options(*options).values()
    return build(kind, PluginRecord(name, cls.version, values), ports)


def parameters(plugin, seed=0, magnitude=80, weight_shift=8, bias_shift=10):
    rng = np.random.default_rng(seed)
    return {
        spec.name: FixedPoint(
            rng.integers(-magnitude, magnitude + 1, spec.shape).astype(np.int32),
            weight_shift if spec.kind == "weight" else bias_shift,
        )
        for spec in plugin.tensors()
    }


def clamp(i, size):
    return min(max(i, 0), size - 1)


def rounded16(accumulator, shift):
    return int(saturate16(shift_round(np.array(accumulator), shift)))


# Options from hostile streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, name, ports, options",
    [
        ("arm", "mlp", Ports(8, 2), (9, True)),
        ("arm", "mlp", Ports(8, 2), (-1, True)),
        ("arm", "mlp", Ports(8, 2), (2.0, True)),
        ("arm", "mlp", Ports(8, 2), (True, True)),
        ("arm", "mlp", Ports(8, 2), (2, 1)),
        ("arm", "mlp", Ports(8, 2), ("2", True)),
        ("arm", "mlp", Ports(8, 2), (2,)),
        ("upsampling", "separable", Ports(7, 7), (7, 7)),
        ("upsampling", "separable", Ports(7, 7), (8, 6)),
        ("upsampling", "separable", Ports(7, 7), (18, 7)),
        ("upsampling", "separable", Ports(7, 7), (8, ())),
        ("upsampling", "separable", Ports(12, 12), (8, 7)),
        ("synthesis", "conv", Ports(7, 3), ((), True)),
        ("synthesis", "conv", Ports(7, 3), (5, True)),
        ("synthesis", "conv", Ports(7, 3), ("layers", True)),
        ("synthesis", "conv", Ports(7, 3), ((5,), True)),
        ("synthesis", "conv", Ports(7, 3), (((3, 1, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((3, 1, 0, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((3, 2, False, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((3, 9, False, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((257, 1, False, False), (3, 1, False, False)), True)),
        ("synthesis", "conv", Ports(7, 3), (((4, 1, False, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((3, 1, True, False),), True)),
        ("synthesis", "conv", Ports(7, 3), (((0, 1, False, False),) * 17, True)),
        ("synthesis", "conv", Ports(7, 3), (((256, 7, False, False),) * 3 + ((0, 1, False, False),), True)),
        ("warper", "sinc", Ports(1, 1), (3,)),
        ("warper", "sinc", Ports(1, 1), (18,)),
        ("warper", "sinc", Ports(1, 1), (0,)),
        ("warper", "sinc", Ports(1, 1), (None,)),
    ],
)
def test_impossible_options_are_config_errors(kind, name, ports, options):
    with pytest.raises(ConfigError):
        build(kind, PluginRecord(name, 1, options), ports)


def test_unknown_names_and_versions_say_what_is_missing():
    with pytest.raises(MissingPlugin, match=r"arm plugin 'nobody' \(version 3\).*installed: .*mlp"):
        build("arm", PluginRecord("nobody", 3, ()), Ports(8, 2))
    with pytest.raises(MissingPlugin, match="version 99 of the warper plugin 'sinc'"):
        build("warper", PluginRecord("sinc", 99, (8,)), Ports(1, 1))


@pytest.mark.parametrize(
    "kind, name, ports, options, n_parameters, macs, n_scales",
    [
        ("arm", "mlp", Ports(20, 2), (2, True), 2 * 420 + 2 * 42, 880, 2),
        ("arm", "mlp", Ports(6, 2), (0, False), 14, 12, 0),
        ("upsampling", "separable", Ports(1, 1), (8, 7), 0, 0, 1),
        ("upsampling", "separable", Ports(2, 2), (8, 7), 8, 20, 1),
        ("synthesis", "conv", Ports(7, 3, 2), (NARROW, True), 64 + 219 + 84 + 18, 56 + 216 + 81 + 15, 3),
    ],
)
def test_descriptions(kind, name, ports, options, n_parameters, macs, n_scales):
    plugin = make(kind, name, ports, *options)
    assert sum(math.prod(spec.shape) for spec in plugin.tensors()) == n_parameters
    assert plugin.macs() == macs
    assert plugin.n_scales() == n_scales
    assert type(plugin.options).from_values(plugin.options.values()) == plugin.options


# ARM -------------------------------------------------------------------------------------------------------------


def slow_arm(plugin, p, scales, contexts):
    """The definition, one layer at a time, in int64."""
    x, bits = contexts.astype(np.int64), CONTEXT_BITS
    for i, scale in enumerate(scales):
        weight = fit_weights(p[f"hidden.{i}.weight"], extra=1, least=8)
        bias = align_bias(p[f"hidden.{i}.bias"], bits + weight.shift)
        accumulator = x @ weight.values.T.astype(np.int64) + bias + unit(weight.shift) * x
        assert np.abs(accumulator).max() < 1 << 31
        x = saturate16(shift_round(np.maximum(accumulator, 0), bits + weight.shift - scale)).astype(np.int64)
        bits = scale
    out = 0
    for name, source, in_bits in (("output", x, bits), ("stabiliser", contexts.astype(np.int64), CONTEXT_BITS)):
        if f"{name}.weight" in p:
            weight = fit_weights(p[f"{name}.weight"], least=8)
            accumulator = source @ weight.values.T.astype(np.int64)
            accumulator += align_bias(p[f"{name}.bias"], in_bits + weight.shift)
            assert np.abs(accumulator).max() < 1 << 31
            out = out + shift_round(accumulator, in_bits + weight.shift - ARM_OUT_BITS)
    return np.clip(out, -(1 << 30), 1 << 30)


@pytest.mark.parametrize("n_hidden, stabiliser, n_in", [(2, True, 20), (1, False, 6), (0, True, 1), (8, True, 104)])
@pytest.mark.parametrize("magnitude, weight_shift", [(80, 8), (HUGE, 0), (HUGE, 31), (0, 5), (1, 0)])
@pytest.mark.parametrize("amplitude", [60, INT16_MAX])
def test_arm_equals_its_definition(n_hidden, stabiliser, n_in, magnitude, weight_shift, amplitude):
    plugin = make("arm", "mlp", Ports(n_in, 2), n_hidden, stabiliser)
    p = parameters(plugin, 1, magnitude, weight_shift)
    contexts = np.random.default_rng(2).integers(-amplitude - 1, amplitude + 1, (30, n_in)).astype(np.int32)
    chooser = plugin.integer(p)
    first = chooser(contexts)
    assert len(chooser.scales) == n_hidden and all(0 <= s <= 15 for s in chooser.scales)
    assert first.dtype == np.int32
    for scales in (chooser.scales, (0,) * n_hidden, (15,) * n_hidden):
        assert np.array_equal(plugin.integer(p, scales)(contexts), slow_arm(plugin, p, scales, contexts))
    assert np.array_equal(first, plugin.integer(p, chooser.scales)(contexts))
    other = plugin.integer(p)
    plugin.choose_scales(other, contexts)
    assert other.scales == chooser.scales


def test_arm_rows_do_not_depend_on_each_other():
    plugin = make("arm", "mlp", Ports(20, 2))
    integer = plugin.integer(parameters(plugin), (8, 8))
    contexts = np.random.default_rng(3).integers(-400, 400, (200, 20)).astype(np.int32)
    assert np.array_equal(integer(contexts), np.concatenate([integer(contexts[i : i + 1]) for i in range(200)]))
    assert integer(contexts[:0]).shape == (0, 2)


# Upsampling ------------------------------------------------------------------------------------------------------


def slow_double(x, k, shift, size):
    """out[r] = sum over i of k[r + k/2 - 1 - 2i] * x[clamp(i)] for a line x."""
    out = []
    for r in range(size):
        taps = [(r + len(k) // 2 - 1 - 2 * i, i) for i in range(-len(k), len(x) + len(k))]
        total = sum(int(k[t]) * int(x[clamp(i, len(x))]) for t, i in taps if 0 <= t < len(k))
        out.append(rounded16(total, shift))
    return out


def slow_filter(x, k, shift, own):
    out = []
    for r in range(len(x)):
        inside = [j for j in range(len(k)) if 0 <= r + j - len(k) // 2 < len(x)]
        total = sum(int(k[j]) * int(x[r + j - len(k) // 2]) for j in inside)
        out.append(rounded16(total + own[r] * unit(shift), shift))
    return out


def slow_upsampling(plugin, p, bits, latents):
    def kernel(half, odd):
        full = np.concatenate((half.values, half.values[::-1][odd:]))
        fitted = fit_weights(FixedPoint(full[None], half.shift), extra=odd)
        return fitted.values[0], fitted.shift

    at_bits = [saturate16(shift_round(y, -bits)) for y in latents]
    stack = [at_bits[-1]]
    for s in range(len(latents) - 2, -1, -1):
        height, width = latents[s].shape
        k, shift = kernel(p[f"up.{s}"], 0)
        doubled = []
        for plane in stack:
            tall = np.array([slow_double(column, k, shift, height) for column in plane.T]).T
            doubled.append(np.array([slow_double(row, k, shift, width) for row in tall]))
        k, shift = kernel(p[f"pre.{s}"], 1)
        tall = np.array([slow_filter(c, k, shift, [0] * height) for c in at_bits[s].T]).T
        stack = [np.array([slow_filter(tall[i], k, shift, at_bits[s][i]) for i in range(height)]), *doubled]
    return np.stack(stack)


@pytest.mark.parametrize(
    "shape, n, k_size, pre_size", [((5, 7), 3, 8, 7), ((6, 3), 2, 4, 1), ((1, 2), 2, 6, 3), ((3, 9), 4, 16, 15)]
)
@pytest.mark.parametrize("magnitude, shift, amplitude", [(90, 8, 9), (HUGE, 0, 32767), (HUGE, 25, 300)])
def test_upsampling_equals_a_slow_loop_of_the_formula(shape, n, k_size, pre_size, magnitude, shift, amplitude):
    plugin = make("upsampling", "separable", Ports(n, n), k_size, pre_size)
    p = parameters(plugin, 4, magnitude, shift)
    rng = np.random.default_rng(5)
    shapes = [(-(-shape[0] >> i), -(-shape[1] >> i)) for i in range(n)]
    latents = [rng.integers(-amplitude, amplitude + 1, s).astype(np.int32) for s in shapes]
    chooser = plugin.integer(p)
    first = chooser(latents)
    assert 0 <= chooser.out_bits <= 15
    assert first.dtype == np.int32 and first.shape == (n, *shape)
    assert np.array_equal(first, slow_upsampling(plugin, p, chooser.out_bits, latents))
    assert np.array_equal(plugin.integer(p, (15,))(latents), slow_upsampling(plugin, p, 15, latents))


def test_chosen_scale_of_the_upsampling_does_not_saturate():
    plugin = make("upsampling", "separable", Ports(4, 4))
    latents = [np.full((8 >> i, 8 >> i), 50, np.int32) for i in range(4)]
    halves = {"up": [9, 27, -67, -225], "pre": [0, 0, 0, 256]}
    p = {s.name: FixedPoint(np.array(halves[s.name.split(".")[0]], np.int32), 8) for s in plugin.tensors()}
    integer = plugin.integer(p)
    assert np.abs(np.ldexp(integer(latents).astype(float), -integer.out_bits)[:, 4, 4] - [100, 100, 100, 50]).max() < 1
    assert integer.out_bits >= 7


# Synthesis -------------------------------------------------------------------------------------------------------


def slow_conv(x, weight, bias, bits, residual, relu):
    """Accumulator of one layer with replicated borders, in int64."""
    n_out, _, k, _ = weight.values.shape
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)), mode="edge").astype(np.int64)
    out = np.zeros((n_out, *x.shape[1:]), np.int64)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            patch = padded[:, i : i + k, j : j + k]
            out[:, i, j] = (weight.values * patch).sum(axis=(1, 2, 3)) + align_bias(bias, bits + weight.shift)
    out += unit(weight.shift) * x if residual else 0
    assert np.abs(out).max() < 1 << 31
    return np.maximum(out, 0) if relu else out


def slow_synthesis(plugin, p, scales, planes, bits):
    x, in_bits = planes, bits
    for i, layer in enumerate(plugin.layers):
        weight = fit_weights(p[f"layers.{i}.weight"], extra=int(layer.residual))
        accumulator = slow_conv(x, weight, p[f"layers.{i}.bias"], in_bits, layer.residual, layer.relu)
        shift = in_bits + weight.shift - scales[i]
        if i == len(scales) - 1 and plugin.options.stabiliser:
            seen = planes[: len(planes) - plugin.ports.n_noise]
            weight = fit_weights(p["stabiliser.weight"])
            side = slow_conv(seen, weight, p["stabiliser.bias"], bits, False, False)
            accumulator = np.clip(shift_round(accumulator, shift - 8), -(1 << 29), 1 << 29)
            accumulator += np.clip(shift_round(side, bits + weight.shift - scales[i] - 8), -(1 << 29), 1 << 29)
            shift = 8
        x, in_bits = saturate16(shift_round(accumulator, shift)), scales[i]
    return x


@pytest.mark.parametrize("layers, n_noise", [(CONV, 0), (((0, 1, False, False),), 2), (((0, 7, False, True),), 0)])
@pytest.mark.parametrize("stabiliser", [True, False])
@pytest.mark.parametrize("magnitude, shift, amplitude", [(80, 9, 3000), (HUGE, 0, 32767), (HUGE, 31, 200)])
def test_synthesis_equals_its_definition(layers, n_noise, stabiliser, magnitude, shift, amplitude):
    plugin = make("synthesis", "conv", Ports(5, 4, n_noise), layers, stabiliser)
    p = parameters(plugin, 6, magnitude, shift)
    planes = np.random.default_rng(7).integers(-amplitude, amplitude + 1, (5, 4, 5)).astype(np.int32)
    chooser = plugin.integer(p)
    first = chooser(planes, 9)
    assert len(chooser.scales) == plugin.n_scales() and all(0 <= s <= 15 for s in chooser.scales)
    for scales in (chooser.scales, (0,) * len(chooser.scales), (15,) * len(chooser.scales)):
        out = plugin.integer(p, scales)(planes, 9)
        assert out.dtype == np.int32
        assert np.array_equal(out, slow_synthesis(plugin, p, scales, planes, 9))
    assert np.array_equal(first, plugin.integer(p, chooser.scales)(planes, 9))


def test_synthesis_does_not_depend_on_the_bands(monkeypatch):
    plugin = make("synthesis", "conv", Ports(5, 4), CONV)
    p = parameters(plugin, 8)
    planes = np.random.default_rng(9).integers(-3000, 3000, (5, 23, 17)).astype(np.int32)
    integer = plugin.integer(p)
    whole = integer(planes, 9)
    for values in ("BAND_VALUES", "CACHED_VALUES"):
        monkeypatch.setattr(f"{type(integer).__module__}.{values}", 1)
    banded = plugin.integer(p)
    assert np.array_equal(banded(planes, 9), whole)
    assert banded.scales == integer.scales


def test_stabiliser_much_larger_than_the_layers_is_not_lost():
    """Tiny layers, precise accumulators, and a stabiliser that gives 40: the output still does."""
    plugin = make("synthesis", "conv", Ports(1, 1), ((4, 1, False, True), (0, 1, False, False)))
    p = {s.name: FixedPoint(np.ones(s.shape, np.int32), 12 if s.kind == "weight" else 24) for s in plugin.tensors()}
    p["stabiliser.weight"] = FixedPoint(np.full((1, 1, 1, 1), 2, np.int32), 0)
    integer = plugin.integer(p)
    out = integer(np.full((1, 3, 3), 20 << 8, np.int32), 8)
    assert np.abs(np.ldexp(out.astype(float), -integer.out_bits) - 40).max() < 0.1


# Warper ----------------------------------------------------------------------------------------------------------


def float_taps(n, fraction):
    def weight(d):
        x = abs(d)
        if n == 2:
            return 1 - x
        if n == 4:
            return 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        return math.cos(math.pi * d / n) * (math.sin(math.pi * d) / (math.pi * d) if d else 1)

    weights = [weight(fraction - k) for k in range(1 - n // 2, n // 2 + 1)]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("n", [2, 4, 6, 8, 10, 12, 14, 16])
def test_tap_tables(n):
    table = make("warper", "sinc", Ports(1, 1), n).integer({}).taps
    assert table.shape == (64, n) and table.dtype == np.int32
    assert (table.sum(axis=1) == 1 << TAP_BITS).all()
    expected = np.array([float_taps(n, f / 64) for f in range(64)]) * 2.0**TAP_BITS
    assert np.abs(table - expected).max() <= 0.5 * n
    assert np.abs(table - expected).mean() < 0.5
    assert table[0].tolist() == [1 << TAP_BITS if k == 0 else 0 for k in range(1 - n // 2, n // 2 + 1)]
    assert int(np.abs(table).sum(axis=1).max()) * -INT16_MIN + (1 << 13) < 1 << 31


def slow_warp(reference, flow, taps):
    n, (_, height, width) = taps.shape[1], reference.shape
    out = np.zeros(reference.shape, np.int32)
    for c, i, j in np.ndindex(*reference.shape):
        x, y = (j << 6) + int(flow[0, i, j]), (i << 6) + int(flow[1, i, j])
        total = 0
        for t in range(n):
            row = reference[c, clamp((y >> 6) + t + 1 - n // 2, height)]
            line = sum(int(taps[x & 63, u]) * int(row[clamp((x >> 6) + u + 1 - n // 2, width)]) for u in range(n))
            total += int(taps[y & 63, t]) * rounded16(line, 10)
        out[c, i, j] = rounded16(total, 14)
    return out


@pytest.mark.parametrize("n", [2, 4, 8, 16])
@pytest.mark.parametrize("shape, reach", [((1, 5, 7), 200), ((2, 3, 4), 32767), ((1, 1, 1), 64), ((3, 6, 5), 0)])
def test_warp_equals_a_loop_over_pixels(n, shape, reach):
    rng = np.random.default_rng(10)
    reference = rng.choice([0, 1023, 512], shape).astype(np.int32)
    flow = rng.integers(-reach, reach + 1, (2, *shape[1:])).astype(np.int32)
    integer = make("warper", "sinc", Ports(1, 1), n).integer({})
    assert np.array_equal(integer(reference, flow), slow_warp(reference, flow, integer.taps))
    assert integer.scales == ()
