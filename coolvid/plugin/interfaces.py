"""The plugin API on one screen.

Two sorts of plugin. *Normative* ones (arm, upsampling, synthesis, warper) are needed to decode: their name, version
and options travel in the stream. *Encoder-only* ones (quantizer, distortion, motion) never do.

A plugin is a class, published under the entry-point group ``coolvid.<kind>``. It is built from its options, a
frozen dataclass that is at once its command-line form (``--synthesis NAME:key=value,...``), its TOML form and, if
normative, its record in the stream header. Nothing here imports torch at run time.
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

from .shortcuts import Array, FoldedArm, FoldedSynthesis, FoldedUpsampling, LayerKernel, RateKernel, WarpKernel
from .values import fit_like

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coolvid.picture.types import ColorInfo, Frame

NORMATIVE = ("arm", "upsampling", "synthesis", "warper")
ENCODER_ONLY = ("quantizer", "distortion", "motion")
KINDS = NORMATIVE + ENCODER_ONLY


@dataclass(frozen=True)
class PluginOptions:
    """Base of all option records. Fields hold int, bool, float, str or nested tuples of them, each with a default."""

    def values(self) -> tuple[Any, ...]:
        """The fields as nested tuples, for the stream."""
        return astuple(self)

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> Self:
        """Inverse of values(); raises ConfigError when they do not fit this record."""
        known = fields(cls)
        if len(values) != len(known):
            raise ConfigError(f"{cls.__qualname__} takes {len(known)} options, not {len(values)}")
        return cls(*(fit_like(value, f.default, f"option {f.name}") for f, value in zip(known, values, strict=True)))


class Plugin(ABC):
    """What every plugin has: a name, a version, options."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, options: Any) -> None:
        self.options = options


class NormativePlugin(Plugin):
    """A module that the decoder needs. It describes itself; the torch and the integer form are made on request.

    The further methods of each kind are shortcuts (see shortcuts.py): they take what module() or integer() returned,
    give the same result as calling it, and may return None. A subclass of another plugin that overrides module() or
    integer() must override them too; coolvid.testing.check compares shortcut and call.

    follows: options whose default is a setting of the encoder, option -> setting. arm, upsampling and synthesis may
    follow settings.config.NETWORK_SETTINGS, a warper warp_filter_size.
    """

    follows: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Any, ports: Ports) -> None:
        super().__init__(options)
        self.ports = ports

    @classmethod
    def adapted(cls, option: str, value: Any, ports: Ports) -> Any:
        """The value of the setting that an option follows, as the option takes it."""
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
        """Parameters of the same function that cost fewer bits, where there are such: what quantisation starts from."""
        return values

    def ordered(self, values: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Parameters of the same function with units in the order that costs fewest bits where nothing is predicted."""
        return values

    @abstractmethod
    def integer(self, parameters: Mapping[str, FixedPoint], scales: tuple[int, ...] | None = None) -> Any:
        """The integer form, numpy only. With scales=None it chooses them at its first call, from the data, and keeps
        them in ``.scales`` (a tuple of 0..15, of length n_scales())."""

    def n_scales(self) -> int:
        return 0


class ArmPlugin(NormativePlugin):
    """Contexts -> Laplace parameters.

    module: forward(context [N, n_in]) -> [N, 2] = (mu, raw log scale); core applies exp(clamp(raw - 4, -5, 5)).
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
        """Bits [N] of the latents [N] of all grids, finest first: contexts, features and Laplace cost in one
        differentiable step. ifce: parameters of the inter-feature maps. None: the core computes contexts and cost."""
        return None

    def kernel(self, module: nn.Module, grids: Sequence[Grid], architecture: Architecture) -> RateKernel | None:
        """rate() without autograd."""
        return None

    def choose_scales(self, form: Any, contexts: Integers) -> None:
        """Have the integer form choose its scales from contexts int32 [N, n_in]."""
        form(contexts)

    def folded(self, form: Any) -> FoldedArm | None:
        """The integer form, its scales known, as linear layers."""
        return None


class UpsamplingPlugin(NormativePlugin):
    """Grids -> planes of the finest grid's size.

    module: forward(list of [1, 1, h, w], finest first) -> [1, n, H, W].
    integer: f(list of int32 [h, w], finest first) -> int32 [n, H, W] within int16, with ``.out_bits`` fractional bits.
    """

    def kernel(self, module: nn.Module, sizes: Sequence[tuple[int, int]]) -> LayerKernel[Sequence[Array]] | None:
        """The module on grids (h, w) of these sizes without autograd."""
        return None

    def folded(self, form: Any) -> FoldedUpsampling | None:
        """The integer form, its scales known, as filters."""
        return None


class SynthesisPlugin(NormativePlugin):
    """Planes -> outputs.

    module: forward([1, n_in, H, W]) -> [1, n_out, H, W].
    integer: f(planes int32 [n_in, H, W] within int16, their fractional bits) -> int32 [n_out, H, W] within int16,
    with ``.out_bits`` fractional bits.
    """

    def kernel(self, module: nn.Module, height: int, width: int) -> LayerKernel[Array] | None:
        """The module on planes of this size without autograd."""
        return None

    def folded(self, form: Any, in_bits: int) -> FoldedSynthesis | None:
        """The integer form, its scales known, as convolutions of planes with in_bits fractional bits."""
        return None


class WarperPlugin(NormativePlugin):
    """Motion compensation, out[i, j] = reference[i + flow_y, j + flow_x], border replicated.

    module: forward(reference [1, C, H, W], flow [1, 2, H, W] in pixels, x then y) -> [1, C, H, W].
    integer: f(reference int32 [C, H, W] code values, flow int32 [2, H, W] in 1/64 pixel, x then y)
    -> int32 [C, H, W] code values with PREDICTION_BITS fractional bits.
    """

    def warp_blocks(self, module: nn.Module, reference: Tensor, flow: Tensor, block: int) -> Tensor:
        """The module with one vector for each block x block pixels, flow [1, 2, ceil(H / block), ceil(W / block)]."""
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
        """The integer form on the reference's dense planes, moved by translation (dy, dx) in whole pixels, with one
        vector of flow int32 [2, h, w] for each 2**log2 x 2**log2 pixels: int16 [3, H, W]. None: the core moves the
        planes, repeats the vectors and calls the form."""
        return None


@dataclass(frozen=True)
class QuantizerOptions(PluginOptions):
    """noise: kumaraswamy, gaussian or none; '' leaves the choice to the training phase."""

    noise: str = ""


@dataclass(frozen=True)
class TrainingState:
    """Where training stands, for plugins that change as it goes on (annealing).

    iteration: 0 .. total - 1 of the current phase. A validation and everything after training see iteration == total.
    """

    iteration: int
    total: int

    @property
    def progress(self) -> float:
        """0.0 at the first iteration of the phase, 1.0 after its last."""
        return self.iteration / self.total


TRAINED = TrainingState(1, 1)
"""The state of everything that is not a training iteration."""


class QuantizerPlugin(Plugin):
    """Differentiable stand-in for rounding during training (in evaluation the core always rounds)."""

    Options = QuantizerOptions

    @property
    def noise(self) -> str:
        """The kind of noise that quantize() gets: kumaraswamy, gaussian or none; "" leaves it to the training phase."""
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
        """Write quantize(gain * x, ...) [N] to out and its derivative by x [N] to slope, without autograd, and return
        True. Return False where each latent is not quantized alone or where there is no kernel."""
        return False


class DistortionPlugin(Plugin):
    """The D of the objective D + lambda * bits per pixel.

    Training, the search for quantization steps, and the choice among candidates and copies all minimise that objective.
    What a plugin declares here decides which of their methods apply; nothing depends on its name.
    """

    is_squared_error: ClassVar[bool] = False
    """True only if D is exactly `scale` times the mean squared error over all samples: compiled kernels then compute
    it, and rounding uses the curvature of the loss."""

    @property
    def scale(self) -> float:
        """D per unit of mean squared error, about; exact if is_squared_error. Presets choose settings by
        lambda / scale, the lambda that gives about the same quality with the mean squared error. Greater than 0."""
        return 1.0

    def prepare(self, target: Any, color: ColorInfo) -> Any:
        """What distortion() and errors() take as target; called once per frame, for example to compute features.

        target: DictTensorYUV or [1, 3, H, W] in [0, 1]. color: how to convert it to RGB.
        """
        return target

    @abstractmethod
    def distortion(self, decoded: Any, target: Any, state: TrainingState) -> Tensor:
        """decoded: DictTensorYUV or [1, 3, H, W] in [0, 1]; target: from prepare(). Returns a finite scalar,
        differentiable in decoded."""

    def errors(self, decoded: Any, target: Any) -> tuple[Tensor, ...] | None:
        """For a distortion that is a sum over samples: the part of each sample, as planes of the shapes of decoded
        (y, u, v, or one [1, 3, H, W]), differentiable, with the sum distortion(). Single latents are then improved in
        many windows of the picture at once. None for any other distortion."""
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
