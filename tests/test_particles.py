"""Constraints on known elements against the exact conditional law of a mixture."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from analytic import SCHEDULES, BatchGaussian, ExactDenoiser, exact_pipeline, gaussian, mixture
from torch import Tensor

from inkdrop.constraints import DPS, ConstraintFactory, Particles, PiGDM, Replacement, Resampling, Residual, Systematic
from inkdrop.noises import Transition
from inkdrop.samplers import DDIM, Ancestral
from inkdrop.time_grids import Resampled, TimeGrid, Trailing

MASK, Y = torch.tensor([True, False]), torch.tensor([0.8, 0.0], dtype=torch.float64)


def conditional(denoiser: ExactDenoiser, count: int) -> Tensor:
    """Exact draws of the second coordinate given that the first is Y[0]."""
    mean, covariance = denoiser.means, denoiser.covariances
    gain = covariance[:, 0, 1] / covariance[:, 0, 0]
    gap = Y[0] - mean[:, 0]
    weights = denoiser.weights * (-(gap**2) / covariance[:, 0, 0] / 2).exp() / covariance[:, 0, 0].sqrt()
    generator = torch.Generator().manual_seed(3)
    mode = torch.multinomial(weights, count, replacement=True, generator=generator)
    std = (covariance[:, 1, 1] - gain * covariance[:, 0, 1]).sqrt()
    normal = torch.randn(count, dtype=torch.float64, generator=generator)
    return (mean[:, 1] + gain * gap)[mode] + std[mode] * normal


def conditional_w1(grid: TimeGrid, constraint: ConstraintFactory, count: int) -> float:
    """W1 of the second coordinate to its exact law, by quantiles of many exact draws."""
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian(), spread=3)
    pipeline = exact_pipeline(denoiser, Ancestral(grid))
    pipeline.constraint = constraint
    samples = pipeline({"known": Y.expand(count, 2), "mask": MASK.expand(count, 2)}, range(5000, 5000 + count))
    assert (samples[:, 0] == Y[0].to(samples)).all()
    exact = conditional(denoiser, 20 * count).sort().values[10::20]
    return (samples[:, 1].sort().values - exact).abs().mean().item()


@pytest.mark.slow
def test_replacement_repaint_and_particles_against_the_exact_conditional() -> None:
    """W1 of x_1 given x_0 = 0.8 on `analytic.mixture` with spread 3, VP schedule, DDPM sampler."""
    count = 2000
    replacement = conditional_w1(Trailing(50), Replacement(), count)
    repaint = conditional_w1(Resampled(Trailing(50), repeats=6), Replacement(), count)
    particles = [conditional_w1(Trailing(100), Particles(copies), count) for copies in (1, 4, 16)]
    assert repaint < replacement / 1.5  # benchmarks/image_tasks.py has ten observations and more steps
    assert particles[0] > 1.5 * particles[1]
    assert particles[2] < particles[0] / 2.5


@pytest.mark.parametrize("resampling", [Systematic(), Residual()], ids=["systematic", "residual"])
def test_particles_are_continued_as_often_as_they_weigh(resampling: Resampling) -> None:
    weights = torch.tensor([[0.5, 0.26, 0.24, 0.0], [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.25, 0.25]]).double()
    u = torch.rand(4000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row in weights:
        times = resampling(row.expand(4000, 4), u)
        assert (times.sum(1) == 4).all()
        assert (times >= (4 * row).floor()).all()
        assert torch.allclose(times.double().mean(0), 4 * row, atol=0.04)
    assert (resampling(weights[2:], u[:1]) == 1).all()  # equal weights lose no particle


def test_particles_need_noise_and_a_grid_that_descends() -> None:
    schedule, particles = SCHEDULES["vp"], Particles(4)
    for sampler, words in (
        (DDIM(Trailing(5)), "needs a sampler that draws noise, unlike DDIM"),
        (Ancestral(Resampled(Trailing(5), 1, 2)), "needs a grid that only descends"),
        (Ancestral(Trailing(1)), "at least two steps"),
    ):
        with pytest.raises(ValueError, match=words):
            particles.check(sampler, sampler.points(schedule))
    particles.check(Ancestral(Trailing(2)), Ancestral(Trailing(2)).points(schedule))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_sample_of_particles_is_the_same_in_any_batch(threshold: float) -> None:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]), Ancestral(Trailing(12)))
    pipeline.constraint = particles = Particles(4, threshold=threshold)
    known = {"known": Y.expand(6, 2), "mask": MASK.expand(6, 2)}
    together = pipeline(known, range(6))
    share = particles.measured()["least_effective_share"]
    assert share.shape == (6,)
    assert ((share >= 0.25 - 1e-9) & (share <= 1)).all()
    assert share.min() < 0.9
    assert particles.measured() == {}
    alone = pipeline({name: value[3:5] for name, value in known.items()}, range(3, 5))
    assert torch.allclose(together[3:5], alone, atol=1e-6)
    assert (together[:, 0] == Y[0]).all()


def test_pigdm_is_exact_for_standard_normal_data_with_known_correlations() -> None:
    """Data N(0, I) in a rotated frame are N(0, I): x_1 given x_0 is N(0, 1), and x_0 is what is known."""
    denoiser = gaussian(SCHEDULES["vp"], torch.zeros(2), torch.eye(2))
    pipeline = exact_pipeline(denoiser, DDIM(Trailing(40)))
    free = pipeline({}, range(400))
    pipeline.constraint = PiGDM()
    samples = pipeline({"known": Y.expand(400, 2), "mask": MASK.expand(400, 2)}, range(400))
    assert (samples[:, 0] == Y[0]).all()
    assert torch.allclose(samples[:, 1], free[:, 1], atol=1e-5)


def test_pigdm_estimates_what_is_known_exactly_for_standard_normal_data() -> None:
    """For data N(0, I), of which J is a / (a^2 + s^2), Bayes' rule replaces the known part of the estimate by y."""
    for name in ("vp", "linear"):
        denoiser = gaussian(SCHEDULES[name], torch.zeros(2), torch.eye(2))
        pipeline = exact_pipeline(denoiser)
        guided = PiGDM()(pipeline, {"known": Y.expand(50, 2), "mask": MASK.expand(50, 2)}).around(denoiser)
        x_t = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for now in denoiser.schedule.points([0.3, 0.8]):
            x_0, free = guided(x_t, now, {}).x_0, denoiser(x_t, now, {}).x_0
            assert torch.allclose(x_0[:, 0], Y[0].expand(50))
            assert torch.equal(x_0[:, 1], free[:, 1])


@pytest.mark.parametrize("name", ["vp", "linear"])
def test_a_move_of_dps_is_the_closed_form_for_correlated_gaussian_data(name: str) -> None:
    """D(x) = m + K (x - a m) with K = a C (a^2 C + s^2 I)^-1: the move is w K^T e / |e|, e the known error of D."""
    mean, covariance = torch.tensor([0.4, -0.7]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.5]]).double()
    denoiser = gaussian(SCHEDULES[name], mean, covariance)
    constraint = DPS(0.3)(exact_pipeline(denoiser), {"known": Y.expand(50, 2), "mask": MASK.expand(50, 2)})
    guided = constraint.around(denoiser)
    x_t = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    now, then = denoiser.schedule.points([0.6, 0.4])
    estimate = guided(x_t, now, {})
    gain = now.alpha * covariance @ (now.alpha**2 * covariance + now.sigma**2 * torch.eye(2)).inverse()
    error = (Y - mean - (x_t - now.alpha * mean) @ gain.T) * MASK
    transition, noise = Transition(x_t, 0.0), cast(Any, None)  # without noise nothing is drawn
    moved, index = constraint.apply(transition, now, then, noise, estimate)
    assert index is None
    assert torch.allclose(moved, x_t + 0.3 * (error / error.norm(dim=1, keepdim=True)) @ gain, atol=1e-12)
    again, _ = constraint.apply(transition, then, now, noise, None)
    assert torch.equal(again, x_t)  # an up-move follows no gradient


@pytest.mark.parametrize("constraint", [PiGDM(), DPS(0.1)], ids=["pigdm", "dps"])
def test_gradients_come_nearer_to_the_conditional_law_than_samples_without(constraint: ConstraintFactory) -> None:
    count = 600
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian(), spread=3)
    exact = conditional(denoiser, count).sort().values
    free = (denoiser.draw(count)[:, 1].sort().values - exact).abs().mean()
    assert conditional_w1(Trailing(60), constraint, count) < free / 2
