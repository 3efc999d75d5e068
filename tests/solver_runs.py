"""Runs of our solvers and of the schedulers of diffusers on the same denoiser and grid.

The denoiser is exact, in float64, and is told noise levels sigma / alpha, so that neither side's own timesteps matter.
What is kept are all x at which the network is asked, and the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from analytic import SCHEDULES, source
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.noises import Brownian, Gaussian, Move
from inkdrop.samplers import Sampler
from inkdrop.samplers.coordinates import Coordinate
from inkdrop.samplers.quadrature import InLogSNR
from inkdrop.schedules import VP, Point, Schedule
from inkdrop.time_grids import TimeGrid

WARNINGS = [  # of diffusers
    pytest.mark.filterwarnings("ignore:__array.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]
SCHEDULE = VP(0.1, 25.0)  # somewhat noisier at its end than the table of diffusers
TABLE = {"beta_start": 1e-4, "beta_end": 0.02}
NUM_STEPS = 21  # from 15 on `lower_order_final` of DPM-Solver and DEIS has no effect
COUNT = 6
# Options of diffusers with which its methods for eps stop at the smallest noise level of the table, in full order.
TO_THE_END = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
Calls = list[tuple[float, Tensor]]  # the noise levels sigma / alpha of the network's calls, and x there


class Levels(TimeGrid):
    """The times at which sigma / alpha has the values that are given."""

    def __init__(self, levels: Sequence[float]):
        self.levels = levels

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        log_snr = -2 * torch.tensor([level for level in self.levels if level > 0], dtype=torch.float64).log()
        return schedule.time(log_snr).tolist() + [0.0] * (self.levels[-1] == 0)


class Asked(Wrapper):
    """Remembers what it was asked."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.calls: Calls = []

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        self.calls.append((float(now.sigma / now.alpha), x_t.clone()))
        return self.denoiser(x_t, now, cond)


class Halved(InLogSNR):
    """Three slopes with half of what the second difference of the parabola through them contributes."""

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        whole = super().weights(coordinate, start, end, nodes)
        if len(nodes) < 3:
            return whole
        moment = sum(weight * (node - nodes[0]) ** 2 for weight, node in zip(whole, nodes, strict=True))
        shares = [1 / math.prod(node - other for other in nodes if other != node) for node in nodes]
        return [weight - moment * share / 2 for weight, share in zip(whole, shares, strict=True)]


def start() -> Tensor:
    """Noise (B, D) to start from."""
    return torch.randn(COUNT, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def point(level: float) -> Point:
    """The point of a schedule with alpha^2 + sigma^2 = 1 where sigma / alpha has this value."""
    alpha = 1 / math.sqrt(1 + level**2)
    return Point(math.nan, alpha, level * alpha, -math.log(level) if level > 0 else math.inf, math.nan)


def eps_of(denoiser: Denoiser, x_t: Tensor, level: float) -> Tensor:
    """What a network that predicts noise says."""
    now = point(level)
    return (x_t - now.alpha * denoiser(x_t, now, {}).x_0) / now.sigma


def prepared(name: str, num_steps: int = NUM_STEPS, **options: Any) -> Any:
    """A scheduler of diffusers with its own grid, its table of noise levels in float64."""
    scheduler = getattr(diffusers, name)(**TABLE, **options)
    scheduler.set_timesteps(num_steps)
    scheduler.sigmas = scheduler.sigmas.double()
    scheduler.set_begin_index(0)
    return scheduler


def levels_of(scheduler: Any) -> list[float]:
    """The noise levels at which the network is called, and that of the result."""
    levels = scheduler.sigmas[: len(scheduler.timesteps) + 1].tolist()
    if hasattr(scheduler, "sigmas_interpol"):
        levels[1:-1:2] = scheduler.sigmas_interpol.double()[1 : len(levels) - 1 : 2].tolist()
    return levels


def theirs(scheduler: Any, denoiser: Denoiser, noises: Sequence[Tensor] = (), **options: Any) -> Calls:
    """A run of diffusers as its pipelines do it."""
    levels = levels_of(scheduler)
    first = point(levels[0])
    scaled = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), scheduler.timesteps[0]))
    x = start() * first.sigma / scaled
    seen: Calls = []
    for number, (level, timestep) in enumerate(zip(levels[:-1], scheduler.timesteps, strict=True)):
        x_t = scheduler.scale_model_input(x, timestep)
        seen.append((level, x_t))
        given = {"variance_noise": noises[number]} if noises else {}
        x = scheduler.step(eps_of(denoiser, x_t, level), timestep, x, **given, **options).prev_sample
    return [*seen, (levels[-1], x)]


def ours(sampler: Sampler, denoiser: Denoiser, law: Gaussian | None = None) -> Calls:
    """A run of inkdrop."""
    asked = Asked(denoiser)
    result = sampler(asked, start(), {}, source(COUNT, law or denoiser.noise))
    last = sampler.time_grid(denoiser.schedule)[-1:]
    end = denoiser.schedule.points(last)[0]
    return [*asked.calls, (float(end.sigma / end.alpha), result)]


def increments(grid: TimeGrid) -> list[Tensor]:
    """The noise of each move of a run of ours that follows a path of Brownian motion."""
    path, moves = Brownian(source(COUNT, Gaussian())), list(pairwise(SCHEDULE.points(grid(SCHEDULE))))
    noises = [path.at(Move(number, 0, *ends))(start(), "step") for number, ends in enumerate(moves[:-1])]
    return [*noises, torch.zeros_like(start())]  # the last move, to sigma = 0, has none


def difference(first: Calls, second: Calls) -> float:
    """The largest difference of x, by the size of x where it stands."""
    for (level, _), (other, _) in zip(first, second, strict=True):
        assert level == pytest.approx(other, rel=1e-6, abs=1e-12)
    return max(float((a - b).abs().max() / a.abs().max()) for (_, a), (_, b) in zip(first, second, strict=True))


def on_the_table(scheduler: Any, denoiser: Denoiser) -> Calls:
    """A run of a scheduler of diffusers that knows nothing but its table of betas, x divided by alpha in the end."""
    bars = scheduler.alphas_cumprod
    x, seen = start() * (1 - bars[scheduler.timesteps[0]]).sqrt(), []
    for timestep in scheduler.timesteps:
        level = float((1 / bars[timestep] - 1).sqrt())
        seen.append((level, x))
        x = scheduler.step(eps_of(denoiser, x, level), int(timestep), x).prev_sample
    return [*seen, (0.0, x)]


def pndm(spacing: str, num_steps: int) -> Any:
    """Diffusers' PNDM with its Runge-Kutta start, to sigma = 0 in the end as ours."""
    scheduler = diffusers.PNDMScheduler(**TABLE, set_alpha_to_one=True, timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    scheduler.alphas_cumprod = SCHEDULES["linear_beta"].alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
    return scheduler
