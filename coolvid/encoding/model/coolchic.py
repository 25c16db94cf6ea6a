"""One Cool-chic for training: latent grids, entropy model, upsampling and synthesis (arXiv 2212.05458, 2403.11651)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolvid.codec.coded_frame import MAX_LATENT, MODULES, CodedModule, TensorSpec
from coolvid.codec.fixed_point import Integers
from coolvid.errors import ConfigError, within
from coolvid.plugin import registry
from coolvid.plugin.choice import PluginChoice
from coolvid.plugin.contract import check_tensor, reported
from coolvid.plugin.interfaces import TRAINED, QuantizerPlugin, TrainingState
from coolvid.plugin.modules import build_plugins, module_tensors
from coolvid.settings.config import CoolChicEncoderParameter

from .checked import FirstCalls
from .contexts import ContextMatrix, InterFeatures, repeated
from .descriptors import AdditionalData, SelfDescription
from .network_rate import KINDS, USUAL_STEPS, SentModule, Steps, estimated_bits
from .noise import NoiseSource, seeded
from .parameters import copied_parameters, set_parameters
from .rate import latent_bits, log_scale_of

TEMPERATURE = torch.tensor(0.35)
NOISE_PARAMETER = torch.tensor(0.22)


@dataclass
class CoolChicEncoderOutput:
    """raw_out [1, n_out, H, W] is computed on access. rate [n_latents] is in bits, finest grid first.

    coarse: raw_out before the final upsampling [1, n_out, h, w]. additional_data: see CoolChicEncoder.forward.
    """

    rate: Tensor
    coarse: Tensor
    full_size: Callable[[Tensor], Tensor]
    additional_data: AdditionalData = field(default_factory=AdditionalData)

    @cached_property
    def raw_out(self) -> Tensor:
        return self.full_size(self.coarse)


class CoolChicEncoder(SelfDescription):
    """Latents, and the networks that map them to n_out planes and to a rate.

    latents: [1, 1, h, w] each, finest first as in architecture.grids(). The stream holds round(encoder_gain * latents).
    modules_by_name: arm, ifce, synthesis, upsampling. quantization: steps of the networks, by module and kind.
    predictor: modules of an earlier frame, fitted to these shapes, which the stream may predict from.
    """

    def __init__(self, param: CoolChicEncoderParameter, n_out: int = 3, seed: int = 0) -> None:
        """Raises ConfigError or MissingPlugin. Equal seeds give equal parameters and equal training noise."""
        super().__init__()
        self.param = param
        self.architecture = param.architecture(n_out, registry.record)
        self.grids = self.architecture.grids(*param.img_size)
        self.latents = nn.ParameterList([nn.Parameter(torch.zeros(1, 1, g.height, g.width)) for g in self.grids])
        self.plugins = build_plugins(self.architecture)
        self.modules_by_name = nn.ModuleDict(self._fresh_modules(seed))
        self.tensors = module_tensors(self.architecture)
        self.first_calls = FirstCalls()
        self.noise = NoiseSource(seed)
        self.quantization = _no_steps()
        self.predictor: Mapping[str, CodedModule] = {}
        self._predicted: dict[str, dict[str, Tensor]] = {}
        self._randomness: Tensor | None = None
        self._quantizers: dict[str, QuantizerPlugin] = {}
        self._checked: set[str] = set()

    def _fresh_modules(self, seed: int) -> dict[str, nn.Module]:
        """Newly drawn networks."""
        with seeded(seed):
            made = {name: plugin.module() for name, plugin in self.plugins.by_name().items()}
            return dict(sorted({**made, "ifce": InterFeatures(self.architecture)}.items()))

    # -- forward ------------------------------------------------------------------------------------------------

    def forward(
        self,
        quantizer_noise_type: str = "gaussian",
        quantizer_type: str = "softround",
        soft_round_temperature: Tensor | float | None = TEMPERATURE,
        noise_parameter: Tensor | float | None = NOISE_PARAMETER,
        AC_MAX_VAL: int = -1,
        flag_additional_outputs: bool = False,
        no_common_randomness: bool = False,
        only_common_randomness: bool = False,
        state: TrainingState = TRAINED,
    ) -> CoolChicEncoderOutput:
        """Planes and rate. In evaluation mode latents are rounded, whatever the quantizer.

        quantizer_type: a plugin, for example ``softround`` or ``softround:noise=gaussian``. soft_round_temperature,
        noise_parameter: None where the quantizer or the noise does not use them. AC_MAX_VAL: A limits latents to
        [-A, A + 1], -1 does not. flag_additional_outputs: fill additional_data with ``latent``, ``mu``, ``scale``,
        ``log_scale``, ``rate`` [h, w] per grid, and with ``synthesis_input``. no_common_randomness zeroes the noise
        planes, only_common_randomness all others. state: for quantizers that change during training.
        """
        within("AC_MAX_VAL", AC_MAX_VAL, -1, MAX_LATENT)
        if self.training:
            flat = self._quantize(quantizer_noise_type, quantizer_type, soft_round_temperature, noise_parameter, state)
        else:
            flat = self.rounded_latents()
        if AC_MAX_VAL != -1:
            flat = flat.clamp(-AC_MAX_VAL, AC_MAX_VAL + 1)
        planes = self._split(flat)
        rate = self._rate(flat, planes)
        dense = self._dense(planes, no_common_randomness, only_common_randomness)
        coarse = self._synthesis(dense)
        additional = self._additional(flat, planes, rate, dense) if flag_additional_outputs else None
        return self.output(rate, coarse, additional)

    def output(self, rate: Tensor, coarse: Tensor, additional: AdditionalData | None = None) -> CoolChicEncoderOutput:
        """The result of forward(), from its parts."""
        return CoolChicEncoderOutput(rate, coarse, self.full_size, additional or AdditionalData())

    def _scaled(self) -> Tensor:
        """All latents times encoder_gain, flat, finest grid first."""
        return torch.cat([latent.reshape(-1) for latent in self.latents]) * self.param.encoder_gain

    def _quantize(
        self,
        noise_type: str,
        quantizer_type: str,
        temperature: Tensor | float | None,
        parameter: Tensor | float | None,
        state: TrainingState,
    ) -> Tensor:
        scaled = self._scaled()
        _, kind = self.quantizer_and_noise(noise_type, quantizer_type)
        if parameter is None and kind != "none":
            raise ConfigError(f"noise_parameter is None, and {kind} noise needs one; give a number, or noise type none")
        noise = self.noise.draw(kind, float(parameter or 0.0), scaled.detach())
        if temperature is not None:
            return self.quantized(quantizer_type, scaled, noise, temperature, state)
        with torch.no_grad():
            if not bool(self._quantizer(quantizer_type).quantize(scaled, noise, math.nan, state).isfinite().all()):
                raise ConfigError(f"soft_round_temperature is None, and quantizer '{quantizer_type}' needs a number")
        return self.quantized(quantizer_type, scaled, noise, math.nan, state)

    def quantized(
        self,
        quantizer_type: str,
        scaled: Tensor,
        noise: Tensor | None,
        temperature: Tensor | float,
        state: TrainingState,
    ) -> Tensor:
        """Scaled latents [N] after the quantizer. Raises PluginError if its first result is not trainable."""
        quantizer = self._quantizer(quantizer_type)
        if quantizer_type in self._checked:
            return quantizer.quantize(scaled, noise, temperature, state)
        with reported("quantizer", quantizer_type):
            out = quantizer.quantize(scaled, noise, temperature, state)
        check_tensor("quantizer", quantizer_type, out, tuple(scaled.shape), scaled.requires_grad, scaled.dtype)
        self._checked.add(quantizer_type)
        return out

    def quantizer_and_noise(self, noise_type: str, quantizer_type: str) -> tuple[QuantizerPlugin, str]:
        """The quantizer and its kind of noise."""
        quantizer = self._quantizer(quantizer_type)
        return quantizer, quantizer.noise or noise_type

    def _quantizer(self, choice: str) -> QuantizerPlugin:
        """This model's own quantizer of this name and options."""
        if choice not in self._quantizers:
            self._quantizers[choice] = quantizer_plugin(choice)
        return self._quantizers[choice]

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Planes [h, w] of the grids."""
        parts = torch.split(flat, [g.height * g.width for g in self.grids])
        return [part.view(g.shape) for part, g in zip(parts, self.grids, strict=True)]

    def _laplace(self, flat: Tensor, planes: list[Tensor]) -> Tensor:
        """mu and raw log scale of every latent, [2, N]."""
        rows = self._contexts(flat, planes).t()
        return self.first_calls.call("arm", self.plugins.arm, self.modules_by_name["arm"], rows, (len(flat), 2)).t()

    def _rate(self, flat: Tensor, planes: list[Tensor]) -> Tensor:
        """Bits of each latent [N]."""
        fused = self.fused_rate(flat)
        if fused is not None:
            return fused
        laplace = self._laplace(flat, planes)
        return latent_bits(flat, laplace[0], laplace[1])

    def fused_rate(self, flat: Tensor) -> Tensor | None:
        """Bits of each latent [N] from the entropy model's own kernel, or None if no kernel applies."""
        maps = list(self.modules_by_name["ifce"].parameters())
        plugin, module = self.plugins.arm, self.modules_by_name["arm"]
        bits = plugin.rate(module, flat, self.grids, self.architecture, maps)
        if bits is not None:
            self.first_calls.check("arm", plugin, module, [flat, *maps], bits, flat.shape)
        return bits

    def _contexts(self, flat: Tensor, planes: list[Tensor]) -> Tensor:
        shape = self.architecture
        features = self.modules_by_name["ifce"](planes, self.grids)
        out: Tensor = ContextMatrix.apply(flat, self.grids, shape.n_context, shape.n_ifce, *features)  # type: ignore[no-untyped-call]
        return out

    def _dense(self, planes: list[Tensor], no_randomness: bool, only_randomness: bool) -> Tensor:
        """The synthesis input [1, n_in, h, w]."""
        normal = [p[None, None] for p, g in zip(planes, self.grids, strict=True) if not g.is_hyper]
        shape = 1, len(normal), *normal[0].shape[2:]
        dense = self.first_calls.call(
            "upsampling", self.plugins.upsampling, self.modules_by_name["upsampling"], normal, shape
        )
        if self.architecture.common_randomness:
            noise = self.common_noise().to(dense)
            noise = torch.zeros_like(noise) if no_randomness else noise
            dense = torch.cat((torch.zeros_like(dense) if only_randomness else dense, noise), dim=1)
        return dense

    def _synthesis(self, dense: Tensor) -> Tensor:
        """raw_out before the final upsampling [1, n_out, h, w]."""
        shape = 1, self.architecture.n_out, *dense.shape[2:]
        return self.first_calls.call(
            "synthesis", self.plugins.synthesis, self.modules_by_name["synthesis"], dense, shape
        )

    def common_noise(self) -> Tensor:
        """The fixed noise planes [1, n, h, w] for common randomness."""
        if self._randomness is None:
            from coolvid.decoding.noise import common_noise

            values, bits = common_noise(self.architecture, *self.param.img_size)
            self._randomness = torch.from_numpy(values)[None] * 2.0**-bits
        return self._randomness

    def full_size(self, coarse: Tensor) -> Tensor:
        """The final upsampling to [1, n_out, H, W]."""
        doublings = self.architecture.latent_resolution[0]
        if doublings == 0:
            return coarse
        height, width = self.param.img_size
        kind = self.architecture.final_upsampling
        if kind == "nearest":
            return repeated(coarse, doublings, (height, width))
        factor = float(1 << doublings)
        return F.interpolate(coarse, scale_factor=factor, mode=kind, align_corners=False)[..., :height, :width]

    def _additional(self, flat: Tensor, planes: list[Tensor], rate: Tensor, dense: Tensor) -> AdditionalData:
        laplace = self._laplace(flat, planes)
        log_scale = log_scale_of(laplace[1])
        return AdditionalData(
            latent=planes,
            mu=self._split(laplace[0].contiguous()),
            scale=self._split(log_scale.exp()),
            log_scale=self._split(log_scale),
            rate=self._split(rate),
            synthesis_input=dense,
        )

    # -- stages of the evaluation forward, for callers that change one module at a time -------------------------

    def rounded_latents(self) -> Tensor:
        """The latents as sent, [N], finest grid first."""
        return torch.round(self._scaled()).clamp(-MAX_LATENT, MAX_LATENT)

    def planes(self, flat: Tensor) -> list[Tensor]:
        """Values of latents [N] as planes [h, w], finest grid first."""
        return self._split(flat)

    def bits(self, flat: Tensor) -> Tensor:
        """Bits of each of the latents [N], differentiable."""
        return self._rate(flat, self._split(flat))

    def laplace(self, flat: Tensor) -> Tensor:
        """mu and raw log scale of every latent, [2, N]."""
        return self._laplace(flat, self._split(flat))

    def contexts(self, flat: Tensor) -> Tensor:
        """Input of the entropy model for latents [N]: [n_context + n_ifce, N]."""
        return self._contexts(flat, self._split(flat))

    def synthesis_input(self, flat: Tensor) -> Tensor:
        """Upsampled latents [N], plus any common randomness: [1, n_in, h, w]."""
        return self._dense(self._split(flat), False, False)

    def synthesised(self, dense: Tensor) -> Tensor:
        """raw_out [1, n_out, H, W] for this synthesis input."""
        return self.full_size(self._synthesis(dense))

    @torch.no_grad()
    def raw_planes(self) -> Tensor:
        """raw_out [1, n_out, H, W] of the rounded latents."""
        return self.synthesised(self.synthesis_input(self.rounded_latents()))

    # -- parameters ---------------------------------------------------------------------------------------------

    def get_param(self) -> OrderedDict[str, Tensor]:
        """Detached copies of all parameters, by name."""
        return copied_parameters(self)

    def set_param(self, param: Mapping[str, Tensor]) -> None:
        """Write all or some of the parameters from get_param() into the model. Raises ConfigError for an unknown name
        or another shape."""
        set_parameters(self, param)

    def initialize_latent_grids(self) -> None:
        """Set all latents to 0."""
        with torch.no_grad():
            for latent in self.latents:
                latent.zero_()

    def reinitialize_parameters(self, seed: int = 0) -> None:
        """Reset latents to 0, draw the networks again from this seed, and clear the quantization steps."""
        self.initialize_latent_grids()
        for name, module in self._fresh_modules(seed).items():
            self.modules_by_name[name].load_state_dict(module.state_dict())
        self.noise = NoiseSource(seed)
        self.quantization = _no_steps()
        self.predict_from({})

    @torch.no_grad()
    def write_latents(self, flat: Tensor) -> None:
        """Write integer latents [N], as rounded_latents() returns them, into the model."""
        for latent, values in zip(self.latents, self._split(flat / self.param.encoder_gain), strict=True):
            latent.copy_(values)

    def quantized_latents(self) -> tuple[Integers, ...]:
        """The latents as sent: int32 [h, w], finest first, |value| <= MAX_LATENT."""
        flat = self.rounded_latents().detach()
        return tuple(plane.to(torch.int32).cpu().numpy() for plane in self._split(flat))

    # -- networks -----------------------------------------------------------------------------------------------

    def set_network_quantization(self, module: str, steps: Steps) -> None:
        """Record the steps ("weight", "bias") that quantized `module`."""
        self.quantization[module] = dict(steps)

    def predict_from(self, modules: Mapping[str, CodedModule]) -> None:
        """Set the predictor: modules of an earlier frame in the shapes of this frame's.

        Training then counts the cheaper of the parameters and their differences from the predictor.
        """
        self.predictor = dict(modules)
        self._predicted = {name: _values(module, self.tensors[name]) for name, module in modules.items()}

    def estimated_network_bits(self) -> Tensor:
        """Estimated bits of the transmitted networks once quantized, as a differentiable scalar."""
        sent = [each for each in self.sent_modules() if each[1]]
        bits = [estimated_bits(*each) for each in sent]
        return torch.stack([torch.zeros_like(self.latents[0][0, 0, 0, 0]), *bits]).sum()

    def sent_modules(self) -> list[SentModule]:
        """All modules in stream order: tensors, usual step, and the predictor's values, if any."""
        return [(self.modules_by_name[n], self.tensors[n], USUAL_STEPS[n], self._predicted.get(n)) for n in MODULES]


def quantizer_plugin(choice: str) -> QuantizerPlugin:
    """The plugin of a phase's quantizer_type. Raises UnknownPlugin, PluginError, ConfigError."""
    parsed = PluginChoice.parse(choice)
    return cast(QuantizerPlugin, registry.make("quantizer", parsed.name, dict(parsed.options)))


def _values(module: CodedModule, tensors: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Dequantized float32 values of a coded module."""
    shifts = {"weight": module.weight_shift, "bias": module.bias_shift}
    return {s.name: torch.from_numpy(module.parameters[s.name]).float() * 2.0 ** -shifts[s.kind] for s in tensors}


def _no_steps() -> dict[str, dict[str, float | None]]:
    return {name: dict.fromkeys(KINDS) for name in MODULES}
