"""How the loss of a frame curves in the parameters of one module: Gauss-Newton matrices, from random projections.

Near the end of training loss(w + d) - loss(w) is about d' C d / 2, with C the sum of J' F J over all outputs of the
module: J are their slopes by its parameters, F what the loss makes of an output. That is a constant for squared errors
and the Fisher information for bits: the mean outer product of their slopes, for latents drawn from the model itself.
With a random sign for each output, g = J' sqrt(F) s has the expectation E[g g'] = C; so outputs are taken in chunks,
with one g for each. Where parameters are few, J is taken column by column instead.
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
# A matrix of so many rows takes 128 MiB; modules with more parameters are rounded without one.
MAX_PARAMETERS = 4096
EXTRA_SAMPLES = 16
# Latents that a projection of the entropy model has at least; how often a latent is drawn at most.
MIN_ROWS = 64
MAX_DRAWS = 8
TILES = (16, 8, 4)
# Pixels around a tile that its outputs may depend on; squares of samples that are added up; what filters are moved by.
MARGIN = 2
TOGETHER = 4
DELTA = 2**-10
MAX_CENTRED = 0.4999995
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class _Sampler:
    """What projections of one module are drawn from. count: how many are wanted, roughly."""

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
        """Derivatives [n], double, of outputs times by_output, summed, by all parameters. keep: the graph, too."""
        found = torch.autograd.grad(outputs, self.parameters, by_output, retain_graph=keep, allow_unused=True)
        pairs = zip(self.parameters, found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs]).double()

    def bit_slopes(self, laplace: Tensor) -> Tensor:
        """Slopes of bits by mean and raw log scale [2, N], of latents drawn from laplace [2, N]."""
        leaf = laplace.clone().requires_grad_(True)
        centred = torch.rand(laplace.shape[1:], generator=self.random).to(laplace) - 0.5
        distance = -scale_of(laplace[1]) * torch.log1p(-2 * centred.abs().clamp(max=MAX_CENTRED))
        drawn = torch.round(laplace[0] + centred.sign() * distance)
        return torch.autograd.grad(latent_bits(drawn, leaf[0], leaf[1]).sum(), leaf)[0]

    def signed(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """Random signs for decoded planes, so weighted that squares of slopes add up to the curvature of their MSE."""
        weight = math.sqrt(2 / sum(plane.numel() for plane in planes))
        return [self.signs(plane) * weight for plane in planes]


def curvature(loss: FrameLoss, name: str, samples_per_parameter: float) -> Floats | None:
    """The matrix [n, n] of a module, parameters in stream order, as they and the other modules are now.

    samples_per_parameter: how many projections are drawn, fewer of small frames; the fewer, the rougher. None where
    there is no matrix: with 0 samples, for inter-feature maps, which gain nothing by it, for modules of more than
    MAX_PARAMETERS, and where the distortion is not the squared error.
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
    """The sum of the outer products of projections [n] with themselves."""
    out = torch.zeros(n, n, dtype=torch.float64)
    rest = iter(projections)
    while block := list(islice(rest, _BLOCK)):
        rows = torch.stack(block).cpu()
        out += rows.T @ rows
    return np.asarray(out.numpy(), np.float64)


def _of_entropy_model(sampler: _Sampler) -> Iterator[Tensor]:
    """Chunks of latents, whose bits have slopes by mean and scale."""
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
    """Tiles of the branch's planes, computed with MARGIN more on every side, so that borders do not matter."""
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
    """Rows and columns of the tiles of a plane: of the largest side that makes count / 4 of them."""
    enough = (side for side in TILES if (height // side) * (width // side) * 4 >= count)
    side = next(enough, TILES[-1])
    corners = product(range(0, height, side), range(0, width, side))
    return [(slice(y, min(y + side, height)), slice(x, min(x + side, width))) for y, x in corners]


def _widened(part: slice, size: int) -> slice:
    return slice(max(0, part.start - MARGIN), min(size, part.stop + MARGIN))


def _inside(part: slice, of: slice) -> slice:
    return slice(part.start - of.start, part.stop - of.start)


def _of_upsampling(sampler: _Sampler) -> Iterator[Tensor]:
    """Filters are few, and reach far: how the whole picture moves with each of them, in random sums of samples."""
    coolchic = sampler.coolchic
    flat = coolchic.rounded_latents().detach()

    def planes() -> list[Tensor]:
        return sampler.loss.planes_of(sampler.branch, coolchic.synthesised(coolchic.synthesis_input(flat)))

    with torch.no_grad():
        signs = sampler.signed(planes())
        effects = [_added(_difference(planes, value), signs) for p in sampler.parameters for value in p.view(-1)]
    yield from torch.stack(effects, dim=1)


def _difference(planes: Callable[[], list[Tensor]], value: Tensor) -> list[Tensor]:
    """Slopes of planes by one parameter, a view of where it lies."""
    before = value.clone()
    value += DELTA
    above = planes()
    value.copy_(before - DELTA)
    below = planes()
    value.copy_(before)
    return [(high - low) / (2 * DELTA) for high, low in zip(above, below, strict=True)]


def _added(planes: Sequence[Tensor], signs: Sequence[Tensor]) -> Tensor:
    """Sums [n], double, of samples that stand together, with their signs."""
    signed = (plane * sign for plane, sign in zip(planes, signs, strict=True))
    sums = [F.avg_pool2d(each, TOGETHER, divisor_override=1, ceil_mode=True) for each in signed]
    return torch.cat([each.reshape(-1) for each in sums]).double()


_PROJECTIONS = {"arm": _of_entropy_model, "synthesis": _of_synthesis, "upsampling": _of_upsampling}
