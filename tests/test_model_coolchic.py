"""CoolChicEncoder: contexts, rate, quantization noise, parameters in and out."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from coolvid.bitstream.weights import module_bits
from coolvid.codec.architecture import NEIGHBOURS
from coolvid.codec.coded_frame import CodedModule
from coolvid.codec.laplace import laplace_bits
from coolvid.encoding.model.contexts import ContextMatrix
from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.noise import NoiseSource, kumaraswamy
from coolvid.encoding.model.rate import latent_bits, scale_of
from coolvid.errors import ConfigError
from coolvid.plugin.choice import PluginChoice
from coolvid.settings.config import CoolChicEncoderParameter

SMALL = CoolChicEncoderParameter(
    img_size=(17, 19),
    layers_synthesis="5-1-linear-relu,X-1-linear-none,X-3-residual-none",
    spatial_context_arm=6,
    output_feature_ifce=2,
    latent_resolution=(0, 3),
    hyperlatent_resolution=(2, 3),
    ifce_resolution=(0, 2),
)
MOTION = replace(SMALL, latent_resolution=(2, 4), hyperlatent_resolution=None, ifce_resolution=(2, 2))
NO_IFCE = replace(SMALL, output_feature_ifce=0)


def shaken(coolchic, seed=0, weights=0.3, latents=2.0):
    """All parameters moved at random; latents are in units of what is sent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in coolchic.named_parameters():
            size = latents / coolchic.param.encoder_gain if name.startswith("latents") else weights
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p.dtype))
    return coolchic


def slow_contexts(coolchic, planes):
    """Contexts latent by latent, from the definitions."""
    shape, maps = coolchic.architecture, coolchic.modules_by_name["ifce"].maps
    rows = []
    for index, grid in enumerate(coolchic.grids):
        features = slow_features(coolchic, maps, planes, index)
        for r in range(grid.height):
            for c in range(grid.width):
                near = [at(planes[index], r + dy, c + dx) for dy, dx in NEIGHBOURS[: shape.n_context]]
                rows.append(torch.cat((torch.stack(near), features[:, r // 2, c // 2])))
    return torch.stack(rows, dim=1)


def slow_features(coolchic, maps, planes, index):
    grid, grids = coolchic.grids[index], coolchic.grids
    half = (grid.height + 1) // 2, (grid.width + 1) // 2
    levels = coolchic.architecture.ifce_levels
    if (grid.log2, grid.is_hyper) not in levels:
        return planes[0].new_zeros(coolchic.architecture.n_ifce, *half)
    layer = maps[levels.index((grid.log2, grid.is_hyper))]
    coarser = [i for i, g in enumerate(grids) if g.log2 > grid.log2]
    out = torch.empty(len(layer.bias), *half, dtype=planes[0].dtype)
    for r in range(half[0]):
        for c in range(half[1]):
            shifts = [grids[i].log2 - grid.log2 - 1 for i in coarser]
            x = [planes[i][r >> n, c >> n] for i, n in zip(coarser, shifts, strict=True)]
            out[:, r, c] = layer(torch.stack(x) if x else planes[0].new_zeros(1))
    return out


def at(plane, r, c):
    inside = 0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]
    return plane[r, c] if inside else plane.new_zeros(())


@pytest.mark.parametrize("param", [SMALL, MOTION, NO_IFCE, replace(SMALL, spatial_context_arm=40)])
def test_contexts_are_neighbours_and_features(param):
    coolchic = shaken(CoolChicEncoder(param, 2).double().eval())
    flat = coolchic.rounded_latents().detach()
    with torch.no_grad():
        expected = slow_contexts(coolchic, coolchic._split(flat))
        torch.testing.assert_close(coolchic.contexts(flat), expected)


@pytest.mark.parametrize("param", [SMALL, NO_IFCE])
def test_context_matrix_gradient(param):
    coolchic = CoolChicEncoder(param, 2)
    shape, grids = coolchic.architecture, coolchic.grids
    generator = torch.Generator().manual_seed(1)
    n = sum(g.height * g.width for g in grids)
    flat = torch.randn(n, generator=generator, dtype=torch.float64, requires_grad=True)
    features = [
        torch.randn(shape.n_ifce, (g.height + 1) // 2, (g.width + 1) // 2, generator=generator, dtype=torch.float64)
        if (g.log2, g.is_hyper) in shape.ifce_levels
        else None
        for g in grids
    ]
    given = [flat, *(f.requires_grad_() for f in features if f is not None)]
    matrix = ContextMatrix.apply(flat, grids, shape.n_context, shape.n_ifce, *features)
    weights = torch.randn(matrix.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((matrix * weights).sum(), given)
    moved = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in given]
    values = iter(moved[1:])
    others = [None if f is None else next(values) for f in features]
    linear = ContextMatrix.apply(moved[0], grids, shape.n_context, shape.n_ifce, *others)
    expected = sum((g * x).sum() for g, x in zip(grads, moved, strict=True))
    torch.testing.assert_close((linear * weights).sum(), expected)


def test_latent_bits_are_the_laplace_model_with_its_gradients():
    generator = torch.Generator().manual_seed(2)
    y = (4 * torch.randn(4000, generator=generator, dtype=torch.float64)).round()
    mu = 3 * torch.randn(4000, generator=generator, dtype=torch.float64)
    raw = 4 + 3 * torch.randn(4000, generator=generator, dtype=torch.float64)
    given = [x.requires_grad_() for x in (y, mu, raw)]
    fast, plain = latent_bits(*given), laplace_bits(y, mu, scale_of(raw))
    torch.testing.assert_close(fast, plain)
    weights = torch.randn(4000, generator=generator, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((x * weights).sum(), given) for x in (fast, plain)), strict=True):
        torch.testing.assert_close(a, b)


def test_latent_bits_stay_finite_in_float32():
    y = torch.tensor([0.0, 0.0, 30000.0, -30000.0, 0.0, 5.0])
    raw = torch.tensor([-100.0, 100.0, -100.0, 100.0, 4.0, 9.0], requires_grad=True)
    bits = latent_bits(y, torch.zeros(6), raw)
    bits.sum().backward()
    assert torch.isfinite(bits).all() and torch.isfinite(raw.grad).all()
    assert bits[0] < 1e-4 and bits[2] == 16 and bits[3] == 16


def test_whole_gradient_against_finite_differences():
    coolchic = shaken(CoolChicEncoder(SMALL, 3).double())

    def loss():
        coolchic.noise = NoiseSource(5)
        out = coolchic("gaussian", "softround", 0.3, 0.2)
        return (out.raw_out**2).mean() + 1e-3 * out.rate.sum()

    groups = {**coolchic.modules_by_name, "latents": coolchic.latents}
    grads = torch.autograd.grad(loss(), [p for group in groups.values() for p in group.parameters()])
    remaining = iter(grads)
    for name, group in groups.items():
        own = list(group.parameters())
        expected = sum((next(remaining) * x).sum() for x in directions(own))
        torch.testing.assert_close(slope_along(loss, own), expected, rtol=2e-4, atol=1e-6, msg=lambda m, n=name: n + m)


def directions(parameters):
    generator = torch.Generator().manual_seed(6)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]


@torch.no_grad()
def slope_along(loss, parameters, step=1e-7):
    """Central difference of loss() when all parameters move at once."""
    sides = []
    for sign in (1, -2):
        for parameter, direction in zip(parameters, directions(parameters), strict=True):
            parameter.add_(sign * step * direction)
        sides.append(loss())
    for parameter, direction in zip(parameters, directions(parameters), strict=True):
        parameter.add_(step * direction)
    return (sides[0] - sides[1]) / (2 * step)


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 16), (17, 19), (33, 18)])
def test_shapes_and_final_upsampling(kind, size):
    param = replace(MOTION, img_size=size, final_upsampling_type=kind)
    out = shaken(CoolChicEncoder(param, 4)).eval()()
    assert out.raw_out.shape == (1, 4, *size)
    assert out.coarse.shape == (1, 4, -(-size[0] // 4), -(-size[1] // 4))
    if kind == "nearest":
        repeated = out.coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, : size[0], : size[1]]
        assert torch.equal(out.raw_out, repeated)


def test_starts_at_no_rate_and_no_picture():
    out = CoolChicEncoder(SMALL, 3).eval()()
    assert torch.equal(out.raw_out, torch.zeros_like(out.raw_out))
    assert out.rate.sum() < 0.05 * out.rate.numel()


def test_evaluation_rounds_whatever_the_quantizer():
    coolchic = shaken(CoolChicEncoder(SMALL, 3)).eval()
    a, b = coolchic("gaussian", "softround"), coolchic()
    assert torch.equal(a.raw_out, b.raw_out) and torch.equal(a.rate, b.rate)
    sent = coolchic.quantized_latents()
    assert all(p.dtype == np.int32 and p.shape == g.shape for p, g in zip(sent, coolchic.grids, strict=True))
    assert np.array_equal(np.concatenate([p.ravel() for p in sent]), coolchic.rounded_latents().detach().numpy())


def test_limit_and_additional_outputs():
    coolchic = shaken(CoolChicEncoder(SMALL, 3)).eval()
    with torch.no_grad():
        out = coolchic(AC_MAX_VAL=1, flag_additional_outputs=True)
    data = out.additional_data
    assert set(data) == {"latent", "mu", "scale", "log_scale", "rate", "synthesis_input"}
    assert all(getattr(data, name) is value for name, value in data.items())
    assert (min(int(p.min()) for p in data.latent), max(int(p.max()) for p in data.latent)) == (-1, 2)
    assert all(
        torch.equal(a.log(), b) or torch.allclose(a.log(), b) for a, b in zip(data.scale, data.log_scale, strict=True)
    )
    with pytest.raises(AttributeError, match="has no 'latents'; it has latent, mu"):
        _ = data.latents
    with pytest.raises(ConfigError, match="AC_MAX_VAL is -2"):
        coolchic(AC_MAX_VAL=-2)
    assert torch.equal(torch.cat([p.flatten() for p in out.additional_data["rate"]]), out.rate)


def test_equal_seeds_repeat_exactly_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = (CoolChicEncoder(SMALL, 3, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    rates = [m("kumaraswamy", "softround", 0.3, 2.0).rate for m in (a, b, a)]
    assert torch.equal(rates[0], rates[1]) and not torch.equal(rates[0], rates[2])
    assert torch.equal(copy.deepcopy(b)("gaussian", "softround").rate, b("gaussian", "softround").rate)


def test_noise_source_survives_pickling():
    like = torch.zeros(10)
    source = NoiseSource(3)
    source.draw("gaussian", 1.0, like)
    twin = pickle.loads(pickle.dumps(source))
    assert torch.equal(source.draw("gaussian", 1.0, like), twin.draw("gaussian", 1.0, like))
    assert source.draw("none", 1.0, like) is None
    with pytest.raises(ConfigError, match="pink"):
        source.draw("pink", 1.0, like)


@pytest.mark.parametrize("a", [1.0, 2.0, 10.0])
def test_kumaraswamy_has_its_mode_in_the_middle(a):
    u = torch.linspace(0, 1, 20001, dtype=torch.float64)
    noise = kumaraswamy(u, a)
    assert noise[0] == -0.5 and noise[-1] == 0.5
    if a == 1.0:
        torch.testing.assert_close(noise, u - 0.5)
    else:
        assert abs(float(noise[noise.diff().argmin()])) < 0.02


def test_parameters_out_and_in_again():
    coolchic = shaken(CoolChicEncoder(SMALL, 3))
    kept = coolchic.get_param()
    coolchic.reinitialize_parameters(seed=4)
    fresh = CoolChicEncoder(SMALL, 3, seed=4).get_param()
    assert all(torch.equal(fresh[name], value) for name, value in coolchic.get_param().items())
    coolchic.set_param(kept)
    assert all(torch.equal(kept[name], value) for name, value in coolchic.get_param().items())
    with pytest.raises(ConfigError, match="parameter 'absent'; choose one of: "):
        coolchic.set_param({"absent": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"latents.0 has shape \[1\]; give \[1, 1, "):
        coolchic.set_param({"latents.0": torch.zeros(1)})


def test_module_names_are_those_of_the_stream():
    coolchic = CoolChicEncoder(SMALL, 3)
    for name, tensors in coolchic.tensors.items():
        state = coolchic.modules_by_name[name].state_dict()
        assert {t.name: t.shape for t in tensors} == {key: tuple(value.shape) for key, value in state.items()}


def test_network_rate_needs_steps():
    coolchic = shaken(CoolChicEncoder(SMALL, 3))
    rates, total = coolchic.get_network_rate()
    assert total == 0 and all(bits == 0 for module in rates.values() for bits in module.values())
    coolchic.set_network_quantization("arm", {"weight": 2.0**-4, "bias": 2.0**-6})
    rate = coolchic.get_network_rate()[0]["arm"]
    integers = {n: np.rint(p.detach().double().numpy() * (64 if n.endswith("bias") else 16)).astype(np.int32)
                for n, p in coolchic.modules_by_name["arm"].named_parameters()}  # fmt: skip
    expected = module_bits("arm", CodedModule(integers, 4, 6), coolchic.tensors["arm"])
    assert rate == {kind: expected[kind] for kind in ("weight", "bias")} and rate["weight"] > 0
    assert coolchic.get_network_quantization_step()["arm"]["weight"] == 2.0**-4
    coolchic.predictor = {"arm": CodedModule(integers, 4, 6)}
    assert coolchic.get_network_rate()[0]["arm"] == {"weight": 0.0, "bias": 0.0}


def test_common_randomness_can_be_silenced():
    coolchic = shaken(CoolChicEncoder(replace(SMALL, flag_common_randomness=True), 3)).eval()
    full, without, alone = coolchic(), coolchic(no_common_randomness=True), coolchic(only_common_randomness=True)
    assert not torch.equal(full.raw_out, without.raw_out) and not torch.equal(full.raw_out, alone.raw_out)
    assert torch.equal(full.raw_out, coolchic().raw_out)


def test_complexity_counts_every_module():
    coolchic = CoolChicEncoder(SMALL, 3)
    coolchic.get_flops()
    assert coolchic.total_flops == round(sum(coolchic.complexity().macs.values()))
    assert coolchic.get_total_mac_per_pixel() == pytest.approx(coolchic.total_flops / (17 * 19), rel=1e-3)
    table = coolchic.flops_str
    assert all(name in table for name in ("arm", "ifce", "synthesis", "upsampling", "total"))


def test_unknown_quantizer_is_named():
    with pytest.raises(ConfigError, match="sofround"):
        CoolChicEncoder(SMALL, 3)("none", "sofround")
    with pytest.raises(ConfigError, match="no arm named 'nothing'"):
        CoolChicEncoder(replace(SMALL, arm=PluginChoice("nothing")), 3)
