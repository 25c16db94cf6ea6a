"""The plugin API on one screen.

There are two sorts of plugins. *Normative* plugins (arm, upsampling, synthesis, warper) are needed to decode: the
stream holds their name, version and options. *Encoder-only* plugins (quantizer, distortion, motion) are not in it.

A plugin is a class, published under the entry-point group ``coolvid.<kind>``. It is built from its options. A frozen
dataclass defines them on the command line (``--synthesis NAME:key=value,...``), in TOML and, for normative plugins, in
the stream header. Nothing here imports torch at run time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.architecture import Architecture, Grid, Ports
from coolvid.codec.coded_frame import TensorSpec
from coolvid.codec.fixed_point import FixedPoint, Integers
from coolvid.errors import ConfigError
from coolvid.values import fit_like

from .shortcuts import Array, FoldedArm, FoldedSynthesis, FoldedUpsampling, LayerKernel, RateKernel, WarpKernel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coolvid.picture.types import ColorInfo, Frame

NORMATIVE = ("arm", "upsampling", "synthesis", "warper")
ENCODER_ONLY = ("quantizer", "distortion", "motion")
KINDS = NORMATIVE + ENCODER_ONLY


@dataclass(frozen=True)
class PluginOptions:
    """Base of all option records. Fields hold int, bool, float, str or nested tuples of these; all have defaults."""

    def values(self) -> tuple[Any, ...]:
        """The fields as nested tuples, for the stream."""
        return astuple(self)

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> Self:
        """Inverse of values(). Raises ConfigError if the values do not fit this record."""
        known = fields(cls)
        if len(values) != len(known):
            raise ConfigError(f"{cls.__qualname__} takes {len(known)} options, not {len(values)}")
        return cls(*(fit_like(value, f.default, f"option {f.name}") for f, value in zip(known, values, strict=True)))


class Plugin(ABC):
    """Common part of all plugins: a name, a version, options."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, options: Any) -> None:
        self.options = options


class NormativePlugin(Plugin):
    """A module that the decoder needs. It describes itself, and creates its torch and integer forms on request.

    The other methods of each kind are shortcuts (see shortcuts.py). They take the result of module() or integer(), give
    the same result as a call of it, and may return None. A subclass of another plugin that overrides module() or
    integer() must also override them; coolvid.testing.check compares shortcuts with calls.

    follows: options with an encoder setting as default, option -> setting. arm, upsampling and synthesis may follow
    settings.config.NETWORK_SETTINGS, a warper warp_filter_size.
    """

    follows: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__(options)
        self.ports = ports

    @classmethod
    def adapted(cls, option: str, value: Any, ports: Ports) -> Any:
        """The value of the followed setting, converted for the option."""
        return value

    def tensors(self) -> tuple[TensorSpec, ...]:
        """All parameters in stream order."""
        return ()

    def macs(self) -> float:
        """Multiplications per output position (upsampling: per pixel of the finest grid, all planes)."""
        return 0.0

    @abstractmethod
    def module(self) -> nn.Module:
        """The differentiable form; its state dict has exactly the names and shapes of tensors()."""

    def canonical(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Equivalent parameters that cost fewer bits, if any. Quantization starts from them."""
        return values

    def ordered(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Equivalent parameters with the units in the order that costs the fewest bits without prediction."""
        return values

    @abstractmethod
    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> Any:
        """The integer form, numpy only. With scales=None it chooses scales from the data at its first call and keeps
        them in ``.scales`` (a tuple of 0..15, of length n_scales())."""

    def n_scales(self) -> int:
        return 0


class ArmPlugin(NormativePlugin):
    """Contexts -> Laplace parameters.

    module: forward(context [N, n_in]) -> [N, 2] = (mu, raw log scale); the core applies exp(clamp(raw - 4, -5, 5)).
    integer: f(context int32 [N, n_in], CONTEXT_BITS fractional bits) -> int32 [N, 2] with 16 fractional bits.
    """

    def rate(
        self,
        module: nn.Module,
        latents: Tensor,
        grids: Sequence[Grid],
        architecture: Architecture,
        ifce: Sequence[Tensor],
    ) -> Tensor | None:
        """Bits [N] of the latents [N] of all grids, finest first: contexts, features and Laplace rate in one
        differentiable step. ifce: parameters of the inter-feature maps. None: the core computes contexts and rate."""
        return None

    def kernel(self, module: nn.Module, grids: Sequence[Grid], architecture: Architecture) -> RateKernel | None:
        """rate() without autograd."""
        return None

    def choose_scales(self, form: Any, contexts: Integers) -> None:
        """Let the integer form choose its scales from contexts int32 [N, n_in]."""
        form(contexts)

    def folded(self, form: Any) -> FoldedArm | None:
        """The integer form, with known scales, as linear layers."""
        return None


class UpsamplingPlugin(NormativePlugin):
    """Grids -> planes of the finest grid's size.

    module: forward(list of [1, 1, h, w], finest first) -> [1, n, H, W].
    integer: f(list of int32 [h, w], finest first) -> int32 [n, H, W] within int16, with ``.out_bits`` fractional bits.
    """

    def kernel(self, module: nn.Module, sizes: Sequence[tuple[int, int]]) -> LayerKernel[Sequence[Array]] | None:
        """The module without autograd, for grids of these sizes (h, w)."""
        return None

    def folded(self, form: Any) -> FoldedUpsampling | None:
        """The integer form, with known scales, as filters."""
        return None


class SynthesisPlugin(NormativePlugin):
    """Planes -> outputs.

    module: forward([1, n_in, H, W]) -> [1, n_out, H, W].
    integer: f(planes int32 [n_in, H, W] within int16, their fractional bits) -> int32 [n_out, H, W] within int16,
    with ``.out_bits`` fractional bits.
    """

    def kernel(self, module: nn.Module, height: int, width: int) -> LayerKernel[Array] | None:
        """The module without autograd, for planes of this size."""
        return None

    def folded(self, form: Any, in_bits: int) -> FoldedSynthesis | None:
        """The integer form, with known scales, as convolutions of planes with in_bits fractional bits."""
        return None


class WarperPlugin(NormativePlugin):
    """Motion compensation, out[i, j] = reference[i + flow_y, j + flow_x], border replicated.

    module: forward(reference [1, C, H, W], flow [1, 2, H, W] in pixels, x then y) -> [1, C, H, W].
    integer: f(reference int32 [C, H, W] code values, flow int32 [2, H, W] in 1/64 pixel, x then y)
    -> int32 [C, H, W] code values with PREDICTION_BITS fractional bits.
    """

    def warp_blocks(self, module: nn.Module, reference: Tensor, flow: Tensor, block: int) -> Tensor:
        """The module with one vector per block x block pixels, flow [1, 2, ceil(H / block), ceil(W / block)]."""
        height, width = reference.shape[2:]
        dense = flow.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)[:, :, :height, :width]
        out: Tensor = module(reference, dense)
        return out

    def kernel(self, module: nn.Module, reference: Tensor, block: int) -> WarpKernel | None:
        """warp_blocks() of this reference without autograd."""
        return None

    def of_frame(
        self, form: Any, reference: Frame, translation: tuple[int, int], flow: Integers, log2: int
    ) -> NDArray[np.int16] | None:
        """The integer form on the reference's dense planes, shifted by translation (dy, dx) in whole pixels, with one
        vector of flow int32 [2, h, w] per 2**log2 x 2**log2 pixels: int16 [3, H, W]. None: the core shifts the
        planes, repeats the vectors and calls the form."""
        return None


@dataclass(frozen=True)
class QuantizerOptions(PluginOptions):
    """noise: kumaraswamy, gaussian or none; '' leaves the choice to the training phase."""

    noise: str = ""


@dataclass(frozen=True)
class TrainingState:
    """Progress of training, for plugins that change over time (annealing).

    iteration: 0 .. total - 1 of the current phase. Validation, and everything after training, has iteration == total.
    """

    iteration: int
    total: int

    @property
    def progress(self) -> float:
        """0.0 at the first iteration of the phase, 1.0 after its last."""
        return self.iteration / self.total


TRAINED = TrainingState(1, 1)
"""The state outside training iterations."""


class QuantizerPlugin(Plugin):
    """Differentiable stand-in for rounding during training (in evaluation the core always rounds)."""

    Options = QuantizerOptions

    @property
    def noise(self) -> str:
        """Kind of noise passed to quantize(): kumaraswamy, gaussian or none; "" leaves it to the training phase."""
        return self.options.noise if isinstance(self.options, QuantizerOptions) else ""

    @abstractmethod
    def quantize(self, x: Tensor, noise: Tensor | None, temperature: Tensor | float, state: TrainingState) -> Tensor:
        """x: scaled latents [N]; noise: [N] or None; temperature > 0. Returns [N], finite, differentiable in x."""

    def sloped(
        self,
        x: NDArray[np.float32],
        gain: float,
        noise: NDArray[np.float32] | None,
        temperature: float,
        state: TrainingState,
        out: NDArray[np.float32],
        slope: NDArray[np.float32],
    ) -> bool:
        """Write quantize(gain * x, ...) [N] to out and its derivative with respect to x [N] to slope, without autograd,
        and return True. Return False if latents are not quantized independently, or without a kernel."""
        return False


class DistortionPlugin(Plugin):
    """The D of the objective D + lambda * bits per pixel.

    Training, the search for quantization steps, and the choice among candidates and copies all minimize that objective.
    The plugin's declarations decide which methods apply; nothing depends on its name.
    """

    is_squared_error: ClassVar[bool] = False
    """True only if D is exactly `scale` times the mean squared error over all samples: compiled kernels then compute
    it, and rounding uses the curvature of the loss."""

    common_randomness: ClassVar[bool] = False
    """True to give the synthesis of every residue noise planes that encoder and decoder generate identically: material
    for textures that need not equal the target's."""

    @property
    def scale(self) -> float:
        """Approximate D per unit of mean squared error; exact if is_squared_error. Presets choose settings by
        lambda / scale, the lambda of about the same quality with the mean squared error. Greater than 0."""
        return 1.0

    def prepare(self, target: Any, color: ColorInfo) -> Any:
        """The target argument of distortion() and errors(); called once per frame, for example to compute features.

        target: DictTensorYUV or [1, 3, H, W] in [0, 1]. color: how to convert it to RGB.
        """
        return target

    @abstractmethod
    def distortion(self, decoded: Any, target: Any, state: TrainingState) -> Tensor:
        """decoded: DictTensorYUV or [1, 3, H, W] in [0, 1]; target: from prepare(). Returns a finite scalar,
        differentiable in decoded."""

    def errors(self, decoded: Any, target: Any) -> tuple[Tensor, ...] | None:
        """For a distortion that is a sum over samples: each sample's share, differentiable, in planes shaped like
        decoded (y, u, v, or one [1, 3, H, W]). The shares sum to distortion(). Single latents are then improved in many
        windows of the picture at once. None for any other distortion."""
        return None


class MotionPlugin(Plugin):
    """Optical flow for the start of motion training."""

    @abstractmethod
    def flow(self, target: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
        """target, reference: luma [H, W] in [0, 1]. Returns [2, H, W] in pixels, x then y, so that
        target[i, j] ~ reference[i + y, j + x]."""


BASES: dict[str, type[Plugin]] = {
    "arm": ArmPlugin,
    "upsampling": UpsamplingPlugin,
    "synthesis": SynthesisPlugin,
    "warper": WarperPlugin,
    "quantizer": QuantizerPlugin,
    "distortion": DistortionPlugin,
    "motion": MotionPlugin,
}
