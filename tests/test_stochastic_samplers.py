"""Samplers that draw noise: the law of their samples, and the Brownian path that some of them follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from analytic import ALL_SCHEDULES, BatchGaussian, ExactDenoiser, mixture, sample, source, standard_errors
from torch import Tensor

from inkdrop.noises import Brownian, Gaussian, Move, Noise, NoiseSource
from inkdrop.randomness import Generators
from inkdrop.samplers import (
    DDIM,
    Ancestral,
    Denoise,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    adams_sde,
    dpmpp_2m_sde,
    dpmpp_3m_sde,
    heun,
)
from inkdrop.schedules import Point
from inkdrop.time_grids import Churn, Explicit, Linspace, LogSNR, Restart, TimeGrid

COUNT, NUM_STEPS = 3000, 400
Method = Callable[[TimeGrid], Sampler]


# The law of the samples ----------------------------------------------------------------------------------------------


def steps(num_steps: int = NUM_STEPS) -> TimeGrid:
    """Even steps in the log-SNR, enough for the error of methods of order 1 to be near one standard error.

    It was at most 4 standard errors of 8,000 samples for 200 steps.
    """
    return LogSNR(num_steps, highest=12.0)


METHODS: dict[str, Callable[[], Sampler]] = {
    "ancestral": lambda: Ancestral(steps()),
    "euler_ancestral": lambda: DDIM(steps(), eta=1.0),
    "ddim, eta = 0.5": lambda: DDIM(steps(), eta=0.5),
    "dpmpp_2m, eta = 1": lambda: dpmpp_2m_sde(steps(), eta=1.0),
    "dpmpp_2m, eta = 0.5": lambda: dpmpp_2m_sde(steps(), eta=0.5),
    "dpmpp_3m, eta = 1": lambda: dpmpp_3m_sde(steps(), eta=1.0),
    "dpmpp_3m, eta = 1.5": lambda: dpmpp_3m_sde(steps(), eta=1.5),
    "adams, eta = 0.5": lambda: adams_sde(steps(), eta=0.5),
    "euler_maruyama": lambda: EulerMaruyama(steps()),
    "reverse_diffusion": lambda: ReverseDiffusion(steps()),
    "predictor_corrector": lambda: PredictorCorrector(steps(NUM_STEPS // 2), ReverseDiffusion, 1, 0.16),
    "heun, churn": lambda: heun(Churn(steps(NUM_STEPS // 2), 40.0)),
    "heun, restart": lambda: heun(Restart(steps(NUM_STEPS // 2), 0.1, 2.0, 2, 30)),
    "dpmpp_2m, eta = 1, restart": lambda: dpmpp_2m_sde(Restart(steps(NUM_STEPS // 2), 0.1, 2.0, 2, 30), eta=1.0),
    "ddim, churn": lambda: DDIM(Churn(steps(NUM_STEPS // 2), 40.0)),
}
EVERYWHERE = ("dpmpp_2m, eta = 1", "heun, churn")
CASES = [(m, s) for m in METHODS for s in ("vp", "edm", "linear") if s == "vp" or m in EVERYWHERE]
CASES += [("reverse_diffusion", "linear")]  # from alpha = 0


@pytest.mark.many
@pytest.mark.parametrize(("method", "name"), CASES)
def test_moments_of_a_mixture_within_three_standard_errors(method: str, name: str) -> None:
    denoiser = mixture(ALL_SCHEDULES[name], BatchGaussian())
    assert standard_errors(denoiser, sample(denoiser, METHODS[method](), COUNT)).max() < 3


@pytest.mark.slow
def test_such_moments_tell_a_coarse_run_from_exact_samples() -> None:
    denoiser = mixture(ALL_SCHEDULES["vp"], BatchGaussian())
    assert standard_errors(denoiser, denoiser.draw(COUNT, 4)).max() < 3
    assert standard_errors(denoiser, sample(denoiser, DDIM(steps(40), eta=1.0), COUNT)).max() > 6
    assert standard_errors(denoiser, sample(denoiser, DDIM(steps(NUM_STEPS)), COUNT) * 1.03).max() > 3


@pytest.mark.parametrize("method", [Ancestral, ReverseDiffusion], ids=lambda method: method.__name__)
def test_the_first_step_from_pure_noise_has_the_law_of_the_chain(method: Method) -> None:
    """At alpha = 0 the estimate of x_0 is the mean, so that x is `alpha' mean` and noise of deviation sigma'."""
    one, schedule = torch.ones(1), ALL_SCHEDULES["linear"]
    denoiser = ExactDenoiser(schedule, one, torch.ones(1, 2), 0.25 * torch.eye(2)[None], BatchGaussian())
    seen: list[Tensor] = []
    sample(denoiser, method(Explicit([1.0, 0.9])), COUNT, progress=lambda done, total, x: seen.append(x))
    assert torch.allclose(seen[0].mean(0), torch.full((2,), 0.1).double(), atol=3 * 0.9 / COUNT**0.5)
    assert torch.allclose(seen[0].std(0), torch.full((2,), 0.9).double(), rtol=3 / (2 * COUNT) ** 0.5)


@pytest.mark.parametrize("eta", [0.5, 1.5])
@pytest.mark.parametrize("method", [dpmpp_2m_sde, dpmpp_3m_sde, adams_sde], ids=["2m", "3m", "adams"])
def test_a_step_has_the_noise_of_its_eta(method: Callable[..., Sampler], eta: float) -> None:
    """The deviation of x' is `s' sqrt(1 - exp(-2 eta (l' - l)))` for a log-SNR 2 l: Lu et al. 2022, section 5."""
    denoiser = mixture(ALL_SCHEDULES["vp"])
    now, next = denoiser.schedule.points([0.6, 0.4])
    noise = source(2, Gaussian()).at(Move(0, 0, now, next))  # not asked
    x = torch.zeros(2, 2, dtype=torch.float64)
    (_, std), _ = method(Linspace(2), eta=eta).step(Denoise(denoiser, {}), x, now, next, noise, ())
    remaining = (now.alpha * next.sigma / (now.sigma * next.alpha)) ** (2 * eta)
    assert std == pytest.approx(next.sigma * (1 - remaining) ** 0.5)


@pytest.mark.parametrize("up_noise", [1.0, 1.5])
def test_an_up_move_adds_up_noise_times_its_noise(up_noise: float) -> None:
    """S_noise of EDM: a share of x' comes from x, the rest is fresh."""
    low, high = ALL_SCHEDULES["vp"].points([0.2, 0.5])
    x = torch.randn(3, 2)
    mean, std = heun(Linspace(4), up_noise=up_noise).up(x, low, high)
    assert torch.allclose(mean, high.alpha / low.alpha * x)
    kept = (high.alpha / low.alpha * low.sigma) ** 2
    assert std == pytest.approx(up_noise * math.sqrt(high.sigma**2 - kept))


# Brownian paths ------------------------------------------------------------------------------------------------------


def points(halves: Sequence[float]) -> list[Point]:
    """Points whose times fall as the log-SNR grows."""
    return [Point(-half, math.nan, math.nan, half, math.nan) for half in halves]


def increments(
    halves: Sequence[float], loops: int = 0, law: Noise | None = None, seeds: Sequence[int] = range(COUNT)
) -> list[Tensor]:
    """The noise of each move (B, 2) between halves of the log-SNR."""
    path = Brownian(NoiseSource(law or BatchGaussian(), Generators.from_seeds(seeds)))
    like = torch.zeros(len(seeds), 2, dtype=torch.float64)
    moves = enumerate(pairwise(points(halves)))
    return [path.at(Move(number, loops, *ends))(like, "step") for number, ends in moves]


ROUGH = [-19.9, -6.0, -5.0, -1.0, -0.99, 0.0, 0.5, 2.0, 7.0]
FINE = [0.1 + 0.0002 * number for number in range(20)]  # many in one of the intervals in which the tree ends


@pytest.mark.parametrize("halves", [ROUGH, FINE], ids=["rough", "fine"])
def test_increments_are_independent_and_of_variance_1(halves: list[float]) -> None:
    noise = torch.stack(increments(halves)).flatten(1)  # a row of 2 COUNT numbers for each move
    covariance = noise @ noise.T / noise.shape[1]
    assert (covariance.diagonal() - 1).abs().max() < 4 * (2 / noise.shape[1]) ** 0.5
    assert (covariance - covariance.diagonal().diag()).abs().max() < 4 / noise.shape[1] ** 0.5
    assert noise.mean(1).abs().max() < 4 / noise.shape[1] ** 0.5


def test_the_noise_of_a_step_is_that_of_its_halves_together() -> None:
    (whole,), parts = increments([-1.0, 2.0]), increments([-1.0, 0.3, 1.1, 2.0])
    lengths = [math.exp(2 * b) - math.exp(2 * a) for a, b in pairwise([-1.0, 0.3, 1.1, 2.0])]
    together = sum(math.sqrt(length) * part for length, part in zip(lengths, parts, strict=True))
    assert torch.allclose(together / math.sqrt(sum(lengths)), whole, atol=1e-10)


def test_an_increment_from_pure_noise_on_is_the_value_of_the_path() -> None:
    (first,), (same,) = increments([-math.inf, -3.0]), increments([-19.0, -3.0])
    assert torch.allclose(first, same, atol=1e-6)
    assert abs(first.var() - 1) < 4 / COUNT**0.5


def test_a_path_belongs_to_its_seed() -> None:
    whole, part = (increments(ROUGH, law=Gaussian(), seeds=seeds) for seeds in (range(8), [6, 3]))
    assert all(torch.equal(a[[6, 3]], b) for a, b in zip(whole, part, strict=True))
    assert not torch.allclose(whole[2][0], whole[2][1])


def test_each_up_move_begins_a_path() -> None:
    first, second = (increments([-1.0, 0.0], loops)[0].flatten() for loops in (0, 1))
    assert abs((first * second).mean()) < 4 / len(first) ** 0.5
    both = Brownian(source(COUNT, BatchGaussian()))
    like = torch.zeros(COUNT, 2, dtype=torch.float64)
    down = [both.at(Move(0, loops, *points([-1.0, 0.0])))(like, "step").flatten() for loops in (0, 1)]
    assert torch.equal(down[0], first)
    assert torch.equal(down[1], second)


@pytest.mark.parametrize(("now", "next", "purpose"), [(0.0, -1.0, "step"), (0.5, 0.5, "step"), (0.0, 1.0, "other")])
def test_all_but_down_moves_have_fresh_noise(now: float, next: float, purpose: str) -> None:
    """Up-moves, corrections, and whatever else is drawn for."""
    own, move = source(4, Gaussian()), Move(3, 1, *points([now, next]))
    like = torch.zeros(4, 2, dtype=torch.float64)
    assert torch.equal(Brownian(own).at(move)(like, purpose, 5), own.at(move)(like, purpose, 5))


@pytest.mark.parametrize("ends", [(0.0, 21.0), (-21.0, 0.0)])
def test_noise_beyond_the_ends_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="-40 to 40: choose another grid"):
        increments(ends)


@pytest.mark.slow
@pytest.mark.parametrize("method", [dpmpp_2m_sde, dpmpp_3m_sde], ids=["2m", "3m"])
def test_runs_of_more_steps_approach_each_other_on_one_path(
    method: Callable[..., Sampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the strong order, 1; with fresh noise they do not."""
    denoiser = mixture(ALL_SCHEDULES["vp"], BatchGaussian(), spread=4)

    def distances() -> list[float]:
        runs = [sample(denoiser, method(LogSNR(25 * 2**k + 1, highest=8.0), eta=1.0), 500) for k in range(4)]
        return [float((a - b).square().mean().sqrt()) for a, b in pairwise(runs)]

    first, _, third = distances()
    assert math.log2(first / third) / 2 == pytest.approx(1, abs=0.25)
    monkeypatch.setattr("inkdrop.samplers.adams.Brownian", lambda source: source)
    first, _, third = distances()
    assert third > 0.8 * first > 0.3


def test_corrections_and_up_moves_between_steps_of_a_path_leave_samples_to_their_seeds() -> None:
    denoiser = mixture(ALL_SCHEDULES["linear_beta"])
    for sampler in (
        PredictorCorrector(Linspace(8), ReverseDiffusion, 2, 0.16),
        dpmpp_2m_sde(Churn(Linspace(8), 2.0), eta=1.0),
    ):
        whole = sample(denoiser, sampler, 6)
        assert torch.isfinite(whole).all()
        assert torch.allclose(sample(denoiser, sampler, 3), whole[:3], atol=1e-12)
