"""Where the schedulers of diffusers are wrong: why ours do not agree with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import SCHEDULES, empirical, mixture, source
from scipy.integrate import solve_ivp
from solver_runs import (
    COUNT,
    SCHEDULE,
    TO_THE_END,
    WARNINGS,
    Calls,
    Halved,
    Levels,
    difference,
    eps_of,
    increments,
    levels_of,
    on_the_table,
    ours,
    pndm,
    point,
    prepared,
    start,
    theirs,
)
from torch import Tensor

from inkdrop.noises import Gaussian, Move
from inkdrop.samplers import DDIM, PNDM, Adams, Denoise, Sampler, dpmpp_3m, dpmpp_3m_sde
from inkdrop.samplers.coordinates import Coordinate, Data
from inkdrop.time_grids import Churn, Linspace, TimeGrid, Trailing

pytestmark = WARNINGS


def exact_states(levels: Sequence[float], eta: float) -> Tensor:
    """x (N, B, D) of the flow of the mixture at each level; with eta > 0 of the reverse SDE without its noise."""
    denoiser, first = mixture(SCHEDULE), start() * levels[0]

    def flow(half: float, y: np.ndarray) -> np.ndarray:  # of x / alpha
        x, now = torch.from_numpy(y).reshape(first.shape), point(math.exp(-half))
        return ((1 + eta) * (denoiser(x * now.alpha, now, {}).x_0 - x)).flatten().numpy()

    halves = [-math.log(level) for level in levels]
    solution = solve_ivp(flow, (halves[0], halves[-1]), first.flatten(), "DOP853", halves, rtol=1e-11, atol=1e-12)
    states = torch.from_numpy(solution.y.T).reshape(-1, *first.shape)
    return states * torch.tensor([point(level).alpha for level in levels])[:, None, None]


def our_end(levels: Sequence[float], states: Tensor, sampler: Sampler) -> Tensor:
    """Where a method for x_0 arrives from three exact values, without noise."""
    denoiser, points = mixture(SCHEDULE), SCHEDULE.points(Levels(levels)(SCHEDULE))
    history = tuple((points[k], denoiser(states[k], points[k], {}).x_0) for k in (1, 0))
    x = states[2]
    for now, next in pairwise(points[2:]):
        noise = source(COUNT, Gaussian()).at(Move(0, 0, now, next))  # not asked
        (x, _), history = sampler.step(Denoise(denoiser, {}), x, now, next, noise, history)
    return x


def their_end(levels: Sequence[float], states: Tensor, algorithm: str) -> Tensor:
    """Where DPM-Solver of order 3 arrives from three exact values, with noise 0 where it wants any."""
    options = {"algorithm_type": algorithm, "solver_order": 3, "solver_type": "heun", **TO_THE_END}
    scheduler, denoiser = prepared("DPMSolverMultistepScheduler", len(levels) - 1, **options), mixture(SCHEDULE)
    scheduler.sigmas, scheduler.lower_order_nums = torch.tensor(levels, dtype=torch.float64), 2
    scheduler.model_outputs = [None, *(denoiser(states[k], point(levels[k]), {}).x_0 for k in (0, 1))]
    scheduler.set_begin_index(2)
    x = states[2]
    for level, timestep in zip(levels[2:-1], scheduler.timesteps[2:], strict=True):
        zeros = torch.zeros_like(x)
        x = scheduler.step(eps_of(denoiser, x, level), timestep, x, variance_noise=zeros).prev_sample
    return x


class Flipped(Halved):
    """Half of the second difference as diffusers has it for the reverse SDE: with `- 0.5` where `+ 0.5` belongs."""

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        halved = super().weights(coordinate, start, end, nodes)
        if len(nodes) < 3:
            return halved
        shares = [1 / math.prod(node - other for other in nodes if other != node) for node in nodes]
        lost = coordinate.tau(end) * (end - start) ** 2
        return [weight - lost * share for weight, share in zip(halved, shares, strict=True)]


def test_dpm_solver_pp_3m_sde_of_diffusers_is_ours_with_a_sign_flipped() -> None:
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"}
    scheduler, denoiser = prepared("DPMSolverMultistepScheduler", **options), mixture(SCHEDULE)
    grid = Levels(levels_of(scheduler))
    their = theirs(scheduler, denoiser, increments(grid))
    assert difference(ours(Adams(grid, Data(eta=1.0), Flipped(), 3), denoiser), their) < 1e-4
    assert difference(ours(Adams(grid, Data(eta=1.0), Halved(), 3), denoiser), their) > 0.01


End = Callable[[Sequence[float], Tensor], Tensor]


def errors(eta: float, ends: Sequence[End]) -> list[list[float]]:
    """Distances from the exact solution after 64, 128 and 256 even steps in the log-SNR, for each method."""
    levels = np.exp(np.linspace(1.0, -1.5, 257)).tolist()
    states = exact_states(levels, eta)
    return [[float((end(levels[::k], states[::k]) - states[-1]).abs().max()) for k in (4, 2, 1)] for end in ends]


def orders(errors: Sequence[float]) -> list[float]:
    """By how many factors of two the error falls when the number of steps doubles."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.slow
def test_dpm_solver_pp_3m_has_order_3_and_that_of_diffusers_order_2() -> None:
    """Half of the second difference is missing there, as in the authors' code and in k-diffusion."""
    grid = Levels([1.0])  # not asked
    our, halved, their = errors(
        0.0,
        [
            partial(our_end, sampler=dpmpp_3m(grid)),
            partial(our_end, sampler=Adams(grid, Data(), Halved(), 3)),
            partial(their_end, algorithm="dpmsolver++"),
        ],
    )
    assert orders(our) == pytest.approx([3, 3], abs=0.15)
    assert orders(halved) == pytest.approx([2, 2], abs=0.3)
    assert orders(their) == pytest.approx([2, 2], abs=0.3)
    assert their[-1] > 5 * our[-1]


@pytest.mark.slow
def test_dpm_solver_pp_3m_sde_has_order_3_and_that_of_diffusers_diverges() -> None:
    """With the sign flipped the share of the second difference does not vanish with the step."""
    grid = Levels([1.0])  # not asked
    our, halved, their = errors(
        1.0,
        [
            partial(our_end, sampler=dpmpp_3m_sde(grid, eta=1.0)),
            partial(our_end, sampler=Adams(grid, Data(eta=1.0), Halved(), 3)),
            partial(their_end, algorithm="sde-dpmsolver++"),
        ],
    )
    assert orders(our) == pytest.approx([3, 3], abs=0.15)
    assert orders(halved) == pytest.approx([2, 2], abs=0.4)  # k-diffusion's
    assert their[-1] > 10 * their[0]
    assert their[-1] > 1e4 * our[-1]


# Where all data are one point, every right method comes to it, since all slopes along its path are the same.
ONLY = torch.tensor([[0.7, -0.4]], dtype=torch.float64)


def missed(calls: Calls) -> float:
    """How far the result is from the only point."""
    return float((calls[-1][1] - ONLY).abs().max())


def test_churn_of_diffusers_asks_the_network_before_it_adds_the_noise() -> None:
    """So that each step counts on a noise level that x did not have, and the last noise stays in the result."""
    denoiser, scheduler = empirical(SCHEDULE, ONLY), prepared("EulerDiscreteScheduler", use_karras_sigmas=True)
    churned = Churn(Levels(levels_of(scheduler)), s_churn=10.0)
    assert missed(ours(DDIM(churned), denoiser)) < 1e-9
    assert missed(theirs(scheduler, denoiser)) < 1e-6
    scheduler = prepared("EulerDiscreteScheduler", use_karras_sigmas=True)
    assert missed(theirs(scheduler, denoiser, s_churn=10.0, generator=torch.Generator().manual_seed(0))) > 0.01


@pytest.mark.parametrize(("spacing", "grid"), [("linspace", Linspace(20)), ("trailing", Trailing(30))])
def test_pndm_of_diffusers_moves_to_other_times_than_it_names_next(spacing: str, grid: TimeGrid) -> None:
    """By 1000 // N always, which is right for leading times, and for trailing ones if N divides 1000."""
    denoiser = empirical(SCHEDULES["linear_beta"], ONLY)
    assert missed(ours(PNDM(grid), denoiser)) < 1e-9
    assert missed(on_the_table(pndm("leading", 20), denoiser)) < 1e-6
    assert missed(on_the_table(pndm(spacing, len(grid(SCHEDULES["linear_beta"])) - 1), denoiser)) > 2e-3


def test_log_linear_steps_of_diffusers_end_before_sigma_is_0() -> None:
    """They are one more than there are timesteps."""
    scheduler = prepared("EulerDiscreteScheduler", interpolation_type="log_linear")
    assert len(scheduler.sigmas) == len(scheduler.timesteps) + 2
    assert missed(theirs(scheduler, empirical(SCHEDULE, ONLY))) > 0.01


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_karras_steps_of_diffusers_to_the_smallest_sigma_name_it_twice(name: str) -> None:
    """The last call is for a move of no length: no move at all, or 0 / 0 at order 3."""
    options = {} if "DEIS" in name else TO_THE_END
    scheduler = prepared(name, solver_order=3, use_karras_sigmas=True, **options)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    *_, (_, before), (_, after) = theirs(scheduler, mixture(SCHEDULE))
    assert torch.equal(before, after) if "DEIS" in name else after.isnan().all()
