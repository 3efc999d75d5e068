"""Explicit grids, and grids around other grids that add moves to more noise or repeat times."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from inkdrop.schedules import Schedule
from inkdrop.time_grids.base import TimeGrid
from inkdrop.time_grids.noise_levels import Karras


class Explicit(TimeGrid):
    """Given times without those above t_start, then 0.

    On a discrete schedule each time is rounded to the nearest step. Raises `ValueError` for times outside the trained
    ones, if no time is at most t_start, or if the first time is not the largest.
    """

    def __init__(self, times: list[Annotated[float, Ge(0), Le(1)]]):
        if not any(t > 0 for t in times):
            raise ValueError("time_grid.times must contain a time above 0: add one")
        if max(times) > times[0]:
            raise ValueError(
                f"time_grid.times starts at {times[0]} and exceeds it later: start with the noisiest, {max(times)}"
            )
        self.times = times

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        times = [schedule.snap(t) for t in self.times if 0 < t <= t_start]
        if not times or min(times) < schedule.t_min * (1 - 1e-9):
            raise ValueError(
                f"time_grid.times must be between {schedule.t_min:.3g} and {t_start:.3g}: change {self.times}"
            )
        return [*times, 0.0]


class Churn(TimeGrid):
    """The grid of EDM's stochastic sampler, which raises sigma / alpha by a factor 1 + gamma before each step.

    `gamma = min(s_churn / N, sqrt(2) - 1)` for N steps, where sigma / alpha is between s_min and s_max; t never exceeds
    t_start.

    - `time_grid`: the grid without churn.
    - `s_churn`: the strength of the churn.
    - `s_min`, `s_max`: the noise levels sigma / alpha between which it acts.

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
    """A grid that returns from sigma / alpha = `low` to `high` several times, to correct errors by fresh noise.

    A run that starts below `low` follows the grid without restarts.

    - `time_grid`: the grid without restarts.
    - `low`, `high`: the noise levels sigma / alpha between which steps are repeated.
    - `num_restarts`: how often they are repeated.
    - `num_steps`: the number of steps of each repetition, even in the power 1/7 of sigma / alpha.

    Raises `ValueError` unless low < high, if the grid ends above `high`, or if a discrete schedule has fewer steps in
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
            raise ValueError(f"time_grid.low={low} must be below time_grid.high={high}: swap the two values")
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
            raise ValueError(
                f"time_grid.high={self.high} must be above {levels[place]:.3g}, where the grid restarts: raise it"
            )
        steps = Karras(self.num_steps + 1, sigma_min=levels[place], sigma_max=self.high)(schedule, top)[:-2]
        if steps[-1] <= times[place]:
            raise ValueError(
                f"time_grid.num_steps={self.num_steps} of a restart exceeds the schedule's number of steps between "
                f"{self.low} and {self.high}: lower it"
            )
        return times[: place + 1] + self.num_restarts * [*steps, times[place]] + times[place + 1 :]


class Resampled(TimeGrid):
    """RePaint's grid: each stretch of `jump_length` steps is taken `repeats` times, with one up-move in between.

    Steps before the first whole stretch are taken once. With `constraint=replacement` the unknown elements adapt to the
    known ones in each repetition.

    - `time_grid`: the grid without repetitions.
    - `jump_length`: the number of steps that an up-move goes back.
    - `repeats`: how often each stretch is taken; 1 is the grid itself.

    Source: Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1 and figure 9.
    """

    def __init__(
        self, time_grid: TimeGrid, jump_length: Annotated[int, Ge(1)] = 1, repeats: Annotated[int, Ge(1)] = 10
    ):
        self.time_grid, self.jump_length, self.repeats = time_grid, jump_length, repeats

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        *noised, last = self.time_grid(schedule, t_start)
        first = (len(noised) - 1) % self.jump_length
        times = noised[: first + 1]
        for begin in range(first, len(noised) - 1, self.jump_length):
            stretch = noised[begin + 1 : begin + self.jump_length + 1]
            times += stretch + (self.repeats - 1) * [noised[begin], *stretch]
        return [*times, last]


class Consistency(TimeGrid):
    """Goes down to the data from each time of another grid, and up to the next one by the forward kernel.

    The last estimate of x_0 is the sample. It is how models with a map from any noised sample to its data are sampled
    in several steps, with `sampler=ddim`, each of which is one evaluation of the network.

    - `time_grid`: the grid of the times from which the map starts.

    Source: Song et al. 2023, arXiv 2303.01469, algorithm 1.
    """

    def __init__(self, time_grid: TimeGrid):
        self.time_grid = time_grid

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return [t for each in self.time_grid(schedule, t_start)[:-1] for t in (each, 0.0)]


class Shifted(TimeGrid):
    """The times of another grid with `shift` times as much noise, sigma / alpha; t_start stays the first.

    On the straight path, t becomes `shift t / (1 + (shift - 1) t)`.

    - `time_grid`: the grid that is shifted.
    - `shift`: the factor of sigma / alpha.

    Raises `ValueError` for a schedule with data left at t = 1, which has no time for the first of them, and for times
    below the smallest trained one. Source: Esser et al. 2024, arXiv 2403.03206, equation 23.
    """

    def __init__(self, time_grid: TimeGrid, shift: Annotated[float, Gt(0)]):
        self.time_grid, self.shift = time_grid, shift

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        if (left := float(schedule.alpha(torch.ones(1, dtype=torch.float64)))) > 0:
            raise ValueError(
                f"time_grid=shifted needs a schedule that is all noise at t = 1, but {type(schedule).__name__} has "
                f"alpha={left:.3g} there: choose another time_grid, or schedule=linear"
            )
        moved = [
            _moved(schedule, t, self.shift) for t in self.time_grid(schedule, _moved(schedule, t_start, 1 / self.shift))
        ]
        if (lowest := min(t for t in moved if t > 0)) < schedule.t_min * (1 - 1e-9):
            raise ValueError(
                f"time_grid.shift={self.shift} reaches t = {lowest:.3g}, but {type(schedule).__name__} is trained only "
                f"from t = {schedule.t_min:.3g}: raise it"
            )
        return moved


def _moved(schedule: Schedule, t: float, factor: float) -> float:
    """The time at which sigma / alpha is a factor larger than at t."""
    log_snr = schedule.log_snr(torch.tensor([t], dtype=torch.float64))
    if not log_snr.isfinite():  # all data or all noise, of which no factor makes anything else
        return t
    return schedule.snap(schedule.time(log_snr - 2 * math.log(factor)).item())


class Repeat(TimeGrid):
    """A grid that repeats every time but the first and the last `corrections` times, for methods with a corrector."""

    def __init__(self, time_grid: TimeGrid, corrections: Annotated[int, Ge(0)]):
        self.time_grid, self.corrections = time_grid, corrections

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, *inner, last = self.time_grid(schedule, t_start)
        return [first, *(t for each in inner for t in [each] * (1 + self.corrections)), last]
