"""Loss of a frame as a function of its latents: its distribution over the picture, and the effect of single steps.

FrameLoss is the same loss as a function of networks. Pixels are grouped into cells of CELL × CELL. A latent belongs to
the cell of its first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolvid.codec.coded_frame import MAX_LATENT
from coolvid.encoding.model.compose import round_flow
from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.model.fused import errors_by_cell
from coolvid.encoding.model.rate import latent_bits
from coolvid.encoding.objective import Objective, Picture, planes_of
from coolvid.picture.types import DictTensorYUV

from .steps import Floats

CELL = 4
STEPS = (-1, 1)
PROBES = 4
SMOOTHING = 2


@dataclass
class Measured:
    """cells [n]: distortion per cell. bits [N]: of each latent."""

    cells: Floats
    bits: Floats


class LatentLoss:
    """The objective of a quantized frame encoder in evaluation mode, as a function of one branch's latents.

    flat [N]: its current latents, float32. loss_per_bit: lmbda / pixels. cells: (rows, columns) of cells; rows,
    columns [N]: first pixel of each latent; cell [N]: its cell; sides [N]: height and width in pixels that it covers.
    planes: raw outputs of all branches by name.
    """

    def __init__(
        self, frame_encoder: FrameEncoder, objective: Objective, branch: str, planes: Mapping[str, Tensor]
    ) -> None:
        self.coolchic = frame_encoder.branches[branch]
        self.flat = self.coolchic.rounded_latents().detach().clone()
        self.loss_per_bit = objective.loss_per_bit
        self._encoder, self._branch, self._planes = frame_encoder, branch, planes
        self._objective = objective
        self._target = planes_of(objective.target)
        self._n_samples = sum(plane.numel() for plane in self._target)
        self._width = objective.frame.width
        self._place(objective.frame.height, objective.frame.width)
        self._curvature: Tensor | None = None
        moves = branch == "motion" or "motion" not in planes
        self._predictions = () if moves else frame_encoder.warp(round_flow(planes["motion"]))

    def _place(self, height: int, width: int) -> None:
        grids = self.coolchic.grids
        self.cells = -(-height // CELL), -(-width // CELL)
        self.rows = np.concatenate([np.repeat(np.arange(g.height) << g.log2, g.width) for g in grids])
        self.columns = np.concatenate([np.tile(np.arange(g.width) << g.log2, g.height) for g in grids])
        self.sides = np.concatenate([np.full(g.height * g.width, 1 << g.log2) for g in grids])
        self.cell = self.rows // CELL * self.cells[1] + self.columns // CELL

    def grids(self) -> list[slice]:
        """Slice of each grid in flat, finest first."""
        ends = np.cumsum([0, *(g.height * g.width for g in self.coolchic.grids)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]

    # -- current loss -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, flat: Tensor) -> Measured:
        """Distortion and bits for latents flat [N]."""
        return Measured(self._errors(self._picture(flat)), self.coolchic.bits(flat).double().numpy())

    def _errors(self, picture: Picture) -> Floats:
        """The distortion of a decoded picture by cell, flat."""
        if not self._objective.is_squared_error:
            return self._added([self._by_cell(error) for error in self._sample_errors(picture)])
        planes = planes_of(picture)
        found = errors_by_cell(planes, self._target, CELL)
        if found is None:
            pairs = zip(planes, self._target, strict=True)
            found = self._added([self._by_cell((plane - target).square_()) for plane, target in pairs])
        return found / self._n_samples

    def _added(self, cells: list[Tensor]) -> Floats:
        return torch.stack(cells).sum(0).double().numpy().ravel()

    def _sample_errors(self, picture: Picture) -> tuple[Tensor, ...]:
        """Each sample's share of the distortion."""
        errors = self._objective.errors(picture)
        assert errors is not None, "latents are searched only where the distortion is a sum over samples"
        return errors

    def total(self, measured: Measured) -> float:
        """Distortion + lmbda * bits per pixel, without bits of other branches and networks."""
        return float(measured.cells.sum() + self.loss_per_bit * measured.bits.sum())

    def _by_cell(self, errors: Tensor) -> Tensor:
        """Sums of errors [1, n, h, w] over each cell, for planes at full or half size."""
        rows, columns = self.cells
        side = CELL if errors.shape[-1] == self._width else CELL // 2
        padded = F.pad(errors, (0, columns * side - errors.shape[-1], 0, rows * side - errors.shape[-2]))
        return padded.view(-1, rows, side, columns, side).sum((0, 2, 4))

    def _picture(self, flat: Tensor, smooth: bool = False) -> Picture:
        """The decoded picture. smooth: without rounding of the flow, for derivatives."""
        raw = self.coolchic.synthesised(self.coolchic.synthesis_input(flat))
        predictions = self._predictions
        if self._branch == "motion":
            predictions = self._encoder.warp(raw if smooth else round_flow(raw))
            raw = self._planes["residue"]
        return self._encoder.compose(raw, predictions)

    # -- effect of a step ---------------------------------------------------------------------------------------

    def estimate(self) -> Floats:
        """Change of the loss for each of STEPS of each latent alone [2, N]; inf beyond MAX_LATENT.

        Distortion is to second order, the latent's own bits are exact, and bits of latents with it in their context are
        to first order.
        """
        leaf = self.flat.clone().requires_grad_(True)
        with torch.enable_grad():
            picture = self._picture(leaf, smooth=True)
            (slope,) = torch.autograd.grad(self._distortion(picture), leaf, retain_graph=True)
            if self._curvature is None:
                self._curvature = self._curvatures(picture, leaf)
            (bit_slope,) = torch.autograd.grad(self.coolchic.bits(leaf).sum(), leaf)
            with torch.no_grad():
                mu, raw = self.coolchic.laplace(self.flat)
            own = latent_bits(leaf, mu, raw)
            (own_slope,) = torch.autograd.grad(own.sum(), leaf)
        by_others = bit_slope - own_slope
        out = []
        for step in STEPS:
            moved = self.flat + step
            bits = latent_bits(moved, mu, raw) - own.detach() + step * by_others
            change = step * slope + 0.5 * self._curvature + self.loss_per_bit * bits
            out.append(change.masked_fill(moved.abs() > MAX_LATENT, torch.inf))
        return torch.stack(out).double().numpy()

    def _distortion(self, picture: Picture) -> Tensor:
        if not self._objective.is_squared_error:
            return torch.stack([error.sum() for error in self._sample_errors(picture)]).sum()
        errors = [(p - t).square().sum() for p, t in zip(planes_of(picture), self._target, strict=True)]
        return torch.stack(errors).sum() / self._n_samples

    def _curvatures(self, picture: Picture, leaf: Tensor) -> Tensor:
        """Second derivative [N] of the distortion with respect to each latent, if the picture were linear in it: the
        mean square of slopes of randomly signed sums of all samples, smoothed over neighbours."""
        signs, planes = torch.Generator().manual_seed(0), planes_of(picture)
        squares = torch.zeros_like(leaf)
        weights, factor = self._bends(picture)
        for _ in range(PROBES):
            drawn = [torch.randint(0, 2, plane.shape, generator=signs).float() * 2 - 1 for plane in planes]
            weighted = zip(planes, drawn, weights, strict=True)
            probe = torch.stack([(plane * sign * weight).sum() for plane, sign, weight in weighted]).sum()
            squares += torch.autograd.grad(probe, leaf, retain_graph=True)[0].square()
        smooth = [_smoothed(part) for part in self.coolchic.planes(squares)]
        return torch.cat(smooth) * (factor / PROBES)

    def _bends(self, picture: Picture) -> tuple[Sequence[Tensor | float], float]:
        """(weights, factor): factor * weights**2 is the second derivative of each sample's error."""
        planes = planes_of(picture)
        if self._objective.is_squared_error:
            return [1.0] * len(planes), 2 / self._n_samples
        flat = [plane.detach().requires_grad_() for plane in planes]
        moved = DictTensorYUV(y=flat[0], u=flat[1], v=flat[2]) if isinstance(picture, dict) else flat[0]
        slopes = torch.autograd.grad(self._distortion(moved), flat, create_graph=True)
        if not any(slope.requires_grad for slope in slopes):  # the error is piecewise linear
            return [0.0] * len(planes), 1.0
        bends = torch.autograd.grad(torch.stack([slope.sum() for slope in slopes]).sum(), flat)
        return [bend.clamp_min(0).sqrt() for bend in bends], 1.0


def _smoothed(plane: Tensor) -> Tensor:
    """Means over a square around each position of a plane [h, w], flat; for a small plane, over all of it."""
    if min(plane.shape) <= SMOOTHING:
        return plane.mean().expand(plane.numel())
    side = 2 * SMOOTHING + 1
    return F.avg_pool2d(plane[None, None], side, 1, SMOOTHING, count_include_pad=False).flatten()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter derivatives; restores the previous state."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    was_training = module.training
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        module.train(was_training)
        for p, wanted in before:
            p.requires_grad_(wanted)
