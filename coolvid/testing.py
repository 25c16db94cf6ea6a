"""Conformance checks for plugin authors: ``check("synthesis", "mine", {"width": 4})`` as a one-line test.

Every check is deterministic and small. A failure raises a PluginError that names the plugin, the check and the numbers.
The checks cover the contract in interfaces.py; see docs/PLUGINS.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import kernels
from .codec.architecture import Ports
from .codec.fixed_point import ARM_OUT_BITS, CONTEXT_BITS, FLOW_BITS, INT16_MAX, INT16_MIN, PREDICTION_BITS, Integers
from .decoding.contexts import nearest
from .decoding.frame import translated
from .encoding.model.coolchic import CoolChicEncoder
from .encoding.model.rate import latent_bits
from .errors import ConfigError
from .picture.color import dense_planes
from .picture.types import ColorInfo, Frame, PixelFormat, VideoFormat
from .plugin.agreement import check_layer_kernel, check_rate, check_rate_kernel, check_warp, folded_outputs, same
from .plugin.choice import PluginChoice
from .plugin.conformance import (
    Case,
    Subject,
    finite,
    random_parameters,
    randomized,
    require,
    rng,
    run_alone,
    seeded,
)
from .plugin.interfaces import (
    TRAINED,
    ArmPlugin,
    DistortionPlugin,
    MotionPlugin,
    NormativePlugin,
    QuantizerPlugin,
    SynthesisPlugin,
    TrainingState,
    UpsamplingPlugin,
    WarperPlugin,
)
from .settings.config import NETWORK_SETTINGS, CoolChicEncoderParameter

Given = Mapping[str, Any] | None

HEIGHT, WIDTH = 33, 47
START = TrainingState(0, 100)
TEMPERATURES = (1e-2, 0.08, 0.35, 1.0)
# Largest difference of the integer warp from the float warp, in code values.
WARP_LIMIT = 0.25


def check(kind: str, name: str, options: Given = None) -> None:
    """All checks of one installed plugin. options: overrides of its defaults.

    Raises PluginError (a check failed, or the plugin does not load), UnknownPlugin, ConfigError (kind or options).
    """
    if kind not in CHECKS:
        raise ConfigError(f"no plugin kind '{kind}'; choose one of {', '.join(CHECKS)}")
    CHECKS[kind](name, options)


def _settings() -> dict[str, Any]:
    """Settings of small networks, for plugins that follow them."""
    layers = "8-1-linear-relu,X-1-linear-none,X-3-residual-none"
    parameter = CoolChicEncoderParameter(img_size=(HEIGHT, WIDTH), layers_synthesis=layers)
    return {name: getattr(parameter, name) for name in NETWORK_SETTINGS}


def check_arm(name: str, options: Given = None) -> None:
    """[N, n_in] -> [N, 2] in both forms; rows must be independent, because the decoder uses another order."""
    for n_in in (6, 14):
        subject = Subject("arm", name)
        plugin = subject.normative(Ports(n_in, 2), options, _settings())
        contexts = rng(n_in).integers(-8 << CONTEXT_BITS, 8 << CONTEXT_BITS, (50, n_in), dtype=np.int32)
        floats = torch.from_numpy(contexts).float() * 2.0**-CONTEXT_BITS
        case = Case((floats,), (contexts,), (50, 2), out_bits=ARM_OUT_BITS)
        subject.check_module(plugin, case)
        integer = subject.check_integer(plugin, case)
        with subject.checking("independence of rows"):
            whole = integer(contexts)
            alone = np.concatenate([integer(contexts[i : i + 1]) for i in range(len(contexts))])
            wrong = int((whole != alone).any(axis=1).sum())
            require(wrong == 0, f"{wrong} of {len(contexts)} rows change when computed one at a time")
            extreme = np.full((2, n_in), INT16_MAX, np.int32)
            extreme[1] = INT16_MIN
            limit = int(np.abs(integer(extreme).astype(np.int64)).max())
            require(limit < 1 << 31, f"outputs {limit} for extreme contexts do not fit int32")
        _check_arm_shortcuts(subject, plugin, integer, np.concatenate((contexts, extreme)))
    _check_rates(subject, name, options)
    run_alone(subject, plugin)


def _check_arm_shortcuts(subject: Subject, plugin: NormativePlugin, integer: Any, contexts: Integers) -> None:
    assert isinstance(plugin, ArmPlugin)
    with subject.checking("choose_scales"):
        one, other = (plugin.integer(random_parameters(plugin)) for _ in range(2))
        one(contexts)
        plugin.choose_scales(other, contexts)
        scales = [tuple(form.scales) if plugin.n_scales() else () for form in (one, other)]
        require(scales[0] == scales[1], f"it chooses {scales[1]}; the call chooses {scales[0]}")
    with subject.checking("folded"):
        layers = plugin.folded(integer)
        if layers is not None:
            same(folded_outputs(layers, contexts), integer(contexts))


def _check_rates(subject: Subject, name: str, options: Given) -> None:
    """rate() and kernel() of an ARM, in a small Cool-chic."""
    own = PluginChoice(name, tuple((options or {}).items()))
    size, layers = (HEIGHT, WIDTH), "X-1-linear-none"
    coolchic = CoolChicEncoder(CoolChicEncoderParameter(size, layers, spatial_context_arm=8, arm=own), 3)
    plugin, architecture, grids = coolchic.plugins.arm, coolchic.architecture, coolchic.grids
    module, maps = (coolchic.modules_by_name[n] for n in ("arm", "ifce"))
    values = {n: torch.from_numpy(p.as_float()).float() for n, p in random_parameters(plugin).items()}
    module.load_state_dict(values)
    with torch.no_grad():
        for i, parameter in enumerate(maps.parameters()):
            parameter.copy_(torch.from_numpy(rng(i).normal(0, 0.2, parameter.shape)))
    flat = torch.from_numpy(rng(3).normal(0, 1.5, sum(g.height * g.width for g in grids))).float()
    given = [flat], list(module.parameters()), list(maps.parameters())

    def plain(latents: Tensor) -> Tensor:
        return latent_bits(latents, *coolchic.laplace(latents))

    if plugin.rate(module, flat, grids, architecture, given[2]) is not None:
        check_rate(subject, plain, lambda x: plugin.rate(module, x, grids, architecture, given[2]), *given)  # type: ignore[arg-type, return-value]
    kernel = plugin.kernel(module, grids, architecture)
    if kernel is not None:
        check_rate_kernel(subject, plain, kernel, *given)


def check_upsampling(name: str, options: Given = None) -> None:
    """Grids of an odd frame size, finest first -> planes of the finest grid's size."""
    for n in (4, 1):
        subject = Subject("upsampling", name)
        plugin = subject.normative(Ports(n, n), options, _settings())
        sizes = [(-(-HEIGHT >> i), -(-WIDTH >> i)) for i in range(n)]
        grids = [rng(i).integers(-20, 21, size, dtype=np.int32) for i, size in enumerate(sizes)]
        floats = [torch.from_numpy(grid)[None, None].float() for grid in grids]
        case = Case((floats,), (grids,), (1, n, HEIGHT, WIDTH))
        subject.check_module(plugin, case)
        integer = subject.check_integer(plugin, case)
        extreme = [np.full(size, INT16_MAX, np.int32) * (-1) ** i for i, size in enumerate(sizes)]
        subject.check_range(integer, (extreme,))
        assert isinstance(plugin, UpsamplingPlugin)
        module = randomized(plugin)
        kernel = plugin.kernel(module, sizes)
        if kernel is not None:
            check_layer_kernel(subject, kernel, module, floats, case.shape)
        with subject.checking("folded"):
            filters = None if kernels.decode is None else plugin.folded(integer)
            if kernels.decode is not None and filters is not None:
                same(kernels.decode.upsampling(grids, *filters), integer(grids))
    run_alone(subject, plugin)


def check_synthesis(name: str, options: Given = None) -> None:
    """Planes -> outputs of the same size, with and without planes of common randomness."""
    for ports in (Ports(3, 5), Ports(6, 3, 3), Ports(5, 2)):
        subject = Subject("synthesis", name)
        plugin = subject.normative(ports, options, _settings())
        bits = 8
        planes = rng(ports.n_in).integers(-4 << bits, 4 << bits, (ports.n_in, HEIGHT, WIDTH), dtype=np.int32)
        floats = torch.from_numpy(planes)[None].float() * 2.0**-bits
        case = Case((floats,), (planes, bits), (1, ports.n_out, HEIGHT, WIDTH))
        subject.check_module(plugin, case)
        integer = subject.check_integer(plugin, case)
        subject.check_range(integer, (np.full_like(planes, INT16_MIN), bits))
        assert isinstance(plugin, SynthesisPlugin)
        module = randomized(plugin)
        kernel = plugin.kernel(module, HEIGHT, WIDTH)
        if kernel is not None:
            check_layer_kernel(subject, kernel, module, floats, case.shape)
        with subject.checking("folded"):
            layers = None if kernels.decode is None else plugin.folded(integer, bits)
            if kernels.decode is not None and layers is not None:
                same(kernels.decode.synthesis(planes, *layers), integer(planes, bits))
    run_alone(subject, plugin)


def check_warper(name: str, options: Given = None) -> None:
    """Agreement on flows that are multiples of 1/64 pixel, the direction of the flow, and the border."""
    subject = Subject("warper", name)
    plugin = subject.normative(Ports(1, 1), options, {"warp_filter_size": 8})
    reference = rng(0).integers(0, 256, (2, HEIGHT, WIDTH), dtype=np.int32)
    flow = rng(1).integers(-8 << FLOW_BITS, 8 << FLOW_BITS, (2, HEIGHT, WIDTH), dtype=np.int32)
    flow[:, ::2] &= -1 << FLOW_BITS
    floats = (_picture(reference), _picture(flow) * 2.0**-FLOW_BITS)
    case = Case(
        floats, (reference, flow), (1, 2, HEIGHT, WIDTH), out_bits=PREDICTION_BITS, limit=WARP_LIMIT, fixed_inputs=(0,)
    )
    subject.check_module(plugin, case)
    integer = subject.check_integer(plugin, case)
    with subject.checking("direction of the flow"):
        for dy, dx in ((0, 0), (2, -3), (0, 100), (-100, 0)):
            _check_shift(integer, reference, dy, dx)
    with subject.checking("far flow"):
        for far in (INT16_MAX, INT16_MIN):
            finite("prediction", integer(reference, np.full_like(flow, far)))
    assert isinstance(plugin, WarperPlugin)
    for log2 in (1, 3):
        size = -(-HEIGHT >> log2), -(-WIDTH >> log2)
        vectors = rng(log2).integers(-5 << FLOW_BITS, 5 << FLOW_BITS, (2, *size), dtype=np.int32)
        check_warp(subject, plugin, _picture(reference) / 255, _picture(vectors) * 2.0**-FLOW_BITS + 0.004, 1 << log2)
        _check_of_frame(subject, plugin, integer, vectors, log2)
    run_alone(subject, plugin)


def _check_of_frame(subject: Subject, plugin: WarperPlugin, integer: Any, vectors: Integers, log2: int) -> None:
    """of_frame() against the call with the core's planes and vectors of the same reference and flow."""
    with subject.checking("of_frame"):
        format = VideoFormat(HEIGHT, WIDTH, PixelFormat.YUV420, 8)
        y, u, v = (rng(4).integers(0, 256, shape).astype(np.uint16) for shape in format.plane_shapes)
        frame = Frame((y, u, v), format)
        for shift in ((0, 0), (3, -2), (-90, 90)):
            made = plugin.of_frame(integer, frame, shift, vectors, log2)
            if made is not None:
                dense = nearest(vectors, log2, HEIGHT, WIDTH)
                same(made, integer(translated(dense_planes(frame), *shift), dense))


def _picture(x: Integers) -> Tensor:
    return torch.from_numpy(x)[None].float()


def _check_shift(integer: Callable[..., Integers], reference: Integers, dy: int, dx: int) -> None:
    """A constant flow of whole pixels moves the picture, out[i, j] = reference[i + dy, j + dx], border replicated."""
    flow = np.zeros((2, HEIGHT, WIDTH), np.int32)
    flow[0], flow[1] = dx << FLOW_BITS, dy << FLOW_BITS
    rows, columns = np.clip(np.arange(HEIGHT) + dy, 0, HEIGHT - 1), np.clip(np.arange(WIDTH) + dx, 0, WIDTH - 1)
    wanted = reference[:, rows][:, :, columns]
    error = np.abs(integer(reference, flow) * 2.0**-PREDICTION_BITS - wanted).max()
    require(error <= WARP_LIMIT, f"flow x={dx}, y={dy} is off by {error:.2f} code values, at most {WARP_LIMIT} allowed")


def check_quantizer(name: str, options: Given = None) -> None:
    """[N] -> [N], near its input, with finite gradients at integers, halves and large values, at any temperature."""
    subject = Subject("quantizer", name)
    plugin = subject.encoder_only(options)
    assert isinstance(plugin, QuantizerPlugin)
    special = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 1e-6, -1e-6, 0.499999, 1e4, -1e4])
    x = torch.cat((special, torch.from_numpy(rng(0).normal(0, 3, 200)).float()))
    noise = torch.from_numpy(rng(1).uniform(-0.5, 0.5, len(x))).float()
    for temperature in (*TEMPERATURES, torch.tensor(0.2)):
        for given, reach in ((None, 1.0), (noise, 1.5)):
            _check_rounding(subject, plugin, x, given, temperature, reach)


def _check_rounding(
    subject: Subject, plugin: QuantizerPlugin, x: Tensor, noise: Tensor | None, temperature: Any, reach: float
) -> None:
    where = f"temperature {float(temperature):g}, {'no noise' if noise is None else 'noise'}"
    with subject.checking(f"quantize at {where}"), seeded():
        leaf = x.clone().requires_grad_()
        out = plugin.quantize(leaf, noise, temperature, START)
        require(out.shape == x.shape, f"{tuple(x.shape)} becomes {tuple(out.shape)}")
        finite("output", out)
        require(out.requires_grad, "the output does not depend on x for autograd (use a differentiable operation)")
        out.sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        finite("gradient", leaf.grad)
        require(torch.equal(leaf.detach(), x), "x was changed in place")
        distance = float((out.detach() - x).abs().max())
        require(distance <= reach + 1e-2, f"values move by up to {distance:.3f}, at most {reach} allowed")
        again = plugin.quantize(x, noise, temperature, START)
        require(torch.equal(out.detach(), again.detach()), "two calls with the same arguments differ")


def check_distortion(name: str, options: Given = None) -> None:
    """A scalar, zero for equal pictures, increasing with the error, differentiable also at zero error."""
    subject = Subject("distortion", name)
    plugin = subject.encoder_only(options)
    assert isinstance(plugin, DistortionPlugin)
    chroma = (HEIGHT + 1) // 2, (WIDTH + 1) // 2
    for layout, shapes in (
        ("4:4:4", [(3, HEIGHT, WIDTH)]),
        ("4:2:0", [(1, HEIGHT, WIDTH), (1, *chroma), (1, *chroma)]),
    ):
        target = [torch.from_numpy(rng(i).uniform(0.2, 0.8, (1, *s))).float() for i, s in enumerate(shapes)]
        error = [torch.from_numpy(rng(9 + i).normal(0, 1, (1, *s))).float() for i, s in enumerate(shapes)]
        values = []
        for size in (0.0, 0.02, 0.2):
            with subject.checking(f"distortion of {layout} with error {size}"), seeded():
                decoded = [t + size * e for t, e in zip(target, error, strict=True)]
                values.append(_distortion(plugin, decoded, target))
        with subject.checking(f"order on {layout}"):
            require(abs(values[0]) <= 1e-6, f"equal pictures have distortion {values[0]:.3g}, not 0")
            require(values[0] < values[1] < values[2], f"errors 0, 0.02, 0.2 have distortions {values}")


def _distortion(plugin: DistortionPlugin, decoded: list[Tensor], target: list[Tensor]) -> float:
    leaves = [d.clone().requires_grad_() for d in decoded]
    prepared = plugin.prepare(_as_picture(target), ColorInfo())
    out = plugin.distortion(_as_picture(leaves), prepared, TRAINED)
    require(out.numel() == 1 and out.dim() == 0, f"the output has shape {tuple(out.shape)}, not that of a scalar")
    finite("output", out)
    value = float(out.detach())
    out.backward()  # type: ignore[no-untyped-call]
    for leaf in leaves:
        require(leaf.grad is not None, "no gradient reaches a decoded plane")
        assert leaf.grad is not None
        finite("gradient", leaf.grad)
    again = float(plugin.distortion(_as_picture(decoded), prepared, TRAINED).detach())
    require(again == value, f"two calls with the same pictures give {value} and {again}")
    _check_claims(plugin, decoded, target, prepared, value)
    return value


def _check_claims(
    plugin: DistortionPlugin, decoded: list[Tensor], target: list[Tensor], prepared: Any, value: float
) -> None:
    """Declarations of a distortion: scale, is_squared_error, and sample errors that add up to it."""
    require(0 < plugin.scale < math.inf, f"scale is {plugin.scale}; it must be greater than 0")
    if plugin.is_squared_error:
        squares = sum(float((d - t).square().sum()) for d, t in zip(decoded, target, strict=True))
        wanted = plugin.scale * squares / sum(t.numel() for t in target)
        close = math.isclose(value, wanted, rel_tol=1e-4, abs_tol=1e-9)
        require(close, f"is_squared_error, but {value:.6g} is not scale * mean squared error, {wanted:.6g}")
    errors = plugin.errors(_as_picture(decoded), prepared)
    if errors is not None:
        shapes = [tuple(plane.shape) for plane in decoded]
        require([tuple(e.shape) for e in errors] == shapes, f"errors() has planes other than {shapes}")
        total = sum(float(e.detach().sum()) for e in errors)
        close = math.isclose(total, value, rel_tol=1e-3, abs_tol=1e-9)
        require(close, f"errors() add up to {total:.6g}, the distortion is {value:.6g}")


def _as_picture(planes: list[Tensor]) -> Any:
    return planes[0] if len(planes) == 1 else dict(zip("yuv", planes, strict=True))


def check_motion(name: str, options: Given = None) -> None:
    """float32 [2, H, W] in pixels, x then y; finds the shift of a smooth texture; flat pictures stay finite."""
    subject = Subject("motion", name)
    plugin = subject.encoder_only(options)
    assert isinstance(plugin, MotionPlugin)
    texture = _texture(80, 112)
    reference = texture[8:72, 8:104]
    for dy, dx in ((0, 0), (1, -2), (-2, 3)):
        with subject.checking(f"flow of a shift by x={dx}, y={dy}"):
            target = texture[8 + dy : 72 + dy, 8 + dx : 104 + dx]
            flow = _flow(plugin, target, reference)
            found = [float(np.median(flow[i, 12:-12, 12:-12])) for i in (0, 1)]
            near = abs(found[0] - dx) <= 0.5 and abs(found[1] - dy) <= 0.5
            require(near, f"the median flow is x={found[0]:.2f}, y={found[1]:.2f}; at most 0.5 off is allowed")
    with subject.checking("flow of flat and of odd-sized pictures"):
        flat = np.full((HEIGHT, WIDTH), 0.5, np.float32)
        _flow(plugin, flat, flat)
        _flow(plugin, texture[:17, :19], texture[:17, :19])


def _flow(plugin: MotionPlugin, target: Any, reference: Any) -> Any:
    target, reference = (np.ascontiguousarray(x) for x in (target, reference))
    kept = target.copy(), reference.copy()
    flow = plugin.flow(target, reference)
    wanted = (2, *target.shape)
    require(flow.shape == wanted, f"the flow has shape {flow.shape}, not {wanted}")
    require(flow.dtype == np.float32, f"the flow is {flow.dtype}, not float32")
    finite("flow", flow)
    same = np.array_equal(kept[0], target) and np.array_equal(kept[1], reference)
    require(same, "an input was changed in place")
    require(np.array_equal(flow, plugin.flow(target, reference)), "two calls with the same pictures differ")
    return flow


def _texture(height: int, width: int) -> Any:
    """A smooth picture in [0, 1] with detail in every direction, float32 [height, width]."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = (np.sin(fy * y + fx * x + p) for fy, fx, p in ((0.31, 0.13, 0), (-0.17, 0.29, 1), (0.11, -0.41, 2)))
    return (0.5 + 0.15 * np.asarray(sum(waves))).astype(np.float32)


CHECKS: dict[str, Callable[[str, Given], None]] = {
    "arm": check_arm,
    "upsampling": check_upsampling,
    "synthesis": check_synthesis,
    "warper": check_warper,
    "quantizer": check_quantizer,
    "distortion": check_distortion,
    "motion": check_motion,
}
