"""Fits times and coefficients of few steps such that samples are as near as possible to the fine solution of the flow.

No data are needed: the samples of the few steps are compared with those of many steps from the same initial noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser
from inkdrop.noises import NoiseSource
from inkdrop.randomness import Generators
from inkdrop.samplers import Sampler
from inkdrop.schedules import Point
from inkdrop.time_grids.base import descending

Numbers = list[list[float]]  # one list for each step
State = tuple[Tensor, tuple[Tensor, ...]]  # x, and the estimates of x_0 at it and before, newest first


@dataclass(frozen=True)
class Calibration:
    """Fitted times and coefficients, and the RMS difference to the fine solution before and after the fit."""

    times: list[float]
    coefficients: Numbers
    before: float
    after: float


def calibrate(
    denoiser: Denoiser,
    eps: Tensor,
    cond: Condition,
    solver: Callable[[int], Sampler],
    num_steps: int,
    refinement: int = 16,
    memory: int = 3,
    num_rounds: int = 30,
    progress: Callable[[], None] = lambda: None,
) -> Calibration:
    """Fits `num_steps` steps to the solution of `solver` with `refinement` times as many, from eps (B, *).

    Each step is a weighted sum of x and of the last `memory` estimates of x_0. The fit starts from Euler's method on
    the grid of `solver(num_steps)`, whose steps keep a constant x_0 exactly. Then all coefficients and times are fitted
    together to the final x_0 by the Gauss-Newton method with a trust region. For a discrete schedule the times are then
    moved to its steps, and the coefficients are fitted again. Sources: Tong et al. 2024, arXiv 2405.15506, for fitted
    times; Frankel et al. 2025, arXiv 2502.17423, for fitted coefficients too.

    - `denoiser`: the (guided) denoiser.
    - `eps`: initial noise (B, *).
    - `cond`: its conditions.
    - `solver`: returns a sampler with a number of steps.
    - `num_steps`: number of steps to fit.
    - `refinement`: factor of the number of steps of the fine solution.
    - `memory`: number of estimates in the sum of a step.
    - `num_rounds`: largest number of rounds.
    - `progress`: called after each round.
    """
    x_0 = solution(denoiser, eps, cond, solver(num_steps * refinement))
    before = solution(denoiser, eps, cond, solver(num_steps))
    times = solver(num_steps).time_grid(denoiser.schedule)[:-1]
    problem = _Problem(denoiser, eps, cond, x_0, progress)
    # Coefficients that reproduce the fine solution step by step would overfit and end in a worse minimum.
    changes = [[0.0] * (1 + min(memory, number + 1)) for number in range(num_steps)]
    times, changes = problem.fitted(times, changes, num_rounds, move=True)
    snapped = descending(times, denoiser.schedule)[:-1]
    if snapped != times:
        times, changes = problem.fitted(snapped, changes, num_rounds, move=False)
    points = problem.points(times)
    steps = zip(points[:-1], points[1:], changes, strict=True)
    coefficients = [_numbers(now, next, change) for now, next, change in steps]
    return Calibration(times, coefficients, rms(before - x_0), rms(problem.walk(points, changes)[-1][0] - x_0))


def solution(denoiser: Denoiser, eps: Tensor, cond: Condition, sampler: Sampler) -> Tensor:
    """Returns x_0 (B, *) of a deterministic sampler from eps (B, *)."""
    return sampler(denoiser, eps, cond, NoiseSource(denoiser.noise, Generators.from_seeds(range(len(eps)))))


def rms(difference: Tensor) -> float:
    """Returns the root of the mean square."""
    return float(difference.double().square().mean().sqrt())


def _numbers(now: Point, next: Point, change: Sequence[float]) -> list[float]:
    """Returns the coefficients of x and of the estimates: those of Euler's method plus the changes."""
    ratio = float(next.sigma / now.sigma)
    euler = [ratio, float(next.alpha - now.alpha * ratio)]
    return [a + b for a, b in zip([*euler, *[0.0] * (len(change) - 2)], change, strict=True)]


class _Problem:
    """The difference to the fine solution, as a function of times and of changes to Euler's coefficients."""

    # Step of finite differences; networks are exact to about 1e-6. It is negative because times can only be moved away
    # from the smallest trained one.
    STEP = -1e-3

    def __init__(self, denoiser: Denoiser, eps: Tensor, cond: Condition, x_0: Tensor, progress: Callable[[], None]):
        self.denoiser, self.eps, self.cond, self.x_0, self.progress = denoiser, eps, cond, x_0, progress

    def points(self, times: Sequence[float]) -> list[Point]:
        """Returns the points of the trajectory, including its end."""
        return self.denoiser.schedule.points([*times, 0.0])

    @torch.no_grad()
    def walk(
        self, points: Sequence[Point], changes: Numbers, first: int = 0, state: State | None = None
    ) -> list[State]:
        """Returns the states before step `first` and after each later step; the last has no estimate at its x."""
        states = [state or self._evaluated(points[0].sigma * self.eps, points[0], ())]
        for now, next, change in zip(points[first:], points[first + 1 :], changes[first:], strict=False):
            x, estimates = states[-1]
            scale, *shares = _numbers(now, next, change)
            x = x * scale
            for share, estimate in zip(shares, estimates, strict=False):
                x.add_(estimate, alpha=share)
            states.append(self._evaluated(x, next, estimates) if next.sigma > 0 else (x, estimates))
        return states

    def _evaluated(self, x: Tensor, now: Point, estimates: tuple[Tensor, ...]) -> State:
        return x, (self.denoiser(x, now, self.cond).x_0, *estimates)

    def fitted(
        self, times: Sequence[float], changes: Numbers, num_rounds: int, move: bool
    ) -> tuple[list[float], Numbers]:
        """Returns the changes, and with `move` the times, for which x_0 is nearest to the fine solution."""
        lengths = [len(change) for change in changes]
        halves = [float(point.half) for point in self.points(times)[1:-1]]
        gaps = [halves[0], *np.log(np.diff(halves))] if halves and move else []
        first = [*range(len(gaps)), *(k for k, length in enumerate(lengths) for _ in range(length))]

        def unpacked(theta: np.ndarray) -> tuple[list[float], Numbers]:
            parts = np.split(theta, np.cumsum([len(gaps), *lengths])[:-1])
            return self._times(times, parts[0]), [part.tolist() for part in parts[1:]]

        def states(theta: np.ndarray, step: int = 0, state: State | None = None) -> list[State]:
            moved, changed = unpacked(theta)
            return self.walk(self.points(moved), changed, step, state)

        @lru_cache(maxsize=1)  # slopes are computed at the point of the latest errors
        def known(theta: tuple[float, ...]) -> list[State]:
            return states(np.array(theta))

        def error(theta: np.ndarray) -> np.ndarray:
            return self._residual(known(tuple(theta))[-1])

        def slopes(theta: np.ndarray) -> np.ndarray:
            here, columns = error(theta), []
            for number, step in enumerate(first):
                there = theta.copy()
                there[number] += self.STEP
                columns.append((self._residual(states(there, step, known(tuple(theta))[step])[-1]) - here) / self.STEP)
            self.progress()
            return np.stack(columns, 1)

        theta = np.concatenate([gaps, *changes])
        solved = least_squares(error, theta, slopes, max_nfev=num_rounds, x_scale="jac", ftol=1e-2)
        return unpacked(solved.x)

    def _times(self, times: Sequence[float], gaps: np.ndarray) -> list[float]:
        """Returns times whose half log-SNRs start at the first gap and grow by the exponential of each further one."""
        if len(gaps) == 0:
            return list(times)
        schedule = self.denoiser.schedule
        halves = np.cumsum([gaps[0], *np.exp(np.clip(gaps[1:], -5, 3))])
        inner = schedule.time(torch.from_numpy(2 * halves)).clamp(schedule.t_min, times[0])
        return [times[0], *inner.tolist()]

    def _residual(self, state: State) -> np.ndarray:
        difference = (state[0] - self.x_0).double().flatten().cpu().numpy()
        return difference / len(difference) ** 0.5
