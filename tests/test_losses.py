"""The denoising loss against its closed form."""

import itertools
import math

import pytest
import torch
from analytic import SCHEDULES
from torch import Tensor, nn

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses import DenoisingLoss, Example, LearnedUncertainty, minibatch_ot
from inkdrop.predictions import FlowPrediction, NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.time_samplers import DiscreteUniform, LossAware, Uniform
from inkdrop.weightings import Likelihood, Unit, Weighting


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
        NetworkDenoiser(Zero(), SCHEDULES["linear_beta"], NoisePrediction()), Example(x_0), generators
    )
    flow = DenoisingLoss(Uniform(), Unit())(
        NetworkDenoiser(Zero(), SCHEDULES["linear"], FlowPrediction()), Example(x_0), generators
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
        denoiser, Example(x_0), Generators.from_seeds(range(3 * count)), t.repeat_interleave(count)
    )
    measured = terms.loss.reshape(3, count).mean(1).double()
    assert torch.allclose(measured, schedule.alpha(t) ** 2, rtol=0.03)


def test_a_sample_has_the_same_loss_in_every_batch() -> None:
    denoiser = NetworkDenoiser(BestLinear(), SCHEDULES["linear_beta"], NoisePrediction())
    loss = DenoisingLoss(DiscreteUniform(), Unit())
    x_0 = torch.randn(6, 2)
    whole = loss(denoiser, Example(x_0), Generators.from_positions(3, range(6)))
    part = loss(denoiser, Example(x_0[[4, 1]]), Generators.from_positions(3, [4, 1]))
    assert torch.equal(whole.t[[4, 1]], part.t)
    assert torch.allclose(whole.loss[[4, 1]], part.loss, rtol=1e-6)


def test_weighting_multiplies_the_error() -> None:
    denoiser = NetworkDenoiser(Zero(), SCHEDULES["vp"], NoisePrediction())
    generators, x_0 = Generators.from_seeds(range(5)), torch.randn(5, 2)
    terms = DenoisingLoss(Uniform(), Twice())(denoiser, Example(x_0), generators)
    assert torch.allclose(terms.loss, 2 * terms.parts["error"])


@pytest.mark.slow
def test_learned_uncertainty_finds_the_logarithm_of_the_loss() -> None:
    """`L exp(-u) + u` is least at u = log L; for x_0 ~ N(0, 1) and the best denoiser L(t) = alpha(t)^2."""
    schedule = SCHEDULES["linear_beta"]
    denoiser = NetworkDenoiser(BestLinear(), schedule, NoisePrediction())
    loss = LearnedUncertainty(DenoisingLoss(Uniform(), Unit()))
    inner = loss.loss
    optimizer = torch.optim.Adam(loss.u.parameters(), 0.02)
    first = loss(denoiser, Example(torch.randn(4, 2)), Generators.from_seeds(range(4)))
    plain = inner(denoiser, Example(torch.randn(4, 2)), Generators.from_seeds(range(4)))
    assert first.loss.shape == plain.loss.shape
    spread = torch.linspace(0.02, 0.5, 256, dtype=torch.float64)
    for step in range(200):
        generators = Generators.from_positions(0, range(256 * step, 256 * (step + 1)))
        optimizer.zero_grad()
        loss(denoiser, Example(torch.randn(256, 8)), generators, spread).loss.mean().backward()
        optimizer.step()
    t = torch.tensor([0.05, 0.2, 0.4], dtype=torch.float64)
    with torch.no_grad():
        u = loss.uncertainty(schedule.log_snr(t))
    assert torch.allclose(u.double(), 2 * schedule.alpha(t).log(), atol=0.15)


def test_uncertainty_begins_as_the_loss_itself() -> None:
    denoiser = NetworkDenoiser(BestLinear(), SCHEDULES["linear_beta"], NoisePrediction())
    inner, generators, x_0 = DenoisingLoss(Uniform(), Unit()), Generators.from_seeds(range(4)), torch.randn(4, 2)
    assert torch.equal(
        LearnedUncertainty(inner)(denoiser, Example(x_0), generators).loss,
        inner(denoiser, Example(x_0), generators).loss,
    )


def test_uncertainty_counts_as_the_loss_does_where_times_are_drawn_more_often() -> None:
    times = LossAware(Uniform(), num_bins=4, num_losses=1)
    times.losses[:, 0], times.counts[:] = torch.arange(1.0, 5.0), 1
    denoiser = NetworkDenoiser(BestLinear(), SCHEDULES["linear_beta"], NoisePrediction())
    loss = LearnedUncertainty(DenoisingLoss(times, Unit()))
    torch.nn.init.constant_(loss.u.bias, 0.7)
    generators, x_0 = Generators.from_seeds(range(64)), torch.randn(64, 2)
    terms = loss(denoiser, Example(x_0), generators)
    assert terms.importance is not None
    assert terms.importance.unique().numel() == 4
    expected = terms.importance * (terms.parts["error"] * math.exp(-0.7) + 0.7)
    assert torch.allclose(terms.loss.double(), expected.double(), rtol=1e-5)


def test_optimal_transport_is_the_cheapest_of_all_orders() -> None:
    x_0, eps = torch.randn(6, 3), torch.randn(6, 3)

    def cost(order: tuple[int, ...]) -> float:
        return (x_0 - eps[list(order)]).square().sum().item()

    best = min(itertools.permutations(range(6)), key=cost)
    assert torch.equal(minibatch_ot(x_0, eps), eps[list(best)])


def test_coupled_noise_is_what_the_network_sees_and_is_asked_for() -> None:
    """Zero output on the straight path has the loss |eps - x_0|^2, which the coupling makes smaller."""
    denoiser = NetworkDenoiser(Zero(), SCHEDULES["linear"], FlowPrediction())
    x_0, generators = torch.randn(64, 2), Generators.from_seeds(range(64))
    plain = DenoisingLoss(Uniform(), Unit())(denoiser, Example(x_0), generators).loss
    coupled = DenoisingLoss(Uniform(), Unit(), minibatch_ot)(denoiser, Example(x_0), generators).loss
    eps = generators.at("noise").normal([2])
    assert torch.allclose(coupled, (minibatch_ot(x_0, eps) - x_0).square().mean(1))
    assert coupled.mean() < plain.mean() / 4


def test_likelihood_weighting_gives_the_bound_in_nats_per_element() -> None:
    """For x_0 ~ N(0, 1) and its best denoiser the error of eps is alpha^2, and the integral of -SNR' / 2 over t times
    the error of x_0, sigma^2, is known: -(1/2) int log_snr' alpha^2 dt = (1/2) [B(1) - B(t_min)] by VP's alpha^2 =
    exp(-B), log_snr' = B' / expm1(-B): the integrand is B' exp(-B) / (1 - exp(-B)) / 2."""
    schedule = SCHEDULES["vp"]

    class Best(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return schedule.sigma(c_noise.double() / 1000).to(x.dtype)[:, None] * x

    count = 100_000
    generators = Generators.from_seeds(range(count)).at("bound")
    x_0 = torch.randn(count, 2)
    t = schedule.t_min + (1 - schedule.t_min) * (torch.arange(count).double() + 0.5) / count
    loss = DenoisingLoss(Uniform(), Likelihood())(
        NetworkDenoiser(Best(), schedule, NoisePrediction()), Example(x_0), generators, t
    ).loss
    ends = schedule.sigma(torch.tensor([schedule.t_min, 1.0]).double())
    assert (1 - schedule.t_min) * loss.double().mean().item() == pytest.approx(
        (ends[1] / ends[0]).log().item(), rel=0.02
    )


def test_a_loss_aware_sampler_hears_of_the_losses_of_training_only() -> None:
    denoiser = NetworkDenoiser(Zero(), SCHEDULES["vp"], NoisePrediction())
    sampler = LossAware(Uniform(), num_bins=4, num_losses=2)
    loss, generators, x_0 = DenoisingLoss(sampler, Twice()), Generators.from_seeds(range(5)), torch.randn(5, 2)
    loss(denoiser, Example(x_0), generators, torch.linspace(0.1, 0.9, 5).double())
    assert sampler.counts.sum() == 0
    terms = loss(denoiser, Example(x_0), generators)
    assert sampler.counts.sum() == 5
    assert sampler.losses.max().item() == pytest.approx(terms.loss.max().item())
