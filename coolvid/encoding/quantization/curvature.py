"""Curvature of a frame's loss in the parameters of one module: Gauss-Newton matrices from random projections.

Near the end of training loss(w + d) - loss(w) is about d' C d / 2, with C the sum of J' F J over all outputs of the
module. J is the Jacobian of an output with respect to the parameters, F the curvature of the loss in that output. F is
constant for squared errors. For bits it is the Fisher information: the mean outer product of their slopes, for latents
drawn from the model itself. With a random sign s for each output, g = J' sqrt(F) s has the expectation E[g g'] = C, so
each chunk of outputs gives one g. If there are few parameters, J is computed column by column instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolvid.encoding.model.coolchic import CoolChicEncoder
from coolvid.encoding.model.rate import latent_bits, scale_of

from .evaluate import FrameLoss
from .state import named_parameters
from .steps import Floats

SEED = 0
# A matrix of this many rows takes 128 MiB. Modules with more parameters are rounded without a matrix.
MAX_PARAMETERS = 4096
EXTRA_SAMPLES = 16
# Minimum number of latents per projection of the entropy model; maximum number of draws per latent.
MIN_ROWS = 64
MAX_DRAWS = 8
TILES = (16, 8, 4)
# Margin around a tile that its outputs may depend on, pixels; side of the squares of summed samples; filter increment.
MARGIN = 2
TOGETHER = 4
DELTA = 2**-10
MAX_CENTRED = 0.4999995
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Source of random projections of one module. count: approximate number wanted."""

    loss: FrameLoss
    branch: str
    parameters: Sequence[Tensor]
    count: int
    random: torch.Generator

    @property
    def coolchic(self) -> CoolChicEncoder:
        return self.loss.branches[self.branch]

    def signs(self, like: Tensor) -> Tensor:
        """Random 1 and -1 in the shape of a tensor."""
        drawn = torch.randint(0, 2, like.shape, generator=self.random)
        return (drawn * 2 - 1).to(like)

    def slopes(self, outputs: Tensor | Sequence[Tensor], by_output: Tensor | Sequence[Tensor], keep: bool) -> Tensor:
        """Derivatives [n], double, of sum(outputs * by_output) with respect to all parameters. keep: keep the graph."""
        found = torch.autograd.grad(outputs, self.parameters, by_output, retain_graph=keep, allow_unused=True)
        pairs = zip(self.parameters, found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs]).double()

    def bit_slopes(self, laplace: Tensor) -> Tensor:
        """Slopes of bits with respect to mean and raw log scale [2, N], for latents drawn from laplace [2, N]."""
        leaf = laplace.clone().requires_grad_(True)
        centred = torch.rand(laplace.shape[1:], generator=self.random).to(laplace) - 0.5
        distance = -scale_of(laplace[1]) * torch.log1p(-2 * centred.abs().clamp(max=MAX_CENTRED))
        drawn = torch.round(laplace[0] + centred.sign() * distance)
        return torch.autograd.grad(latent_bits(drawn, leaf[0], leaf[1]).sum(), leaf)[0]

    def signed(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """Random signs for decoded planes, weighted so that the squared slopes sum to the curvature of the MSE."""
        weight = math.sqrt(2 / sum(plane.numel() for plane in planes))
        return [self.signs(plane) * weight for plane in planes]


def curvature(loss: FrameLoss, name: str, samples_per_parameter: float) -> Floats | None:
    """The matrix [n, n] of a module at the current parameters, in stream order.

    samples_per_parameter: number of projections, fewer for small frames; fewer projections give a rougher matrix. None
    if there is no matrix: with 0 samples, for inter-feature maps (no gain), for modules of more than MAX_PARAMETERS,
    and if the distortion is not the squared error.
    """
    branch, module = name.split(".")
    own = named_parameters(loss.coolchic(name), module)
    parameters = [own[spec.name].requires_grad_(True) for spec in loss.specs(name)]
    n = sum(parameter.numel() for parameter in parameters)
    is_squared_error = loss.objective.is_squared_error
    if module not in _PROJECTIONS or not 0 < n <= MAX_PARAMETERS or not samples_per_parameter or not is_squared_error:
        return None
    count = math.ceil(samples_per_parameter * n) + EXTRA_SAMPLES
    sampler = _Sampler(loss, branch, parameters, count, torch.Generator().manual_seed(SEED))
    with torch.enable_grad():
        matrix = _squared(_PROJECTIONS[module](sampler), n)
    return matrix if np.isfinite(matrix).all() else None


def _squared(projections: Iterable[Tensor], n: int) -> Floats:
    """Sum of the outer products of projections [n] with themselves."""
    out = torch.zeros(n, n, dtype=torch.float64)
    rest = iter(projections)
    while block := list(islice(rest, _BLOCK)):
        rows = torch.stack(block).cpu()
        out += rows.T @ rows
    return np.asarray(out.numpy(), np.float64)


def _of_entropy_model(sampler: _Sampler) -> Iterator[Tensor]:
    """One projection per chunk of latents, from the slopes of their bits with respect to mean and scale."""
    coolchic, arm = sampler.coolchic, sampler.coolchic.modules_by_name["arm"]
    flat = coolchic.rounded_latents().detach()
    contexts = coolchic.contexts(flat).detach()
    laplace = arm(contexts.t()).t().detach()
    count = min(sampler.count, MAX_DRAWS * flat.numel())
    rounds = max(1, round(count * MIN_ROWS / flat.numel()))
    rows = max(MIN_ROWS, math.ceil(flat.numel() * rounds / count))
    weight = math.sqrt(math.log(2) * sampler.loss.loss_per_bit / rounds)
    for _ in range(rounds):
        signed = sampler.bit_slopes(laplace) * sampler.signs(flat) * weight
        order = torch.randperm(flat.numel(), generator=sampler.random).to(flat.device)
        for chosen in torch.split(order, rows):
            yield sampler.slopes(arm(contexts[:, chosen].t()).t(), signed[:, chosen], keep=False)


def _of_synthesis(sampler: _Sampler) -> Iterator[Tensor]:
    """One projection per tile of the branch's planes, with MARGIN extra on every side against border effects."""
    coolchic, synthesis = sampler.coolchic, sampler.coolchic.modules_by_name["synthesis"]
    dense = coolchic.synthesis_input(coolchic.rounded_latents()).detach()
    coarse = synthesis(dense).detach().requires_grad_(True)
    planes = sampler.loss.planes_of(sampler.branch, coolchic.full_size(coarse))
    height, width = coarse.shape[-2:]
    tiles = _tiles(height, width, sampler.count)
    most = coarse.numel() // len(tiles) + 1
    rounds = max(1, min(most, round(sampler.count / len(tiles))))
    for _ in range(rounds):
        (signed,) = torch.autograd.grad(planes, coarse, sampler.signed(planes), retain_graph=True)
        for rows, columns in tiles:
            around = _widened(rows, height), _widened(columns, width)
            own = torch.zeros_like(signed[..., around[0], around[1]])
            inside = (..., _inside(rows, around[0]), _inside(columns, around[1]))
            own[inside] = signed[..., rows, columns] / math.sqrt(rounds)
            yield sampler.slopes(synthesis(dense[..., around[0], around[1]].contiguous()), own, keep=False)


def _tiles(height: int, width: int, count: int) -> list[tuple[slice, slice]]:
    """Row and column slices of a plane's tiles, with the largest side that gives count / 4 tiles."""
    enough = (side for side in TILES if (height // side) * (width // side) * 4 >= count)
    side = next(enough, TILES[-1])
    corners = product(range(0, height, side), range(0, width, side))
    return [(slice(y, min(y + side, height)), slice(x, min(x + side, width))) for y, x in corners]


def _widened(part: slice, size: int) -> slice:
    return slice(max(0, part.start - MARGIN), min(size, part.stop + MARGIN))


def _inside(part: slice, of: slice) -> slice:
    return slice(part.start - of.start, part.stop - of.start)


def _of_upsampling(sampler: _Sampler) -> Iterator[Tensor]:
    """Projections of the few, far-reaching filters: slopes of the whole picture by each tap, in random sums."""
    coolchic = sampler.coolchic
    flat = coolchic.rounded_latents().detach()

    def planes() -> list[Tensor]:
        return sampler.loss.planes_of(sampler.branch, coolchic.synthesised(coolchic.synthesis_input(flat)))

    with torch.no_grad():
        signs = sampler.signed(planes())
        effects = [_added(_difference(planes, value), signs) for p in sampler.parameters for value in p.view(-1)]
    yield from torch.stack(effects, dim=1)


def _difference(planes: Callable[[], list[Tensor]], value: Tensor) -> list[Tensor]:
    """Slopes of planes with respect to one parameter, given as a view of its storage."""
    before = value.clone()
    value += DELTA
    above = planes()
    value.copy_(before - DELTA)
    below = planes()
    value.copy_(before)
    return [(high - low) / (2 * DELTA) for high, low in zip(above, below, strict=True)]


def _added(planes: Sequence[Tensor], signs: Sequence[Tensor]) -> Tensor:
    """Signed sums [n], double, over squares of samples."""
    signed = (plane * sign for plane, sign in zip(planes, signs, strict=True))
    sums = [F.avg_pool2d(each, TOGETHER, divisor_override=1, ceil_mode=True) for each in signed]
    return torch.cat([each.reshape(-1) for each in sums]).double()


_PROJECTIONS = {"arm": _of_entropy_model, "synthesis": _of_synthesis, "upsampling": _of_upsampling}
