"""The denoising loss against its closed form."""

import pytest
import torch
from analytic import SCHEDULES
from torch import Tensor, nn

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses import DenoisingLoss
from inkdrop.predictions import FlowPrediction, NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.time_samplers import DiscreteUniform, Uniform
from inkdrop.weightings import Unit, Weighting


class Zero(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.zeros_like(x)


class BestLinear(nn.Module):
    """E[eps | x_t] = sigma x_t where x_0 and eps are standard normal and alpha^2 + sigma^2 = 1."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        t = (c_noise.double() + 1) / 1000
        return SCHEDULES["linear_beta"].sigma(t).to(x.dtype)[:, None] * x


class Twice(Weighting):
    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return torch.full_like(log_snr, 2.0)


def test_the_target_of_zero_output_is_the_target_itself() -> None:
    """|F*|^2 is 1 for noise, and |x_0|^2 + 1 for flow, in expectation."""
    x_0 = 3 * torch.ones(4000, 5)
    generators = Generators.from_seeds(range(4000))
    noise = DenoisingLoss(DiscreteUniform(), Unit())(
        NetworkDenoiser(Zero(), SCHEDULES["linear_beta"], NoisePrediction()), x_0, {}, generators
    )
    flow = DenoisingLoss(Uniform(), Unit())(
        NetworkDenoiser(Zero(), SCHEDULES["linear"], FlowPrediction()), x_0, {}, generators
    )
    assert noise.loss.mean().item() == pytest.approx(1, abs=0.03)
    assert flow.loss.mean().item() == pytest.approx(10, abs=0.15)


def test_the_best_denoiser_of_normal_data_reaches_the_known_minimum() -> None:
    """For x_0 ~ N(0, 1) the minimum of L_simple at t is the variance of eps given x_t, alpha(t)^2."""
    schedule = SCHEDULES["linear_beta"]
    denoiser = NetworkDenoiser(BestLinear(), schedule, NoisePrediction())
    t = torch.tensor([0.01, 0.1, 0.3], dtype=torch.float64)
    count = 20_000
    x_0 = torch.randn(3 * count, 2)
    terms = DenoisingLoss(DiscreteUniform(), Unit())(
        denoiser, x_0, {}, Generators.from_seeds(range(3 * count)), t.repeat_interleave(count)
    )
    measured = terms.loss.reshape(3, count).mean(1).double()
    assert torch.allclose(measured, schedule.alpha(t) ** 2, rtol=0.03)


def test_a_sample_has_the_same_loss_in_every_batch() -> None:
    denoiser = NetworkDenoiser(BestLinear(), SCHEDULES["linear_beta"], NoisePrediction())
    loss = DenoisingLoss(DiscreteUniform(), Unit())
    x_0 = torch.randn(6, 2)
    whole = loss(denoiser, x_0, {}, Generators.from_positions(3, range(6)))
    part = loss(denoiser, x_0[[4, 1]], {}, Generators.from_positions(3, [4, 1]))
    assert torch.equal(whole.t[[4, 1]], part.t)
    assert torch.allclose(whole.loss[[4, 1]], part.loss, rtol=1e-6)


def test_weighting_multiplies_the_error() -> None:
    denoiser = NetworkDenoiser(Zero(), SCHEDULES["vp"], NoisePrediction())
    generators, x_0 = Generators.from_seeds(range(5)), torch.randn(5, 2)
    terms = DenoisingLoss(Uniform(), Twice())(denoiser, x_0, {}, generators)
    assert torch.allclose(terms.loss, 2 * terms.parts["error"])
