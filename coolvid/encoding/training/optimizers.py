"""SOAP for the network weights, Adam for the latents.

SOAP (arXiv 2409.11321, algorithm 3) is Adam in the eigenbasis of Shampoo's two gradient covariances. The networks
here are about thirty tiny tensors, so dispatch takes the time, not arithmetic: everything element-wise runs on one flat
vector, matrices of one shape are rotated together, and covariances of one size are factorized together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolvid.encoding.model.fused import usable
from coolvid.kernels import compiled, threads

LATENT_BETAS = (0.8, 0.99)
WARMUP_LATENT_BETAS = (0.725, 0.97)
PRECONDITION_EVERY = 10
MAX_NORM = 0.1
_LATENT_EPS = 1e-8
_FIRST_POWER = 1e-30
_OPEN = 1e-5
Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Side:
    """Position of one side's covariances in a block of matrices: [start : start + count] among all those of `size`."""

    size: int
    start: int


@dataclass(frozen=True)
class _Block:
    """Matrices of one shape, [count, rows, columns], at `start` of the flat vector. A side of None is not rotated."""

    start: int
    count: int
    rows: int
    columns: int
    left: _Side | None
    right: _Side | None

    def of(self, flat: Tensor) -> Tensor:
        """The block in a flat vector [N], or in several [k, N], as a view [..., count, rows, columns]."""
        stop = self.start + self.count * self.rows * self.columns
        return flat[..., self.start : stop].view(*flat.shape[:-1], self.count, self.rows, self.columns)


class _Covariances:
    """All covariances of one size [k, n, n], and their eigenvectors as columns, by decreasing eigenvalue.

    Early covariances do not have full rank. A small multiple of a fixed matrix (start) or of the old basis (refresh)
    determines the open directions. Otherwise rounding errors would choose them, differently on every machine.
    """

    def __init__(self, count: int, size: int, like: Tensor) -> None:
        self.moment = like.new_zeros(count, size, size)
        self.basis = torch.eye(size, dtype=like.dtype, device=like.device).repeat(count, 1, 1)

    def start(self) -> None:
        """Take the eigenvectors of the first gradient."""
        n = self.moment.shape[-1]
        preference = torch.linspace(_OPEN, 0.0, n, dtype=self.moment.dtype, device=self.moment.device).diag()
        self.basis.copy_(torch.linalg.eigh(self._scaled(self.moment) + preference).eigenvectors.flip(-1))

    def refresh(self) -> Tensor:
        """One step of orthogonal iteration. Returns the order [k, n] of the old directions in the new basis."""
        turned = self.moment @ self.basis
        power = (self.basis * turned).sum(dim=1)
        order = power.argsort(dim=1, descending=True)
        turned = self._scaled(turned).add_(self.basis, alpha=_OPEN)
        self.basis.copy_(torch.linalg.qr(turned.gather(2, order[:, None, :].expand_as(turned))).Q)
        return order

    @staticmethod
    def _scaled(x: Tensor) -> Tensor:
        """Each matrix divided by its largest magnitude."""
        return x / x.abs().amax(dim=(1, 2), keepdim=True).clamp_min(_FIRST_POWER)


class SOAP:
    """Adam in the slowly rotating eigenbasis of the gradient's row and column covariances.

    betas: of the first and of both second moments. weight_decay is decoupled. max_norm clips the gradient norm over
    all parameters. The basis is refreshed every `precondition_every` steps. Tensors with one long axis use plain
    Adam, as do sides longer than `max_dimension`; others are read as [first axis, rest]. The first step only
    initializes the covariances. All parameters must have one dtype and device. Not a torch.optim.Optimizer: that class
    imports PyTorch's compiler, which doubles the import time.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_every: int = PRECONDITION_EVERY,
        max_dimension: int = 256,
        max_norm: float = MAX_NORM,
    ) -> None:
        self._lr, self._betas, self._eps, self._weight_decay = lr, betas, eps, weight_decay
        self._every, self._max_norm, self._steps = precondition_every, max_norm, 0
        self._lay_out(list(params), max_dimension)

    def _lay_out(self, params: Sequence[Tensor], max_dimension: int) -> None:
        """Order the parameters by shape and assign each block a range in the flat vector and in the covariances."""
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            by_shape.setdefault(_matrix_shape(p), []).append(p)
        self._params = [p for members in by_shape.values() for p in members]
        self._blocks: list[_Block] = []
        start, sides = 0, dict[int, int]()
        for (rows, columns), members in by_shape.items():
            if rows > 1:
                left, right = (self._side(n, len(members), sides, max_dimension) for n in (rows, columns))
                self._blocks.append(_Block(start, len(members), rows, columns, left, right))
            start += sum(p.numel() for p in members)
        self._side_by_side(params)
        like = self._params[0].detach()
        self._covariances = {n: _Covariances(count, n, like) for n, count in sides.items()}
        self._first, self._second = like.new_zeros(start), like.new_zeros(start)
        self._sizes = [p.numel() for p in self._params]
        self._kernel = self._compiled() if compiled is not None and usable(like) else None

    def _side_by_side(self, params: Sequence[Tensor]) -> None:
        """If parameters and their gradients are contiguous, read and write them as one vector, where _order is the
        index of each element of our order. Otherwise collect them in our order. Used by the kernel only."""
        self._vectors = vectors_of(params)
        row = params if self._vectors else self._params
        starts = dict(zip(map(id, row), _starts(row), strict=False))
        self._order = np.concatenate([np.arange(starts[id(p)], starts[id(p)] + p.numel()) for p in self._params])

    def _compiled(self) -> Any:
        """The compiled kernel, bound to our moments and covariances."""
        assert compiled is not None

        def of(side: _Side | None, count: int) -> tuple[Any, Any]:
            if side is None:
                return None, None
            own, part = self._covariances[side.size], slice(side.start, side.start + count)
            return own.moment[part].numpy(), own.basis[part].numpy()

        sides = [(*of(b.left, b.count), *of(b.right, b.count)) for b in self._blocks]
        blocks = [(b.start, b.count, b.rows, b.columns, *own) for b, own in zip(self._blocks, sides, strict=True)]
        moments = self._first.numpy(), self._second.numpy()
        settings = self._betas, self._eps, self._weight_decay, self._max_norm, _OPEN
        return compiled.Soap(blocks, self._order.tolist(), *moments, *settings)

    @staticmethod
    def _side(size: int, count: int, sides: dict[int, int], max_dimension: int) -> _Side | None:
        if size > max_dimension:
            return None
        start = sides.get(size, 0)
        sides[size] = start + count
        return _Side(size, start)

    def step(self, lr: float | None = None) -> None:
        """One update from the parameters' .grad (None counts as zero). lr: sets the learning rate from now on."""
        self._lr = self._lr if lr is None else lr
        if self._kernel is not None and self._vectors is not None:
            values, gradients = self._vectors
            self._kernel.step(gradients, values, self._lr, self._steps, self._refreshes)
        else:
            self._step_of_tensors()
        if self._steps == 0:
            for covariances in self._covariances.values():
                covariances.start()
        self._steps += 1

    @property
    def _refreshes(self) -> bool:
        return self._steps > 0 and self._steps % self._every == 0

    @torch.no_grad()
    def _step_of_tensors(self) -> None:
        """The step for parameters that are not contiguous."""
        if self._kernel is None:
            self._plain_step()
            return
        flat = torch.cat([p.detach().reshape(-1) for p in self._params])
        self._kernel.step(self._collected().numpy(), flat.numpy(), self._lr, self._steps, self._refreshes)
        torch._foreach_copy_(self._params, self._pieces(flat))

    def _plain_step(self) -> None:
        gradient = self._gradient()
        if self._steps:
            self._move(gradient)
        self._observe(gradient, self._betas[1])
        if self._refreshes:
            self._refresh()

    def _collected(self) -> Tensor:
        """All gradients in our order."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        return torch.cat([g.reshape(-1) for g in grads])

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """Views of a vector in our order, in the parameters' shapes."""
        return [u.view_as(p) for u, p in zip(torch.split(flat, self._sizes), self._params, strict=True)]

    def _gradient(self) -> Tensor:
        """All gradients in our order, clipped."""
        flat = self._collected()
        return flat.mul_((self._max_norm / (torch.linalg.vector_norm(flat) + 1e-12)).clamp_(max=1.0))

    def _move(self, gradient: Tensor) -> None:
        beta1, beta2 = self._betas
        self._first.lerp_(gradient, 1 - beta1)
        update = self._update(gradient, beta2, math.sqrt(1 - beta2**self._steps), self._eps)
        decay, rate = 1 - self._lr * self._weight_decay, -self._lr / (1 - beta1**self._steps)
        torch._foreach_mul_(self._params, decay)
        torch._foreach_add_(self._params, self._pieces(update), alpha=rate)

    def _update(self, gradient: Tensor, beta2: float, correction: float, eps: float) -> Tensor:
        """Adam's step in the eigenbasis, rotated back [N]."""
        both = torch.stack((gradient, self._first))
        for block in self._blocks:
            self._turn(block, both, forward=True)
        self._second.mul_(beta2).addcmul_(both[0], both[0], value=1 - beta2)
        update = both[1].div_(self._second.sqrt().div_(correction).add_(eps))
        for block in self._blocks:
            self._turn(block, update, forward=False)
        return update

    def _turn(self, block: _Block, flat: Tensor, forward: bool) -> None:
        """Rotate a block of the flat vector(s) into the eigenbasis, or back."""
        view = block.of(flat)
        turned = view
        if block.left is not None:
            basis = self._basis(block.left, block.count)
            turned = (basis.mT if forward else basis) @ turned
        if block.right is not None:
            basis = self._basis(block.right, block.count)
            turned = turned @ (basis if forward else basis.mT)
        if turned is not view:
            view.copy_(turned)

    def _basis(self, side: _Side, count: int) -> Tensor:
        return self._covariances[side.size].basis[side.start : side.start + count]

    def _observe(self, gradient: Tensor, beta: float) -> None:
        """Add the gradient to the covariances."""
        for block in self._blocks:
            g = block.of(gradient)
            for side, a, b in ((block.left, g, g.mT), (block.right, g.mT, g)):
                if side is not None:
                    moment = self._covariances[side.size].moment[side.start : side.start + block.count]
                    moment.baddbmm_(a, b, beta=beta, alpha=1 - beta)

    def _refresh(self) -> None:
        """Update the bases from the covariances, and reorder the second moments."""
        orders = {size: covariances.refresh() for size, covariances in self._covariances.items()}
        for block in self._blocks:
            second = block.of(self._second)
            moved = second
            for side, axis in ((block.left, 1), (block.right, 2)):
                if side is not None:
                    order = orders[side.size][side.start : side.start + block.count]
                    moved = moved.gather(axis, order.unsqueeze(3 - axis).expand_as(moved))
            second.copy_(moved)

    def forget_momentum(self) -> None:
        """Reset the first moment, after parameters were restored to earlier values."""
        self._first.zero_()


def _matrix_shape(p: Tensor) -> tuple[int, int]:
    """(rows, columns) of a tensor read as a matrix; rows is 1 for tensors with plain Adam."""
    rows = p.shape[0] if p.dim() > 1 else 1
    columns = p.numel() // max(rows, 1)
    return (rows, columns) if rows > 1 and columns > 1 else (1, p.numel())


class FlatAdam:
    """torch.optim.Adam in the compiled kernel, for float32 parameters on the CPU in one vector."""

    def __init__(self, values: Array, gradients: Array, betas: tuple[float, float], eps: float) -> None:
        self._values, self._gradients = values, gradients
        self._betas, self._eps, self._steps = betas, eps, 0
        self._first, self._second = np.zeros((2, values.size), np.float32)

    def step(self, lr: float) -> None:
        """One update from the current gradients."""
        assert compiled is not None
        self._steps += 1
        corrections = tuple(1 - beta**self._steps for beta in self._betas)
        moments = self._first, self._second
        compiled.adam(self._gradients, self._values, *moments, lr, self._betas, self._eps, corrections, threads())

    def forget_momentum(self) -> None:
        """Reset the first moment."""
        self._first[:] = 0


class TorchAdam:
    """torch.optim.Adam with the learning rate given at each step."""

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float], eps: float) -> None:
        self._adam = torch.optim.Adam(parameters, betas=betas, eps=eps, fused=True)

    def step(self, lr: float) -> None:
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()

    def forget_momentum(self) -> None:
        """Reset the first moment."""
        for state in self._adam.state.values():
            state["exp_avg"].zero_()


def one_vector(tensors: Sequence[Tensor]) -> Tensor | None:
    """A view [N] of tensors that are contiguous in memory, or None."""
    if not tensors:
        return None
    first = tensors[0]
    end = first.storage_offset()
    for t in tensors:
        if not t.is_contiguous() or t.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
        if t.storage_offset() != end or t.dtype != first.dtype:
            return None
        end += t.numel()
    return first.detach().as_strided((end - first.storage_offset(),), (1,))


def vectors_of(parameters: Sequence[Tensor]) -> tuple[Array, Array] | None:
    """Parameters and gradients as vectors [N] for the compiled kernels, if they are contiguous in memory; None
    otherwise."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if len(gradients) < len(parameters) or not usable(*parameters, *gradients):
        return None
    values, slopes = one_vector([p.detach() for p in parameters]), one_vector(gradients)
    return None if values is None or slopes is None else (values.numpy(), slopes.numpy())


def _starts(parameters: Sequence[Tensor]) -> list[int]:
    """Start of each parameter in one vector of all."""
    return [0, *np.cumsum([p.numel() for p in parameters]).tolist()]


def _adam(latents: Sequence[Tensor], betas: tuple[float, float]) -> FlatAdam | TorchAdam:
    vectors = vectors_of(latents)
    return TorchAdam(latents, betas, _LATENT_EPS) if vectors is None else FlatAdam(*vectors, betas, _LATENT_EPS)


class Optimizers:
    """Both optimizers of a phase as one step; either may be empty.

    warmup: short phases forget faster (Adam betas 0.725, 0.97) and refresh SOAP's basis at every step.
    """

    def __init__(self, weights: Sequence[Tensor], latents: Sequence[Tensor], lr: float, warmup: bool = False) -> None:
        self._parameters = [*weights, *latents]
        self.soap = SOAP(weights, lr, precondition_every=1 if warmup else PRECONDITION_EVERY) if weights else None
        self.adam = _adam(latents, WARMUP_LATENT_BETAS if warmup else LATENT_BETAS) if latents else None

    def step(self, lr: float) -> None:
        for optimizer in (self.soap, self.adam):
            if optimizer is not None:
                optimizer.step(lr)

    def zero_grad(self) -> None:
        for p in self._parameters:
            p.grad = None

    def forget_momentum(self) -> None:
        """Reset both first moments, after parameters were restored to earlier values."""
        for optimizer in (self.soap, self.adam):
            if optimizer is not None:
                optimizer.forget_momentum()


def cosine_lr(start_lr: float, iteration: int, max_iterations: int) -> float:
    """From start_lr at iteration 0 down to 0 at max_iterations, along half a cosine."""
    return 0.5 * start_lr * (1.0 + math.cos(math.pi * iteration / max_iterations))
