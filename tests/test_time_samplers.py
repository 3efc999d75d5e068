"""The laws of the training times, and the times of validation."""

import math

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES
from scipy import stats

from inkdrop.randomness import Generators
from inkdrop.schedules import linear_beta
from inkdrop.time_samplers import (
    DiscreteUniform,
    LogitNormal,
    LogNormalSigma,
    LossAware,
    Stratified,
    Times,
    TimeSampler,
    Uniform,
    spread,
)

GENERATORS = Generators.from_seeds(range(20_000)).at("time")


def same_law(values: torch.Tensor, law: object) -> bool:
    return stats.kstest(values.numpy(), law.cdf).pvalue > 0.01  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["vp", "linear_beta", "edm"])
def test_uniform_covers_the_schedule_down_to_its_smallest_time(name: str) -> None:
    schedule = ALL_SCHEDULES[name]
    t = Uniform()(schedule, GENERATORS).t
    assert t.dtype == torch.float64
    assert t.min() >= schedule.t_min
    assert same_law(t, stats.uniform(schedule.t_min, 1 - schedule.t_min))


def test_discrete_draws_every_step_equally_often() -> None:
    t = DiscreteUniform()(linear_beta(10, 1e-3, 0.5), GENERATORS).t
    steps, counts = torch.unique((t * 10).round().long(), return_counts=True)
    assert steps.tolist() == list(range(1, 11))
    assert torch.allclose(t, (t * 10).round() / 10, atol=1e-15)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_a_closed_form_has_no_steps_to_draw() -> None:
    with pytest.raises(ValueError, match="time_sampler=uniform"):
        DiscreteUniform()(SCHEDULES["vp"], GENERATORS)


@pytest.mark.parametrize("name", ["edm", "vp", "linear", "cosine"])
def test_the_log_of_sigma_is_normal(name: str) -> None:
    """Within the ends of the schedule; what lies outside stands at the ends."""
    schedule = ALL_SCHEDULES[name]
    t = LogNormalSigma(-1.2, 1.2)(schedule, GENERATORS).t
    assert t.min() >= schedule.t_min * (1 - 1e-9)
    assert t.max() <= 1
    lowest, highest = -schedule.log_snr(torch.tensor([schedule.t_min, 1.0], dtype=torch.float64)) / 2
    expected = torch.special.ndtri(GENERATORS.uniform()) * 1.2 - 1.2
    inside = (expected > lowest) & (expected < highest)
    assert torch.allclose(-schedule.log_snr(t[inside]) / 2, expected[inside], atol=1e-6)
    log_sigma = (-schedule.log_snr(t) / 2).clamp(-10, 10)
    assert stats.kstest(log_sigma.numpy(), stats.norm(-1.2, 1.2).cdf).statistic < 0.012


def test_the_logit_of_t_is_normal() -> None:
    t = LogitNormal(0.5, 0.8)(SCHEDULES["linear"], GENERATORS).t
    assert same_law(torch.logit(t), stats.norm(0.5, 0.8))
    assert LogitNormal(-9.0, 1.0)(SCHEDULES["linear"], GENERATORS).t.min() == 1e-3


@pytest.mark.parametrize(
    ("law", "expected"),
    [(Uniform(), stats.uniform(1e-3, 0.999)), (LogitNormal(), stats.logistic)],
    ids=["uniform", "logit-normal"],
)
def test_stratified_keeps_the_law_and_spreads_each_batch(law: TimeSampler, expected: object) -> None:
    positions = Generators.from_positions(3, range(640)).at("time")
    t = Stratified(law)(SCHEDULES["linear"], positions).t
    if isinstance(law, Uniform):
        assert stats.kstest(t.numpy(), expected.cdf).statistic < 0.005  # type: ignore[attr-defined]
    for u in Stratified(law)(SCHEDULES["linear"], positions).u.split(64):
        # 64 random numbers would leave a gap of 0.07 on average and come within 0.0003 of each other.
        gaps = u.sort().values.diff()
        assert gaps.max() < 0.04
        assert gaps.min() > 0.005


def test_stratified_times_are_those_of_the_position_whatever_batch_or_rank() -> None:
    whole = Stratified(Uniform())(SCHEDULES["vp"], Generators.from_positions(1, range(100, 140)).at("time")).t
    rank = Stratified(Uniform())(SCHEDULES["vp"], Generators.from_positions(1, range(120, 140)).at("time")).t
    other_seed = Stratified(Uniform())(SCHEDULES["vp"], Generators.from_positions(2, range(120, 140)).at("time")).t
    assert torch.equal(whole[20:], rank)
    assert not torch.allclose(rank, other_seed, atol=1e-3)


def loss_at(u: torch.Tensor) -> torch.Tensor:
    return (4 * u).exp()


def learned(law: TimeSampler, num_bins: int = 20) -> LossAware:
    sampler = LossAware(law, num_bins=num_bins, num_losses=10)
    u = (torch.arange(10 * num_bins, dtype=torch.float64) + 0.5) / (10 * num_bins)
    sampler.observe(Times(u, u), loss_at(u))
    return sampler


def test_loss_aware_is_uniform_until_it_has_seen_enough() -> None:
    sampler = LossAware(Uniform(), num_bins=20, num_losses=10)
    u = (torch.arange(199, dtype=torch.float64) + 0.5) / 200
    sampler.observe(Times(u, u), loss_at(u))
    drawn = sampler(SCHEDULES["vp"], GENERATORS)
    assert same_law(drawn.u, stats.uniform)
    assert torch.equal(drawn.importance, torch.ones(20_000).double())


def test_loss_aware_draws_bins_by_the_root_of_their_mean_square_loss() -> None:
    sampler = learned(Uniform())
    drawn = sampler(SCHEDULES["vp"], GENERATORS)
    u = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    root = loss_at(u).square().reshape(20, 10).mean(1).sqrt()
    shares = 0.999 * root / root.sum() + 0.001 / 20
    counts = (drawn.u * 20).long().bincount(minlength=20)
    assert stats.chisquare(counts.numpy(), (20_000 * shares).numpy()).pvalue > 0.01
    assert drawn.importance is not None
    assert torch.allclose(drawn.importance, 1 / (20 * shares[(drawn.u * 20).long()]))


def test_a_rare_large_loss_counts_by_its_square() -> None:
    sampler = LossAware(Uniform(), num_bins=2, num_losses=4)
    u = torch.tensor([0.25] * 4 + [0.75] * 4, dtype=torch.float64)
    sampler.observe(Times(u, u), torch.tensor([0.0, 0.0, 0.0, 8.0, 4.0, 4.0, 4.0, 4.0]))  # 4 in both bins
    assert torch.allclose(sampler(SCHEDULES["vp"], GENERATORS).importance, torch.ones(20_000).double())


@pytest.mark.parametrize(
    ("law", "name"), [(Uniform(), "vp"), pytest.param(DiscreteUniform(), "linear_beta", marks=pytest.mark.slow)]
)
def test_importance_leaves_the_mean_loss_as_it_was_with_less_variance(law: TimeSampler, name: str) -> None:
    drawn = learned(law)(SCHEDULES[name], GENERATORS)
    assert drawn.importance is not None
    weighted = drawn.importance * loss_at(drawn.t)
    plain = loss_at(law(SCHEDULES[name], Generators.from_seeds(range(200_000)).at("plain")).t)
    assert weighted.mean().item() == pytest.approx(plain.mean().item(), rel=0.01)
    assert weighted.std() < plain.std() / 4


def test_what_loss_aware_has_seen_travels_in_its_state() -> None:
    sampler, other = learned(Uniform()), LossAware(Uniform(), num_bins=20, num_losses=10)
    other.load_state_dict(sampler.state_dict())
    assert torch.equal(sampler(SCHEDULES["vp"], GENERATORS).t, other(SCHEDULES["vp"], GENERATORS).t)


# Validation ----------------------------------------------------------------------------------------------------------

COUNT = 4000


def distance(u: torch.Tensor) -> float:
    """Kolmogorov's distance of numbers (n) from the uniform law on [0, 1]."""
    return float(stats.kstest(u.numpy(), "uniform").statistic)


def validated(items: range | list[int]) -> torch.Tensor:
    """The times of validation as shares of all times, of `schedule=vp`."""
    schedule = SCHEDULES["vp"]
    return (spread(schedule, list(items)) - schedule.t_min) / (1 - schedule.t_min)


@pytest.mark.parametrize("name", ["vp", "edm", "linear"])
def test_the_expectation_over_validation_times_is_that_of_the_uniform_law(name: str) -> None:
    schedule = ALL_SCHEDULES[name]
    t = spread(schedule, range(COUNT))
    even = schedule.t_min + (1 - schedule.t_min) * (torch.arange(100_000).double() + 0.5) / 100_000
    for function in (torch.square, torch.sqrt, lambda t: torch.sin(9 * t), lambda t: 1 / (t + 0.01)):
        assert function(t).mean().item() == pytest.approx(function(even).mean().item(), rel=1e-2)
    assert t.min() >= schedule.t_min
    assert t.max() <= 1


def test_validation_is_at_all_steps_of_a_table_equally_often() -> None:
    t = spread(linear_beta(10, 1e-3, 0.5), range(COUNT))
    steps, counts = torch.unique((t * 10).round().long(), return_counts=True)
    assert steps.tolist() == list(range(1, 11))
    assert torch.equal(t, (t * 10).round() / 10)
    assert counts.min() >= COUNT / 10 - 4
    assert counts.max() <= COUNT / 10 + 4


@pytest.mark.parametrize(("number", "within"), [(16, 0.35), (64, 0.1), (256, 0.03), (1000, 0.01)])
def test_consecutive_items_have_all_times_of_validation(number: int, within: float) -> None:
    """So that the first batches, and each class of sorted data, are looked at as all of them are."""
    u = validated(range(COUNT))
    starts = range(0, COUNT - number, 37)
    assert max(distance(u[start : start + number]) for start in starts) < within
    tied = (torch.arange(COUNT).double() + 0.5) / COUNT  # to the number of the item
    assert max(distance(tied[start : start + number]) for start in starts) > 0.7


@pytest.mark.slow
def test_items_in_turns_have_all_times_of_validation() -> None:
    """Whatever the number of classes: with multiples of the golden ratio alone, 89 would do harm."""
    u = validated(range(20_000))
    plain = torch.frac(torch.arange(20_000).double() * (math.sqrt(5) - 1) / 2)
    worst = {"ours": 0.0, "plain": 0.0}
    for classes in range(2, 200):
        for first in (0, classes // 2):
            for name, each in (("ours", u), ("plain", plain)):
                worst[name] = max(worst[name], distance(each[first::classes][:100]))
    assert worst["ours"] < 0.23  # of ten thousand draws of 100 numbers less than one is above
    assert worst["plain"] > 0.5


def test_a_validation_time_belongs_to_its_item_alone() -> None:
    order = torch.randperm(500).tolist()
    assert torch.equal(validated(order), validated(range(500))[order])
    assert torch.equal(validated([498]), validated(range(500))[[498]])
    assert len(validated([])) == 0
    assert len(set(validated(range(COUNT)).tolist())) == COUNT
