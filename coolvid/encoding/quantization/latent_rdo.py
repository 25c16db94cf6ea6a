"""Rate-distortion optimization of single latents: +-1 where the loss of the whole frame falls.

A change has local effect: in the picture, as far as upsampling and synthesis reach; in the rate, on later latents with
it in their context and on finer latents that it covers. So one evaluation of the frame tries several distant changes,
and each is kept or dropped by the loss in its own window. An estimate selects the candidates; evaluations go to the
most promising first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from coolvid.encoding.model.frame_encoder import FrameEncoder
from coolvid.encoding.objective import Objective

from .latent_loss import CELL, STEPS, LatentLoss, Measured, frozen
from .steps import Floats

# TRIALS: evaluations of the frame per round and branch. A grid is done for this round after PATIENCE batches in a row
# lower the loss by less than LEAST, relatively. Steps with an estimated cost of up to MARGIN_BITS are tried.
TRIALS = 32
PATIENCE = 5
LEAST = 1e-6
MARGIN_BITS = 2.0

Indices = NDArray[np.int64]
Window = tuple[slice, slice]


def rdo_latents(frame_encoder: FrameEncoder, objective: Objective, rounds: int) -> int:
    """Improve the latents of a quantized frame encoder in place. Returns the number of changes kept.

    The loss of the float model never rises. rounds: maximum number of estimates, each followed by up to TRIALS
    evaluations, for each branch; stops early when a round changes nothing. Does nothing for a distortion that is not a
    sum over samples (see DistortionPlugin.errors). Deterministic.
    """
    if not objective.is_sum:
        return 0
    kept = 0
    with frozen(frame_encoder):
        planes = {name: branch.raw_planes() for name, branch in frame_encoder.branches.items()}
        for name, branch in frame_encoder.branches.items():
            search = _Search(LatentLoss(frame_encoder, objective, name, planes))
            found = sum(_until_zero(search.round() for _ in range(rounds)))
            if found:
                branch.write_latents(search.loss.flat)
                planes[name] = branch.raw_planes()
            kept += found
    return kept


def _until_zero(counts: Iterator[int]) -> Iterator[int]:
    for count in counts:
        if not count:
            return
        yield count


@dataclass(frozen=True)
class _Batch:
    """Steps of one grid, tried together. latents [n]; steps [n]: indices into STEPS; windows [n]: affected cells of
    each, without overlap; promise: estimated decrease of the loss."""

    grid: int
    latents: Indices
    steps: Indices
    windows: list[Window]
    promise: float

    def owners(self, cells: tuple[int, int]) -> Indices:
        """1 + index of the step that owns each cell, 0 for none, flat."""
        out = np.zeros(cells, np.int64)
        for number, window in enumerate(self.windows, 1):
            out[window] = number
        return out.ravel()


class _Search:
    """The latents of one branch during the search. tried [2, N]: failed steps without a change nearby since."""

    def __init__(self, loss: LatentLoss) -> None:
        self.loss = loss
        self._tried = np.zeros((len(STEPS), len(loss.flat)), dtype=np.bool_)

    def round(self) -> int:
        """Estimate, then try the most promising batches. Returns the number of changes kept, 0 if the loss rose."""
        loss, before = self.loss, self.loss.flat.clone()
        state = loss.measure(loss.flat)
        start = loss.total(state)
        kept, misses = 0, dict.fromkeys(range(len(loss.coolchic.grids)), 0)
        trials = 0
        for batch in self._batches(loss.estimate()):
            if trials == TRIALS:
                break
            if misses[batch.grid] == PATIENCE:
                continue
            trials += 1
            count, gain = self._try(batch, state)
            kept += count
            misses[batch.grid] = 0 if gain > LEAST * start else misses[batch.grid] + 1
        if kept and loss.total(loss.measure(loss.flat)) >= start:
            loss.flat = before
            return 0
        return kept

    def _try(self, batch: _Batch, state: Measured) -> tuple[int, float]:
        """Keep the steps that lower the loss, and update state. Returns their number and their gain."""
        loss = self.loss
        owners = batch.owners(loss.cells)
        found = loss.measure(_moved(loss.flat, batch.latents, batch.steps))
        changes = self._by_owner(owners, state, found)
        better = changes < 0
        self._tried[batch.steps, batch.latents] = True
        if not better.any():
            return 0, 0.0
        loss.flat = _moved(loss.flat, batch.latents[better], batch.steps[better])
        cells = np.concatenate(([False], better))[owners]
        near = np.flatnonzero(cells[loss.cell])
        state.cells[cells], state.bits[near] = found.cells[cells], found.bits[near]
        self._tried[:, near] = False
        self._tried[1 - batch.steps[better], batch.latents[better]] = True  # the step back
        return int(better.sum()), float(-changes[better].sum())

    def _by_owner(self, owners: Indices, before: Measured, after: Measured) -> Floats:
        """Change of the loss [n] in the window of each step; owners as in _Batch.owners()."""
        loss, n = self.loss, int(owners.max()) + 1
        extra_bits = after.bits - before.bits
        felt = np.flatnonzero(extra_bits)
        by_bits = np.bincount(owners[loss.cell[felt]], extra_bits[felt], n)
        by_cells = np.bincount(owners, after.cells - before.cells, n)
        out: Floats = (by_cells + loss.loss_per_bit * by_bits)[1:]
        return out

    def _batches(self, estimate: Floats) -> list[_Batch]:
        """All batches worth a trial, most promising first."""
        open_ = np.where(self._tried, np.inf, estimate)
        limit = MARGIN_BITS * self.loss.loss_per_bit
        made = []
        for grid, part in enumerate(self.loss.grids()):
            values = open_[:, part].ravel()
            order = np.flatnonzero(values < limit)
            order = order[np.argsort(values[order], kind="stable")]
            steps, latents = np.divmod(order, part.stop - part.start)
            made += self._packed(grid, part.start + latents, steps, values[order])
        return sorted(made, key=lambda batch: -batch.promise)

    def _packed(self, grid: int, latents: Indices, steps: Indices, estimates: Floats) -> list[_Batch]:
        """Batches of steps, given best first. Each step joins the batch after the last one that uses its window."""
        used = np.zeros(self.loss.cells, np.int64)
        windows = self._windows(latents)
        members: list[list[int]] = []
        for i, window in enumerate(windows):
            number = int(used[window].max())
            if number == TRIALS:
                continue
            used[window] = number + 1
            if number == len(members):
                members.append([])
            members[number].append(i)
        promise = np.maximum(-estimates, 0)
        return [
            _Batch(grid, latents[own], steps[own], [windows[i] for i in own], float(promise[own].sum()))
            for own in members
        ]

    def _windows(self, latents: Indices) -> list[Window]:
        """Cells that a change of each latent is assumed to affect: those of the pixels that it covers, plus a margin of
        twice its side and two pixels."""
        loss = self.loss
        sides = loss.sides[latents]
        reach = 2 * sides + 2
        bounds = []
        for first in (loss.rows[latents], loss.columns[latents]):
            low = np.maximum(first - reach, 0) // CELL
            high = (first + sides + reach + CELL - 1) // CELL
            bounds.append([slice(*pair) for pair in zip(low.tolist(), high.tolist(), strict=True)])
        return list(zip(*bounds, strict=True))


def _moved(flat: torch.Tensor, latents: Indices, steps: Indices) -> torch.Tensor:
    """A copy of flat [N] with the steps applied."""
    out = flat.clone()
    out[torch.from_numpy(latents)] += torch.from_numpy(np.asarray(STEPS, np.float32)[steps])
    return out
