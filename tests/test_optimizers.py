"""SOAP against its definition, and the pair of optimisers."""

import math

import pytest
import torch

from coolvid.encoding.training.optimizers import SOAP, Optimizers, TorchAdam, cosine_lr

SHAPES = [(6, 20), (6, 20), (3, 3, 3, 3), (5,), (1, 7), (7, 1), (4, 2, 1, 1), (2, 300), ()]


def make_parameters(seed=0, shapes=SHAPES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def set_gradients(parameters, generator, scale=1e-3):
    for p in parameters:
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


class OneMatrix:
    """SOAP for one matrix, written down as the paper does (arXiv 2409.11321, algorithm 3)."""

    def __init__(self, weight, lr, every, decay, beta=0.95, eps=1e-8):
        self.w, self.lr, self.every, self.decay, self.beta, self.eps = weight.clone(), lr, every, decay, beta, eps
        self.m, self.v = torch.zeros_like(weight), torch.zeros_like(weight)
        self.left, self.right = (torch.zeros(n, n, dtype=weight.dtype) for n in weight.shape)
        self.t = 0

    def step(self, g):
        b = self.beta
        if self.t:
            self.m = b * self.m + (1 - b) * g
            turned, momentum = self.ql.T @ g @ self.qr, self.ql.T @ self.m @ self.qr
            self.v = b * self.v + (1 - b) * turned**2
            update = (momentum / (1 - b**self.t)) / ((self.v / (1 - b**self.t)).sqrt() + self.eps)
            self.w = (1 - self.lr * self.decay) * self.w - self.lr * self.ql @ update @ self.qr.T
        self.left = b * self.left + (1 - b) * g @ g.T
        self.right = b * self.right + (1 - b) * g.T @ g
        if self.t == 0:
            self.ql, self.qr = (self.first(p) for p in (self.left, self.right))
        elif self.t % self.every == 0:
            self.ql, order = self.follow(self.left, self.ql)
            self.v = self.v[order]
            self.qr, order = self.follow(self.right, self.qr)
            self.v = self.v[:, order]
        self.t += 1

    @staticmethod
    def first(p):
        preference = torch.linspace(1e-5, 0, len(p), dtype=p.dtype).diag()
        return torch.linalg.eigh(p / p.abs().max() + preference).eigenvectors.flip(-1)

    @staticmethod
    def follow(p, q):
        order = (q.T @ p @ q).diagonal().argsort(descending=True)
        shift = 1e-5 * (p @ q).abs().max() * torch.eye(len(p), dtype=p.dtype)
        return torch.linalg.qr((p + shift) @ q[:, order]).Q, order


@pytest.mark.parametrize("every", [1, 3, 10])
def test_soap_is_the_papers_algorithm(every):
    parameters = make_parameters(shapes=[(4, 6), (4, 6)])
    plain = [OneMatrix(p.detach(), 1e-2, every, 0.01) for p in parameters]
    soap = SOAP(parameters, lr=1e-2, precondition_every=every, max_norm=math.inf)
    generator = torch.Generator().manual_seed(3)
    for _ in range(25):
        set_gradients(parameters, generator)
        soap.step()
        for one, p in zip(plain, parameters, strict=True):
            one.step(p.grad)
    for one, p in zip(plain, parameters, strict=True):
        torch.testing.assert_close(p.detach(), one.w, rtol=1e-5, atol=1e-7)


def test_vectors_get_adam_after_a_first_look():
    (p,) = make_parameters(shapes=[(5,)])
    q = torch.nn.Parameter(p.detach().clone())
    soap = SOAP([p], lr=1e-2, betas=(0.9, 0.95), max_norm=math.inf)
    first, second = torch.zeros_like(q), torch.zeros_like(q)
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        set_gradients([p], generator)
        soap.step()
        if t:
            first = 0.9 * first + 0.1 * p.grad
            second = 0.95 * second + 0.05 * p.grad**2
            step = first / (1 - 0.9**t) / ((second / (1 - 0.95**t)).sqrt() + 1e-8)
            q.data.mul_(1 - 1e-4).sub_(1e-2 * step)
    torch.testing.assert_close(p, q)


def test_a_parameter_never_moves_further_than_the_rate():
    """Not even when the first gradient, which settles the basis, was a thousand times the others."""
    (p,) = make_parameters(shapes=[(4, 4)])
    soap, generator = SOAP([p], lr=1e-2, weight_decay=0.0, max_norm=math.inf), torch.Generator().manual_seed(5)
    for t in range(15):
        set_gradients([p], generator)
        p.grad *= 1.0 if t else 1e3
        before = p.detach().clone()
        soap.step()
        assert (p.detach() - before).norm() <= 1e-2 * math.sqrt(p.numel()) * 1.05


def test_equal_seeds_give_equal_steps_and_absent_gradients_count_as_zero():
    runs = []
    for _ in range(2):
        parameters = make_parameters(dtype=torch.float32)
        soap = SOAP(parameters, precondition_every=2)
        generator = torch.Generator().manual_seed(1)
        for i in range(8):
            set_gradients(parameters, generator)
            if i % 2:
                parameters[0].grad = None
            soap.step()
        runs.append([p.detach().clone() for p in parameters])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*runs, strict=True))


def test_gradients_that_are_all_zero_leave_finite_parameters():
    parameters = make_parameters(dtype=torch.float32)
    soap = SOAP(parameters, precondition_every=1, weight_decay=0.0)
    before = [p.detach().clone() for p in parameters]
    for _ in range(3):
        for p in parameters:
            p.grad = torch.zeros_like(p)
        soap.step()
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, parameters, strict=True))


def test_gradient_norm_is_clipped_over_all_parameters():
    parameters = make_parameters(shapes=[(3, 4), (5,)])
    soap = SOAP(parameters, max_norm=0.1)
    set_gradients(parameters, torch.Generator().manual_seed(0), scale=100.0)
    assert torch.linalg.vector_norm(soap._gradient()).item() == pytest.approx(0.1)
    set_gradients(parameters, torch.Generator().manual_seed(0), scale=1e-4)
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    torch.testing.assert_close(soap._gradient(), flat)


def test_soap_solves_a_badly_conditioned_regression_far_better_than_adam():
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q
    x = torch.randn(200, 20, generator=generator) @ torch.diag(torch.logspace(0, -2, 20)) @ turn
    y = x @ torch.randn(20, 6, generator=generator)
    final = {}
    for name in ("soap", "adam"):
        w = torch.nn.Parameter(torch.zeros(20, 6))
        soap = SOAP([w], weight_decay=0.0, max_norm=math.inf)
        optimizer = soap if name == "soap" else TorchAdam([w], (0.9, 0.999), 1e-8)
        for i in range(200):
            loss = ((x @ w - y) ** 2).mean()
            w.grad = None
            loss.backward()
            optimizer.step(cosine_lr(0.05, i, 200))
        final[name] = loss.item()
    assert final["soap"] < 0.1 * final["adam"]


def test_optimizers_move_weights_and_latents_and_take_none():
    weights, latents = make_parameters(shapes=[(3, 4)]), make_parameters(shapes=[(1, 1, 4, 4)])
    both = Optimizers(weights, latents, 1e-2, warmup=True)
    before = [p.detach().clone() for p in (*weights, *latents)]
    for _ in range(3):
        both.zero_grad()
        (sum(p.square().sum() for p in (*weights, *latents))).backward()
        both.step(1e-2)
    assert all(p.detach().square().sum() < b.square().sum() for p, b in zip((*weights, *latents), before, strict=True))
    both.forget_momentum()
    Optimizers([], [], 1e-2).step(1e-2)


def test_cosine():
    assert [cosine_lr(2.0, i, 4) for i in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.0])
