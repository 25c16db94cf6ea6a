"""The built-in differentiable modules against plain statements of the same formulas, and their gradients in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from coolvid.codec.architecture import Ports
from coolvid.plugin.interfaces import WarperPlugin
from coolvid.plugin.registry import load, make_options

SincWarper = load("warper", "sinc")

CHAIN = ((8, 1, False, True), (0, 1, False, False), (0, 3, True, True), (0, 3, True, False))
CASES = [
    ("arm", "mlp", {"n_hidden": 2}, Ports(9, 2)),
    ("arm", "mlp", {"n_hidden": 0, "stabiliser": False}, Ports(4, 2)),
    ("upsampling", "separable", {}, Ports(4, 4)),
    ("upsampling", "separable", {"k_size": 4, "preconcat_k_size": 1}, Ports(3, 3)),
    ("upsampling", "separable", {"k_size": 6, "preconcat_k_size": 3}, Ports(2, 2)),
    ("upsampling", "separable", {"k_size": 10}, Ports(1, 1)),
    ("synthesis", "conv", {"layers": CHAIN}, Ports(7, 3)),
    ("synthesis", "conv", {"layers": ((0, 5, False, True), (0, 1, True, True)), "stabiliser": False}, Ports(2, 4)),
    ("synthesis", "conv", {"layers": CHAIN}, Ports(6, 5, 3)),
    ("warper", "sinc", {"taps": 8}, Ports(1, 1)),
]


def plugin(kind, name, options, ports):
    cls = load(kind, name)
    return cls(make_options(kind, name, options), ports)


def shaken(module, seed=0, size=0.3):
    """The module in float64 with every parameter moved away from its start."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind, name, options, ports", CASES)
def test_state_dict_is_what_the_plugin_declares(kind, name, options, ports):
    made = plugin(kind, name, options, ports)
    declared = {spec.name: spec.shape for spec in made.tensors()}
    assert {key: tuple(value.shape) for key, value in made.module().state_dict().items()} == declared


@pytest.mark.parametrize("stabiliser", [True, False])
@pytest.mark.parametrize("n", [1, 7, 5000])
def test_arm_is_residual_layers_and_a_linear_output(stabiliser, n):
    module = shaken(plugin("arm", "mlp", {"stabiliser": stabiliser}, Ports(5, 2)).module())
    x = randn(n, 5).requires_grad_()
    h = x
    for layer in module.hidden:
        h = torch.relu(F.linear(h, layer.weight, layer.bias) + h)
    expected = F.linear(h, module.output.weight, module.output.bias)
    if stabiliser:
        expected = expected + F.linear(x, module.stabiliser.weight, module.stabiliser.bias)
    same_with_gradients(module, module(x), expected, [x])


def same_with_gradients(module, actual, expected, inputs):
    torch.testing.assert_close(actual, expected)
    weights = randn(*expected.shape, seed=9)
    wanted = [*inputs, *module.parameters()]
    grads = [torch.autograd.grad((out * weights).sum(), wanted, retain_graph=True) for out in (actual, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def slow_up(x, half, size):
    """out[r] = sum_i k[r + k/2 - 1 - 2i] x[clamp(i)], written as it is defined. x [n, h]."""
    kernel = torch.cat((half, half.flip(0)))
    k, h = len(kernel), x.shape[1]
    columns = []
    for r in range(size):
        taps = [(r + k // 2 - 1 - 2 * i, min(max(i, 0), h - 1)) for i in range(-k, h + k)]
        columns.append(sum(kernel[t] * x[:, i] for t, i in taps if 0 <= t < k))
    return torch.stack(columns, dim=1)


def slow_upsampling(module, grids):
    stack = grids[-1][0]
    for step in reversed(range(len(grids) - 1)):
        grid = grids[step]
        h, w = grid.shape[2:]
        n = len(stack)
        tall = slow_up(stack.transpose(1, 2).reshape(-1, stack.shape[1]), module.up[step], h)
        tall = tall.view(n, -1, h).transpose(1, 2)
        wide = slow_up(tall.reshape(n * h, -1), module.up[step], w).view(n, h, w)
        pre = torch.cat((module.pre[step], module.pre[step].flip(0)[1:]))
        kernel = torch.outer(pre, pre)[None, None]
        stack = torch.cat(((grid + F.conv2d(grid, kernel, padding=len(pre) // 2))[0], wide))
    return stack[None]


@pytest.mark.parametrize("k_size, pre", [(4, 1), (6, 3), (8, 7), (10, 5)])
@pytest.mark.parametrize("size", [(17, 19), (16, 24)])
def test_upsampling_is_the_transposed_filter(k_size, pre, size):
    module = shaken(
        plugin("upsampling", "separable", {"k_size": k_size, "preconcat_k_size": pre}, Ports(4, 4)).module()
    )
    grids = [randn(1, 1, -(-size[0] >> i), -(-size[1] >> i), seed=i).requires_grad_() for i in range(4)]
    same_with_gradients(module, module(grids), slow_upsampling(module, grids), grids)


@pytest.mark.parametrize("k_size", [4, 6, 8, 12])
def test_upsampling_starts_as_interpolation(k_size):
    module = plugin("upsampling", "separable", {"k_size": k_size}, Ports(2, 2)).module()
    out = module([torch.zeros(1, 1, 9, 11), torch.full((1, 1, 5, 6), 3.0)])
    torch.testing.assert_close(out[0, 1], torch.full((9, 11), 3.0), atol=1e-5, rtol=0)
    fine = torch.rand(1, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module([fine, torch.zeros(1, 1, 5, 6)])[0, 0], 2 * fine[0, 0])


@pytest.mark.parametrize("ports", [Ports(4, 3), Ports(4, 3, 2)])
@pytest.mark.parametrize("layers", [CHAIN, ((6, 3, False, True), (0, 1, False, True), (0, 1, True, False))])
def test_synthesis_is_convolutions_and_a_stabiliser(layers, ports):
    module = shaken(plugin("synthesis", "conv", {"layers": layers}, ports).module())
    x = randn(1, 4, 9, 7).requires_grad_()
    h = x
    for layer, (_, kernel, residual, relu) in zip(module.layers, layers, strict=True):
        y = F.conv2d(F.pad(h, (kernel // 2,) * 4, mode="replicate"), layer.weight, layer.bias)
        y = y + h if residual else y
        h = torch.relu(y) if relu else y
    seen = x[:, : ports.n_in - ports.n_noise]
    expected = h + F.conv2d(seen, module.stabiliser.weight, module.stabiliser.bias)
    same_with_gradients(module, module(x), expected, [x])


def slow_warp(reference, flow, taps):
    """Every pixel by its own double sum, from the definition."""
    _, channels, height, width = reference.shape
    out = np.zeros((channels, height, width))
    pixels, flow = reference[0].numpy(), flow[0].detach().numpy()
    for i in range(height):
        for j in range(width):
            (rows, a), (columns, b) = line(i + flow[1, i, j], height, taps), line(j + flow[0, i, j], width, taps)
            out[:, i, j] = np.einsum("a,b,cab->c", a, b, pixels[:, rows][:, :, columns])
    return torch.from_numpy(out)[None]


def line(position, size, taps):
    offsets = np.arange(1 - taps // 2, taps // 2 + 1)
    whole = int(np.floor(position))
    d = position - whole - offsets
    r = np.abs(d)
    if taps == 2:
        weights = 1 - r
    elif taps == 4:
        far = -0.75 * (r**3 - 5 * r**2 + 8 * r - 4)
        weights = np.where(r <= 1, 1.25 * r**3 - 2.25 * r**2 + 1, far)
    else:
        weights = np.sinc(d) * np.cos(np.pi * d / taps)
    return np.clip(whole + offsets, 0, size - 1), weights / weights.sum()


@pytest.mark.parametrize("taps", [2, 4, 6, 8, 16])
def test_warp_is_the_windowed_interpolation(taps):
    module = plugin("warper", "sinc", {"taps": taps}, Ports(1, 1)).module()
    reference, flow = randn(1, 3, 17, 19), 4 * randn(1, 2, 17, 19, seed=2)
    flow[0, 0, 0, :6] = torch.tensor([0.0, 1.0, -1e-9, 1e-9, 500.0, -500.0])
    torch.testing.assert_close(module(reference, flow), slow_warp(reference, flow, taps))


@pytest.mark.parametrize("taps", [2, 4, 8])
def test_warp_gradient_reaches_the_flow(taps):
    module = plugin("warper", "sinc", {"taps": taps}, Ports(1, 1)).module()
    reference = randn(1, 2, 6, 7)
    flow = (
        2 * torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ).requires_grad_()
    torch.autograd.gradcheck(lambda f: module(reference, f), flow)


@pytest.mark.parametrize("taps", [2, 4, 8])
def test_warp_by_zero_copies(taps):
    module = plugin("warper", "sinc", {"taps": taps}, Ports(1, 1)).module()
    reference = randn(1, 3, 17, 19).float()
    torch.testing.assert_close(module(reference, torch.zeros(1, 2, 17, 19)), reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("taps", [2, 4, 8])
@pytest.mark.parametrize("block, size", [(4, (17, 19)), (2, (8, 6)), (8, (9, 16))])
def test_warp_of_blocks_is_the_warp_of_their_pixels(taps, block, size):
    warper = plugin("warper", "sinc", {"taps": taps}, Ports(1, 1))
    module = warper.module()
    coarse = 3 * randn(1, 2, -(-size[0] // block), -(-size[1] // block), seed=4)
    coarse[0, :, 0, 0] = torch.tensor([0.0, -300.0])
    coarse.requires_grad_()
    reference = randn(1, 3, *size)
    flow = coarse.repeat_interleave(block, 2).repeat_interleave(block, 3)[:, :, : size[0], : size[1]]
    expected = module(reference, flow)
    for warp in (SincWarper.warp_blocks, WarperPlugin.warp_blocks):
        same_with_gradients(module, warp(warper, module, reference, coarse, block), expected, [coarse])
