"""The loss of a frame as its latents change: where in the picture it arises, and what a step of one latent may do.

FrameLoss is the same loss while networks change. Pixels are taken in cells of CELL × CELL; a latent lies in the cell of
the first pixel that it covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from coolvid.picture.types import Frame

from .steps import Floats

CELL = 4
STEPS = (-1, 1)
PROBES = 4
SMOOTHING = 2


@dataclass
class Measured:
    """cells [n]: squared error of each cell, as its part of the mean over all samples. bits [N] of each latent."""

    cells: Floats
    bits: Floats


class LatentLoss:
    """MSE + lmbda * bits per pixel of a quantised frame encoder in evaluation mode, by the latents of one branch.

    flat [N]: its latents as they are now, float32. loss_per_bit: lmbda / pixels. cells: (rows, columns) of cells; rows,
    columns [N]: first pixel of each latent; cell [N]: its cell; sides [N]: how many pixels it covers each way.
    planes: raw outputs of all branches by name.
    """

    def __init__(self, frame_encoder: FrameEncoder, frame: Frame, branch: str, planes: Mapping[str, Tensor]) -> None:
        self.coolchic = frame_encoder.branches[branch]
        self.flat = self.coolchic.rounded_latents().detach().clone()
        self.loss_per_bit = frame_encoder.config.lmbda / (frame.height * frame.width)
        self._encoder, self._branch, self._planes = frame_encoder, branch, planes
        target = frame.as_tensor()
        self._target = [target] if isinstance(target, Tensor) else [target["y"], target["u"], target["v"]]
        self._n_samples = sum(plane.numel() for plane in self._target)
        self._width = frame.width
        self._place(frame.height, frame.width)
        self._curvature: Tensor | None = None
        moves = branch == "motion" or "motion" not in planes
        self._predictions = () if moves else frame_encoder.predict(round_flow(planes["motion"]))

    def _place(self, height: int, width: int) -> None:
        grids = self.coolchic.grids
        self.cells = -(-height // CELL), -(-width // CELL)
        self.rows = np.concatenate([np.repeat(np.arange(g.height) << g.log2, g.width) for g in grids])
        self.columns = np.concatenate([np.tile(np.arange(g.width) << g.log2, g.height) for g in grids])
        self.sides = np.concatenate([np.full(g.height * g.width, 1 << g.log2) for g in grids])
        self.cell = self.rows // CELL * self.cells[1] + self.columns // CELL

    def grids(self) -> list[slice]:
        """Where each grid lies in flat, finest first."""
        ends = np.cumsum([0, *(g.height * g.width for g in self.coolchic.grids)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]

    # -- the loss as it is --------------------------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, flat: Tensor) -> Measured:
        """That of latents flat [N]."""
        cells = self._errors(self._picture(flat)) / self._n_samples
        return Measured(cells, self.coolchic.bits(flat).double().numpy())

    def _errors(self, picture: list[Tensor]) -> Floats:
        """Squared errors of decoded planes, added up by cell."""
        found = errors_by_cell(picture, self._target, CELL)
        if found is not None:
            return found
        pairs = zip(picture, self._target, strict=True)
        cells = sum(self._by_cell((plane - target).square_()) for plane, target in pairs)
        assert isinstance(cells, Tensor)
        return cells.double().numpy().ravel()

    def total(self, measured: Measured) -> float:
        """Distortion + lmbda * bits per pixel; bits of other branches and networks not counted."""
        return float(measured.cells.sum() + self.loss_per_bit * measured.bits.sum())

    def _by_cell(self, errors: Tensor) -> Tensor:
        """Sums of errors [1, n, h, w], of planes at full or half size, over each cell."""
        rows, columns = self.cells
        side = CELL if errors.shape[-1] == self._width else CELL // 2
        padded = F.pad(errors, (0, columns * side - errors.shape[-1], 0, rows * side - errors.shape[-2]))
        return padded.view(-1, rows, side, columns, side).sum((0, 2, 4))

    def _picture(self, flat: Tensor, smooth: bool = False) -> list[Tensor]:
        """Decoded planes. smooth: with flow not rounded, for derivatives."""
        raw = self.coolchic.synthesised(self.coolchic.synthesis_input(flat))
        predictions = self._predictions
        if self._branch == "motion":
            predictions = self._encoder.predict(raw if smooth else round_flow(raw))
            raw = self._planes["residue"]
        picture = self._encoder.compose(raw, predictions)
        return [picture] if isinstance(picture, Tensor) else [picture["y"], picture["u"], picture["v"]]

    # -- what a step may do -------------------------------------------------------------------------------------

    def estimate(self) -> Floats:
        """Change of the loss by each of STEPS of each latent alone [2, N]; inf beyond MAX_LATENT.

        Distortion to second order; a latent's own bits exactly; those of latents whose contexts it is in, to first.
        """
        leaf = self.flat.clone().requires_grad_(True)
        with torch.enable_grad():
            picture = self._picture(leaf, smooth=True)
            errors = [(p - t).square().sum() for p, t in zip(picture, self._target, strict=True)]
            (slope,) = torch.autograd.grad(torch.stack(errors).sum() / self._n_samples, leaf, retain_graph=True)
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

    def _curvatures(self, picture: list[Tensor], leaf: Tensor) -> Tensor:
        """Second derivative [N] of the distortion by each latent, were the picture linear in it: the mean square of
        slopes of randomly signed sums of all samples, smoothed over neighbours."""
        signs = torch.Generator().manual_seed(0)
        squares = torch.zeros_like(leaf)
        for _ in range(PROBES):
            drawn = [torch.randint(0, 2, plane.shape, generator=signs).float() * 2 - 1 for plane in picture]
            probe = torch.stack([(plane * sign).sum() for plane, sign in zip(picture, drawn, strict=True)]).sum()
            squares += torch.autograd.grad(probe, leaf, retain_graph=True)[0].square()
        smooth = [_smoothed(part) for part in self.coolchic.planes(squares)]
        return torch.cat(smooth) * (2 / (PROBES * self._n_samples))


def _smoothed(plane: Tensor) -> Tensor:
    """Means over a square around each position of a plane [h, w], flat; over the whole of a small plane."""
    if min(plane.shape) <= SMOOTHING:
        return plane.mean().expand(plane.numel())
    side = 2 * SMOOTHING + 1
    return F.avg_pool2d(plane[None, None], side, 1, SMOOTHING, count_include_pad=False).flatten()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no derivatives by parameters; afterwards as before."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    was_training = module.training
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        module.train(was_training)
        for p, wanted in before:
            p.requires_grad_(wanted)
