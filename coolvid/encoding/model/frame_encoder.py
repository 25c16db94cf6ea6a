"""A whole frame for training: residue and motion branches, references, warping and blending (arXiv 2402.03179)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from coolvid.codec.architecture import Ports
from coolvid.codec.coded_frame import MODULES
from coolvid.encoding.loss import loss_function
from coolvid.errors import ConfigError
from coolvid.picture.color import dense_planes, to_dense
from coolvid.picture.types import DictTensorYUV, Frame, FrameType, VideoFormat
from coolvid.plugin.interfaces import TRAINED, TrainingState, WarperPlugin
from coolvid.plugin.registry import build
from coolvid.plugin.shortcuts import WarpKernel
from coolvid.settings.config import FrameConfig, frame_architecture

from . import fused
from .checked import FirstCalls
from .compose import clamped, compose, round_flow
from .coolchic import NOISE_PARAMETER, TEMPERATURE, CoolChicEncoder, CoolChicEncoderOutput
from .descriptors import AdditionalData, DescriptorCoolChic
from .noise import seeded
from .parameters import copied_parameters, set_parameters
from .translation import Shift, global_translation, translate

OutputRange = tuple[tuple[int, int], ...]


@dataclass
class FrameEncoderOutput:
    """decoded_image in [0, 1]; rate: bits of all latents, a scalar.

    additional_data: with flag_additional_outputs, ``residue`` and ``motion`` (as in CoolChicEncoder), ``flow``
    [1, 2n, H, W] and ``predictions``.
    """

    decoded_image: DictTensorYUV | Tensor
    rate: Tensor
    additional_data: AdditionalData = field(default_factory=AdditionalData)


class FrameEncoder(nn.Module):
    """Differentiable model of reconstruct_frame for one frame.

    coolchics: ModuleDict with residue and, for P and B frames, motion. references: dense pictures [1, 3, H, W] in
    [0, 1], already shifted by global_translation. output_range: (minimum, maximum) code value per plane, I frames only.
    """

    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        config: FrameConfig,
        target: Frame | VideoFormat,
        references: Sequence[Frame] = (),
        global_translation: Sequence[Shift] | None = None,
        output_range: OutputRange | None = None,
        seed: int = 0,
    ) -> None:
        """target: the frame to code, or only its format. With a format alone, translations default to (0, 0) and the
        output range to the full range. Raises ConfigError if sizes or the number of references do not match."""
        super().__init__()
        self.config = config
        self.format = target.format if isinstance(target, Frame) else target
        self.architecture = frame_architecture(config)
        self.seed = seed
        self._check(references)
        self.global_translation = _translations(target, references, global_translation)
        self.output_range = _output_range(target, config.frame_type, output_range)
        self.coolchics = nn.ModuleDict(self._branches(seed))
        record = self.architecture.warper
        self.warper_plugin = None if record is None else build("warper", record, Ports(1, 1))
        with seeded(seed):
            self.warper = None if self.warper_plugin is None else self.warper_plugin.module()
        self.first_calls = FirstCalls()
        self._register_pictures(references)

    def _check(self, references: Sequence[Frame]) -> None:
        kind, size = self.config.frame_type, (self.format.height, self.format.width)
        if len(references) != kind.n_references:
            raise ConfigError(f"a {kind.name} frame takes {kind.n_references} references, not {len(references)}")
        for reference in references:
            if reference.format != self.format:
                raise ConfigError(f"reference of format {reference.format} for a frame of {self.format}")
        for branch in (self.config.residue, self.config.motion):
            if branch is not None and tuple(branch.img_size) != size:
                raise ConfigError(f"configuration for img_size {branch.img_size}, frame of (height, width) {size}")

    def _branches(self, seed: int) -> dict[str, CoolChicEncoder]:
        kind = self.config.frame_type
        out = {"residue": CoolChicEncoder(self.config.residue, kind.n_residue, 2 * seed)}
        if self.config.motion is not None:
            out["motion"] = CoolChicEncoder(self.config.motion, kind.n_motion, 2 * seed + 1)
        return out

    def _register_pictures(self, references: Sequence[Frame]) -> None:
        """Register shifted references and the output's gain and offset [1, 3, 1, 1], outside the state dict."""
        for i, (frame, shift) in enumerate(zip(references, self.global_translation, strict=True)):
            self.register_buffer(f"reference_{i}", translate(to_dense(frame.as_tensor()), shift), persistent=False)
        spans = torch.tensor(self.output_range or ((0, self.format.peak),) * 3) / self.format.peak
        self.register_buffer("gain", (spans[:, 1] - spans[:, 0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", spans[:, 0].reshape(1, 3, 1, 1), persistent=False)

    @property
    def references(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, f"reference_{i}") for i in range(self.config.frame_type.n_references))

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
    ) -> FrameEncoderOutput:
        """The picture and the bits of its latents. Both branches get the arguments, as in CoolChicEncoder.forward.

        The picture is clamped to [0, 1]. In training mode its derivatives are those of the unclamped picture. In
        evaluation mode latents are rounded, and flow is rounded to 1/64 pixel.
        """
        outputs: dict[str, CoolChicEncoderOutput] = {
            name: branch(
                quantizer_noise_type=quantizer_noise_type,
                quantizer_type=quantizer_type,
                soft_round_temperature=soft_round_temperature,
                noise_parameter=noise_parameter,
                AC_MAX_VAL=AC_MAX_VAL,
                flag_additional_outputs=flag_additional_outputs,
                no_common_randomness=no_common_randomness,
                only_common_randomness=only_common_randomness,
                state=state,
            )
            for name, branch in self.coolchics.items()
        }
        decoded, predictions = self.decoded(outputs)
        rate = torch.stack([output.rate.sum() for output in outputs.values()]).sum()
        additional = AdditionalData()
        if flag_additional_outputs:
            additional.update({name: output.additional_data for name, output in outputs.items()})
            additional["predictions"] = predictions
            if predictions:
                additional["flow"] = outputs["motion"].raw_out
        return FrameEncoderOutput(decoded, rate, additional)

    def decoded(self, outputs: Mapping[str, CoolChicEncoderOutput]) -> tuple[DictTensorYUV | Tensor, Sequence[Tensor]]:
        """The picture composed from the branches' outputs, and its predictions."""
        predictions = self._predictions(outputs["motion"]) if "motion" in outputs else ()
        return self.compose(outputs["residue"].raw_out, predictions), predictions

    def mean_squared_error(
        self, outputs: Mapping[str, CoolChicEncoderOutput], target: DictTensorYUV | Tensor
    ) -> Tensor | None:
        """Error of decoded(outputs) in training mode, in one step; None without compiled kernels."""
        predictions = self._predictions(outputs["motion"]) if "motion" in outputs else ()
        raw = outputs["residue"].raw_out
        return fused.composed_error(raw, predictions, self.gain, self.offset, _planes(target))

    def error_kernel(self, target: DictTensorYUV | Tensor) -> fused.PictureError | None:
        """The same error from the branches' coarse planes, with derivatives. None if no kernel applies, or if the
        planes are upsampled before use."""
        motion, size = self.architecture.motion, (self.format.height, self.format.width)
        is_direct = motion is None or self.block == 1 << motion.latent_resolution[0]
        if self.architecture.residue.latent_resolution[0] or not is_direct:
            return None
        warps = self._warp_kernels()
        if warps is None or not fused.usable(*_planes(target), self.gain):
            return None
        return fused.PictureError(self.gain, self.offset, _planes(target), warps, size)

    def _predictions(self, motion: CoolChicEncoderOutput) -> tuple[Tensor, ...]:
        """Each reference warped by its flow."""
        flow = motion.coarse if self.block > 1 else motion.raw_out
        return self._warped(flow if self.training else round_flow(flow))

    def warp(self, flow: Tensor) -> tuple[Tensor, ...]:
        """Each reference [1, 3, H, W] warped by its part of the flow [1, 2n, H, W] in pixels."""
        return self._warped(flow[:, :, :: self.block, :: self.block])

    def _warped(self, flow: Tensor) -> tuple[Tensor, ...]:
        """Each reference warped by its part of the flow [1, 2n, h, w], one vector per block."""
        plugin, module = self._warper()
        out = []
        for reference, part in zip(self.references, torch.split(flow, 2, dim=1), strict=True):
            is_dense = self.block == 1
            made = module(reference, part) if is_dense else plugin.warp_blocks(module, reference, part, self.block)
            self.first_calls.check("warper", plugin, module, part, made, reference.shape)
            out.append(made)
        return tuple(out)

    def _warp_kernels(self) -> list[WarpKernel] | None:
        """The warper's kernel for each reference, or None if it has no kernel."""
        if self.warper_plugin is None:
            return []
        plugin, module = self._warper()
        found = [plugin.kernel(module, reference, self.block) for reference in self.references]
        kernels = [kernel for kernel in found if kernel is not None]
        return kernels if len(kernels) == len(found) else None

    def _warper(self) -> tuple[WarperPlugin, nn.Module]:
        """Warper plugin and module of a P or B frame."""
        assert self.warper_plugin is not None and self.warper is not None
        return self.warper_plugin, self.warper

    @property
    def block(self) -> int:
        """Side of the square of pixels that share a flow vector."""
        motion = self.architecture.motion
        return 1 if motion is None or motion.final_upsampling != "nearest" else 1 << motion.latent_resolution[0]

    def compose(self, raw: Tensor, predictions: Sequence[Tensor]) -> DictTensorYUV | Tensor:
        """The clamped picture from the residue's raw_out and the warped references; derivatives as in forward()."""
        picture = compose(raw, predictions, self.gain, self.offset, self.format.pixel_format)
        return clamped(picture, is_straight=self.training)

    @torch.no_grad()
    def picture(self) -> Frame:
        """The float model's decoded picture, rounded to the bit depth."""
        was_training = self.training
        self.eval()
        decoded = self().decoded_image
        self.train(was_training)
        return Frame.from_tensor(decoded, self.format)

    # -- parameters ---------------------------------------------------------------------------------------------

    loss_function = staticmethod(loss_function)

    def get_param(self) -> OrderedDict[str, Tensor]:
        """Detached copies of all parameters, by name."""
        return copied_parameters(self)

    def set_param(self, param: Mapping[str, Tensor]) -> None:
        """Write all or some of the parameters from get_param() into the model. Raises ConfigError for an unknown name
        or another shape."""
        set_parameters(self, param)

    def initialize_latent_grids(self) -> None:
        """Set all latents of both branches to 0."""
        for branch in self.branches.values():
            branch.initialize_latent_grids()

    def reinitialize_parameters(self, seed: int = 0) -> None:
        """Reset both branches to their initial state for this seed."""
        for i, branch in enumerate(self.branches.values()):
            branch.reinitialize_parameters(2 * seed + i)

    @property
    def coolchic_encoder(self) -> CoolChicEncoder:
        """The residue branch, the only one of an I frame."""
        return self.branches["residue"]

    @property
    def branches(self) -> dict[str, CoolChicEncoder]:
        """The Cool-chics by name, with their static type."""
        return dict(self.coolchics.items())  # type: ignore[arg-type]

    def named_groups(self) -> dict[str, list[nn.Parameter]]:
        """Groups of parameters that train() accepts: ``residue.arm``, ``motion.latents``, ``residue.all``,
        ``all.synthesis``, ``all.warper``, ``all``. ``residue.coarse`` holds the latents of all grids but the finest.
        The warper serves both branches and appears once in ``all``."""
        groups: dict[str, list[nn.Parameter]] = {}
        parts = (*MODULES, "latents", "coarse", "warper")
        for name, branch in self.branches.items():
            for part in parts:
                groups[f"{name}.{part}"] = list(self._part(branch, part).parameters())
            groups[f"{name}.all"] = _unique(p for part in parts for p in groups[f"{name}.{part}"])
        for part in (*parts, "all"):
            groups[f"all.{part}"] = _unique(p for name in self.branches for p in groups[f"{name}.{part}"])
        return groups | {"all": groups["all.all"]}

    def _part(self, branch: CoolChicEncoder, part: str) -> nn.Module:
        if part == "warper":
            return self.warper if self.warper is not None else nn.Identity()
        if part == "coarse":
            return branch.latents[1:]
        return branch.latents if part == "latents" else branch.modules_by_name[part]

    # -- networks -----------------------------------------------------------------------------------------------

    def get_network_rate(self) -> tuple[dict[str, DescriptorCoolChic], float]:
        """Bits of the networks of each branch, and their sum; 0 before quantization."""
        rates = {name: branch.get_network_rate() for name, branch in self.branches.items()}
        return {name: rate for name, (rate, _) in rates.items()}, sum(total for _, total in rates.values())

    def estimated_network_bits(self) -> Tensor:
        """Estimated bits of all networks once quantized, as a differentiable scalar."""
        return torch.stack([branch.estimated_network_bits() for branch in self.branches.values()]).sum()

    def get_total_mac_per_pixel(self) -> float:
        """Multiplications per decoded pixel, for both branches."""
        return sum(branch.get_total_mac_per_pixel() for branch in self.branches.values())

    def get_flops(self) -> None:
        """Set total_flops, the multiplications to decode the frame without warping, and flops_str, str_complexity()."""
        self.total_flops = sum(round(branch.complexity().total) for branch in self.branches.values())
        self.flops_str = self.str_complexity()

    def str_complexity(self) -> str:
        """The branches' tables, one below the other."""
        return "\n\n".join(f"{name}\n{branch.str_complexity()}" for name, branch in self.branches.items())


def _translations(
    target: Frame | VideoFormat, references: Sequence[Frame], given: Sequence[Shift] | None
) -> tuple[Shift, ...]:
    if given is not None:
        if len(given) != len(references):
            raise ConfigError(f"{len(given)} global translations for {len(references)} references")
        return tuple((int(dy), int(dx)) for dy, dx in given)
    if isinstance(target, VideoFormat):
        return ((0, 0),) * len(references)
    return tuple(global_translation(target, reference) for reference in references)


def _output_range(target: Frame | VideoFormat, frame_type: FrameType, given: OutputRange | None) -> OutputRange | None:
    if frame_type is not FrameType.I or given is not None:
        return given if frame_type is FrameType.I else None
    if isinstance(target, VideoFormat):
        return None
    return tuple((int(plane.min()), int(plane.max())) for plane in dense_planes(target))


def _planes(picture: DictTensorYUV | Tensor) -> list[Tensor]:
    return [picture] if isinstance(picture, Tensor) else [picture["y"], picture["u"], picture["v"]]


def _unique(parameters: Any) -> list[nn.Parameter]:
    """Each parameter once, in order."""
    return list({id(p): p for p in parameters}.values())
