"""Grids that go up again, or stay: what is built around another grid."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from inkdrop.schedules import Schedule
from inkdrop.time_grids.base import TimeGrid
from inkdrop.time_grids.noise_levels import Karras


class Explicit(TimeGrid):
    """The times that are given, those above t_start left out, then 0.

    On a table each is met at its nearest step. `ValueError` for times outside of [0, 1], or none below t_start, or if
    the first is not the largest.
    """

    def __init__(self, times: list[Annotated[float, Ge(0), Le(1)]]):
        if not any(t > 0 for t in times):
            raise ValueError("time_grid.times must name a time above 0")
        if max(times) > times[0]:
            raise ValueError(
                f"time_grid.times begins at {times[0]} and goes above it: begin with the noisiest, {max(times)}"
            )
        self.times = times

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        times = [schedule.snap(t) for t in self.times if 0 < t <= t_start]
        if not times or min(times) < schedule.t_min * (1 - 1e-9):
            raise ValueError(
                f"time_grid.times must lie between {schedule.t_min:.3g} and {t_start:.3g}: change {self.times}"
            )
        return [*times, 0.0]


class Churn(TimeGrid):
    """Before each step sigma / alpha grows by a factor 1 + gamma, as far as t_start: EDM's stochastic sampler.

    `gamma = min(s_churn / N, sqrt(2) - 1)` for N steps, where sigma / alpha is between s_min and s_max.
    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 2.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        s_churn: Annotated[float, Ge(0)],
        s_min: Annotated[float, Ge(0)] = 0.0,
        s_max: Annotated[float, Gt(0)] = 1000.0,
    ):
        self.time_grid, self.s_churn, self.s_min, self.s_max = time_grid, s_churn, s_min, s_max

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        times = self.time_grid(schedule, t_start)
        growth = 2 * math.log1p(min(self.s_churn / (len(times) - 1), math.sqrt(2) - 1))
        log_snrs = schedule.log_snr(torch.tensor(times[:-1], dtype=torch.float64)).tolist()
        churned: list[float] = []
        for t, log_snr in zip(times[:-1], log_snrs, strict=True):
            churned.append(t)
            if growth and self.s_min <= math.exp(-log_snr / 2) <= self.s_max and t < t_start:
                higher = schedule.time(torch.tensor([log_snr - growth], dtype=torch.float64)).item()
                higher = schedule.snap(min(higher, t_start))
                churned += [higher] * (higher > t)
        return [*churned, times[-1]]


class Restart(TimeGrid):
    """Where sigma / alpha has come down to `low`, up to `high` and down again `num_restarts` times, then to the end.

    Each way down has `num_steps` moves even in the power 1/7 of sigma / alpha. A run that begins below `low` goes
    straight to the end. `ValueError` unless low < high, if the grid ends above `high`, or if a table has fewer steps in
    between. Source: Xu et al. 2023, arXiv 2306.14878, algorithm 1.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        low: Annotated[float, Gt(0)],
        high: Annotated[float, Gt(0)],
        num_restarts: Annotated[int, Ge(0)],
        num_steps: Annotated[int, Ge(1)],
    ):
        if low >= high:
            raise ValueError(f"time_grid.low={low} is not below time_grid.high={high}: exchange the two")
        self.time_grid, self.low, self.high = time_grid, low, high
        self.num_restarts, self.num_steps = num_restarts, num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        times = self.time_grid(schedule, t_start)
        levels = (-schedule.log_snr(torch.tensor(times[:-1], dtype=torch.float64)) / 2).exp().tolist()
        place = next((number for number, level in enumerate(levels) if level <= self.low), len(levels) - 1)
        if place == 0:
            return times
        top = schedule.time(torch.tensor([-2 * math.log(self.high)], dtype=torch.float64)).item()
        top = schedule.snap(min(top, t_start))
        if top <= times[place]:
            raise ValueError(f"time_grid.high={self.high} is not above {levels[place]:.3g}, where it goes up: raise it")
        way = Karras(self.num_steps + 1, sigma_min=levels[place], sigma_max=self.high)(schedule, top)[:-2]
        if way[-1] <= times[place]:
            raise ValueError(
                f"time_grid.num_steps={self.num_steps} of a restart is more than the schedule has steps between "
                f"{self.low} and {self.high}: lower it"
            )
        return times[: place + 1] + self.num_restarts * [*way, times[place]] + times[place + 1 :]


class Repeat(TimeGrid):
    """Every time but the first and the last `corrections` times more, for a method with a corrector."""

    def __init__(self, time_grid: TimeGrid, corrections: Annotated[int, Ge(0)]):
        self.time_grid, self.corrections = time_grid, corrections

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, *inner, last = self.time_grid(schedule, t_start)
        return [first, *(t for each in inner for t in [each] * (1 + self.corrections)), last]
