"""Optional plugin results besides module and integer form: kernels for training, folded layers for decoding.

Kernels work without autograd, on float32 arrays that the caller keeps. One vector holds a module's parameters, in the
order of module.parameters(). If arm, upsampling and synthesis all have kernels, training runs through them. The
compiled decoder computes folded layers instead of calling an integer form.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from coolvid.codec.fixed_point import Folded, Integers

Array = NDArray[np.float32]
Input = TypeVar("Input", contravariant=True)

Filter = tuple[Integers, int]
"""Taps of a filter and their fractional bits."""
FoldedConv = tuple[Integers, Integers, int, bool]
"""A convolution as Folded (weights, bias, shift), and whether a ReLU follows."""


class RateKernel(Protocol):
    """Bits of all latents and their derivatives in one pass."""

    def run(
        self, latents: Array, parameters: Array, ifce: Array, scale: float, slopes: tuple[Array, Array, Array]
    ) -> float:
        """Total bits of the latents [N]. parameters, ifce: of the ARM and of the inter-feature maps.

        slopes: outputs for the derivatives with respect to latents, parameters and ifce, times scale.
        """
        ...


class LayerKernel(Protocol[Input]):
    """A module on inputs of one size. Input: planes [n_in, H, W], or a list of grids [h, w], finest first."""

    def forward(self, inputs: Input, parameters: Array, out: Array) -> None:
        """Write the outputs [n_out, H, W] to `out`."""
        ...

    def backward(self, d_out: Array, d_inputs: Input, d_parameters: Array) -> None:
        """For the last forward(): write the derivatives by inputs and parameters, given those by the outputs."""
        ...


class WarpKernel(Protocol):
    """Motion compensation of one reference, with one vector per block."""

    def forward(self, flow: Array, out: Array) -> None:
        """Write the reference warped by flow [2, h, w] in pixels, x then y, to out [C, H, W]."""
        ...

    def backward(self, d_out: Array, d_flow: Array) -> None:
        """For the last forward(): write the derivatives by the flow, given those by the output."""
        ...


class FoldedArm(NamedTuple):
    """Hidden layers, each followed by a ReLU and rounding to int16; output layer plus stabiliser of the contexts."""

    hidden: list[Folded]
    output: Folded
    stabiliser: Folded | None


class FoldedUpsampling(NamedTuple):
    """For each resolution step, finest first: the x2 filter and the filter of the finer grid. Planes have out_bits."""

    up: list[Filter]
    pre: list[Filter]
    out_bits: int


class FoldedSynthesis(NamedTuple):
    """Consecutive convolutions; the last one is added to the stabiliser of the planes."""

    layers: list[FoldedConv]
    stabiliser: Folded | None
