"""Rate-distortion losses."""

import math

import pytest
import torch

from coolvid.encoding.loss import RateDistortionLoss, convert_lmbda, loss_function, n_pixels
from coolvid.errors import ConfigError, UnknownPlugin

CHOICES = "compressai, mse"


def dense(seed=0, batch=1):
    return torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


def yuv420(seed=0):
    x = dense(seed)
    return {"y": x[:, :1], "u": x[:, 1:2, ::2, ::2], "v": x[:, 2:, ::2, ::2]}


def test_loss_is_distortion_plus_lambda_times_all_bits_per_pixel():
    decoded, target, bits = dense(0), dense(1), torch.tensor([100.0, 44.0])
    out = loss_function(decoded, bits, target, lmbda=0.01, rate_mlp_bit=48.0, compute_logs=True)
    mse = ((decoded - target) ** 2).mean().item()
    assert out.loss.item() == pytest.approx(mse + 0.01 * (144 + 48) / 48)
    assert (out.mse, out.rate_nn_bpp, out.rate_latent_bpp) == pytest.approx((mse, 1.0, 3.0))
    assert out.total_rate_bpp == pytest.approx(4.0)
    assert out.psnr_db == pytest.approx(-10 * math.log10(mse))


def test_logs_are_absent_unless_asked_for():
    out = loss_function(dense(0), torch.tensor(1.0), dense(1))
    assert (out.mse, out.rate_nn_bpp, out.rate_latent_bpp, out.total_rate_bpp, out.psnr_db) == (None,) * 5


def test_planes_of_420_count_by_their_samples():
    decoded, target = yuv420(0), yuv420(1)
    out = loss_function(decoded, torch.tensor(0.0), target, compute_logs=True)
    squares = torch.cat([((decoded[p] - target[p]) ** 2).flatten() for p in "yuv"])
    assert squares.numel() == 72 and n_pixels(target) == 48
    assert out.mse == pytest.approx(squares.mean().item())


def test_equal_pictures_have_infinite_psnr():
    assert loss_function(dense(), torch.tensor(0.0), dense(), compute_logs=True).psnr_db == math.inf


def test_gradients_reach_picture_and_rate_but_not_the_network_rate():
    decoded, bits = dense(0).requires_grad_(), torch.tensor(5.0, requires_grad=True)
    loss_function(decoded, bits, dense(1), lmbda=0.1, rate_mlp_bit=7.0).loss.backward()
    assert bits.grad.item() == pytest.approx(0.1 / 48)
    torch.testing.assert_close(decoded.grad, 2 * (decoded.detach() - dense(1)) / decoded.numel())


def test_another_distortion_is_minimised_but_mse_is_still_logged():
    out = loss_function(
        dense(0), torch.tensor(0.0), dense(1), compute_logs=True, distortion=lambda a, b: (a - b).abs().mean()
    )
    assert out.loss.item() == pytest.approx((dense(0) - dense(1)).abs().mean().item())
    assert out.mse == pytest.approx(((dense(0) - dense(1)) ** 2).mean().item())


@pytest.mark.parametrize("value", [1e-4, 0.0067, 0.18])
def test_convert_lmbda_is_its_own_inverse_and_keeps_the_optimum(value):
    ours = convert_lmbda(value, to="mse")
    assert convert_lmbda(ours, to="compressai") == pytest.approx(value)
    output = {"x_hat": dense(0, 2), "likelihoods": {"y": torch.full((2, 4, 3), 0.25), "z": torch.full((2, 6), 0.5)}}
    theirs = RateDistortionLoss(value, convention="compressai")(output, dense(1, 2))
    mine = RateDistortionLoss(ours, convention="mse")(output, dense(1, 2))
    assert mine["loss"].item() == pytest.approx(ours * theirs["loss"].item(), rel=1e-5)


def test_rate_distortion_loss_sums_streams_and_averages_over_pixels_of_the_batch():
    output = {"x_hat": dense(0, 2), "likelihoods": {"y": torch.full((2, 4, 3), 0.25), "z": torch.full((2, 6), 0.5)}}
    out = RateDistortionLoss(0.5, convention="mse")(output, dense(1, 2))
    assert out["bpp_loss"].item() == pytest.approx((24 * 2 + 12) / 96)
    assert out["loss"].item() == pytest.approx(out["mse_loss"].item() + 0.5 * out["bpp_loss"].item())


@pytest.mark.parametrize(
    "make, error, says",
    [
        (lambda: convert_lmbda(1.0, to="ours"), ConfigError, CHOICES),
        (lambda: convert_lmbda(0.0, to="mse"), ConfigError, "lambda is 0.0"),
        (lambda: RateDistortionLoss(1.0, convention="x"), ConfigError, CHOICES),
        (lambda: RateDistortionLoss(float("nan")), ConfigError, "lmbda is nan"),
        (lambda: RateDistortionLoss(1.0, distortion="mean"), UnknownPlugin, "no distortion named 'mean'"),
    ],
)
def test_errors_name_value_and_choices(make, error, says):
    with pytest.raises(error, match=says):
        make()
