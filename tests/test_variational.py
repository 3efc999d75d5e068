"""Terms of the variational bound against torch.distributions, published formulas and probabilities that add up."""

import math

import numpy as np
import pytest
import torch
from analytic import SCHEDULES
from torch.distributions import Normal, kl_divergence

from inkdrop.deviations import decoder, large, learned, small
from inkdrop.schedules import Point, Schedule
from inkdrop.variational import decoder_term, discretized, gaussian, prior_term, step_terms

TIMES = [(0.002, 0.001), (0.3, 0.2), (1.0, 0.9), (1.0, 0.001)]


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 2, dtype=torch.float64), torch.randn(count, 3, 2, dtype=torch.float64)


def posterior(schedule: Schedule, now: Point, next: Point, x_t: torch.Tensor, x_0: torch.Tensor) -> Normal:
    """q(x_s | x_t, x_0) by Bayes: the product of the forward kernel q(x_t | x_s) and q(x_s | x_0)."""
    ratio = now.alpha / next.alpha
    kernel = now.sigma**2 - ratio**2 * next.sigma**2
    precision = ratio**2 / kernel + 1 / next.sigma**2
    return Normal(
        (ratio * x_t / kernel + next.alpha * x_0 / next.sigma**2) / precision, torch.full_like(x_0, precision**-0.5)
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("times", TIMES)
def test_a_step_is_the_divergence_of_two_gaussians(name: str, times: tuple[float, float]) -> None:
    now, next = SCHEDULES[name].points(times)
    x_0, estimate = batch(4)
    q, p = (posterior(SCHEDULES[name], now, next, torch.randn_like(x_0), each) for each in (x_0, estimate))
    for deviation in (small(now, next, {}), large(now, next, {}), 0.3 * torch.rand(4, 3, 2).double() + 0.1):
        _, scale = torch.broadcast_tensors(x_0, torch.as_tensor(deviation, dtype=torch.float64))
        x_t = torch.randn_like(x_0)
        q, p = (posterior(SCHEDULES[name], now, next, x_t, each) for each in (x_0, estimate))
        expected = kl_divergence(q, Normal(p.mean, scale)).flatten(1).sum(1)
        terms = step_terms(x_0, estimate, now, next, deviation)
        assert torch.allclose(terms, expected, rtol=1e-6), deviation
    assert step_terms(x_0, x_0, now, next, small(now, next, {})).abs().max() < 1e-12


def test_points_of_tensors_give_what_points_of_floats_give() -> None:
    schedule = SCHEDULES["cosine"]
    now, next = (torch.tensor(each, dtype=torch.float64) for each in zip(*TIMES, strict=True))
    x_0, estimate = batch(len(TIMES))
    extras = {"variance": 2 * torch.rand(len(TIMES), 3, 2).double() - 1}
    for deviation in (small, large, learned):
        together = schedule.point(now), schedule.point(next)
        terms = step_terms(x_0, estimate, *together, deviation(*together, extras))
        for i, times in enumerate(TIMES):
            one, own = schedule.points(times), {"variance": extras["variance"][i : i + 1]}
            alone = step_terms(x_0[i : i + 1], estimate[i : i + 1], *one, deviation(*one, own))
            assert torch.allclose(terms[i], alone[0], rtol=1e-9)


def test_deviations_equal_the_published_table() -> None:
    """posterior_log_variance_clipped, log beta, and their interpolation, from the betas alone."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    posterior_variance = betas * (1 - before) / (1 - alpha_bar)
    low, high = np.log(np.append(posterior_variance[1], posterior_variance[1:])), np.log(betas)
    schedule, v = SCHEDULES["linear_beta"], torch.linspace(-1, 1, 6).double().reshape(1, 6)
    share = (v.numpy() + 1) / 2
    for i in (1, 2, 400, 999):
        now, next = schedule.points([(i + 1) / 1000, i / 1000])
        assert 2 * math.log(small(now, next, {})) == pytest.approx(low[i], rel=1e-9)  # type: ignore[arg-type]
        assert 2 * math.log(large(now, next, {})) == pytest.approx(high[i], rel=1e-9)  # type: ignore[arg-type]
        ours = 2 * torch.as_tensor(learned(now, next, {"variance": v})).log().numpy()
        assert np.allclose(ours, share * high[i] + (1 - share) * low[i], rtol=1e-9)
    first, second = schedule.points([0.001, 0.002])
    ours = 2 * torch.as_tensor(decoder(first, second, {"variance": v})).log().numpy()
    assert np.allclose(ours, share * high[0] + (1 - share) * low[0], rtol=1e-9)
    assert decoder(first, second, {}) == decoder(first, None, {"variance": v}) == first.sigma
    with pytest.raises(ValueError, match="has no output for the variance"):
        learned(first, second, {})


def test_the_published_mean_coefficient() -> None:
    """sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) multiplies x_0; two estimates differ by it."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    now, next = SCHEDULES["linear_beta"].points([0.5, 0.499])
    x_0 = torch.ones(1, 1, dtype=torch.float64)
    coefficient = math.sqrt(alpha_bar[498]) * betas[499] / (1 - alpha_bar[499])
    deviation = small(now, next, {})
    assert step_terms(x_0, 3 * x_0, now, next, deviation).item() == pytest.approx(
        (2 * coefficient / deviation) ** 2 / 2, rel=1e-9
    )


def test_the_prior_is_the_divergence_at_the_end() -> None:
    x_0, _ = batch(3)
    for name in SCHEDULES:
        (last,) = SCHEDULES[name].points([1.0])
        law = Normal(torch.zeros(()).double(), last.sigma)
        expected = kl_divergence(Normal(last.alpha * x_0, last.sigma), law).flatten(1).sum(1)
        assert torch.allclose(prior_term(x_0, last), expected, atol=1e-12), name


def test_probabilities_of_the_levels_add_up_to_one() -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[None]
    for deviation in (0.001, 0.01, 0.5, 20.0):
        for mean in (-1.3, -1.0, 0.1234, 0.999, 4.0):
            log = discretized(levels, torch.full_like(levels, mean), deviation, 2 / 255)
            assert log.logsumexp(1).item() == pytest.approx(0, abs=1e-10)
            single = discretized(levels.float(), torch.full_like(levels, mean).float(), deviation, 2 / 255)
            assert bool(single.isfinite().all())
            assert torch.allclose(single.double(), log, rtol=1e-3, atol=1e-3)


def test_levels_have_the_probability_of_their_bins() -> None:
    levels, law = torch.linspace(-1, 1, 256, dtype=torch.float64)[None], Normal(torch.tensor(0.1).double(), 0.3)
    expected = law.cdf(levels + 1 / 255) - law.cdf(levels - 1 / 255)
    expected[0, 0], expected[0, -1] = law.cdf(levels[0, 0] + 1 / 255), 1 - law.cdf(levels[0, -1] - 1 / 255)
    ours = discretized(levels, torch.full_like(levels, 0.1), 0.3, 2 / 255)
    assert torch.allclose(ours.exp(), expected, rtol=1e-9)


def test_gradients_stay_finite_in_the_tails() -> None:
    levels = torch.tensor([[-1.0, -1.0, 1.0, 1.0, 0.0]])
    mean = torch.tensor([[-1.0, 30.0, -30.0, 1.0, 9.0]], requires_grad=True)
    deviation = torch.full((1, 5), 0.01, requires_grad=True)
    decoder_term(levels, mean, deviation, lambda x, m, d: discretized(x, m, d, 2 / 255)).sum().backward()
    for tensor in (mean, deviation):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())


def test_the_continuous_decoder_is_a_gaussian_density() -> None:
    x, mean = batch(2)
    expected = -Normal(mean, 0.2).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(decoder_term(x, mean, 0.2, gaussian), expected)
    per_sample = torch.tensor([0.2, 0.5], dtype=torch.float64)
    expected = -Normal(mean, per_sample[:, None, None]).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(decoder_term(x, mean, per_sample, gaussian), expected)
