"""The sampling loop, and the one formula behind most methods.

A method is one `step`. Whether a move is a step of the method, the forward kernel or a correction is read from the
order of the times: down, up, or staying.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from inkdrop.constraints import Constraint, Transition
from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.noises import Draw, Move, Source
from inkdrop.schedules import Point, Schedule
from inkdrop.time_grids import TimeGrid

Progress: TypeAlias = Callable[[int, int, Tensor], None]
# Earlier points with what the method remembers of them (B, *), newest first: an estimate, or a slope.
History: TypeAlias = tuple[tuple[Point, Tensor], ...]


class Denoise:
    """A denoiser under the conditions of the run: `denoise(x (B, *), point) -> Estimate`."""

    def __init__(self, denoiser: Denoiser, cond: Condition):
        self.denoiser, self.cond = denoiser, cond

    @property
    def schedule(self) -> Schedule:
        """The schedule that the points are on."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, point: Point) -> Estimate:
        return self.denoiser(x, point, self.cond)

    def select(self, index: Tensor) -> None:
        """Follows a permutation or choice of the batch."""
        self.cond = {name: value[index] for name, value in self.cond.items()}
        self.denoiser.select(index)

    def at(self, half: float) -> Point | None:
        """The point at half the log-SNR, on the schedule's own steps; None outside of the times that are trained."""
        if not math.isfinite(half):
            return None
        t = self.schedule.snap(self.schedule.time(torch.tensor([2 * half], dtype=torch.float64)).item())
        return self.point(t) if self.schedule.t_min * (1 - 1e-9) <= t <= 1 else None

    def point(self, t: float) -> Point:
        """The point at t, on the schedule's own steps."""
        return self.schedule.points([self.schedule.snap(t)])[0]


def shares(now: Point, next: Point, eta: float = 0.0) -> tuple[float, float, float]:
    """The numbers of `towards`: x' = ratio x + share x_0 + std z."""
    ratio = float(next.sigma / now.sigma)
    if eta == 0:
        return ratio, float(next.alpha - now.alpha * ratio), 0.0
    remaining = math.expm1(2 * (now.half - next.half))  # -(share of s'^2 that is fresh noise)
    ratio *= math.sqrt(max(0.0, 1 + eta * eta * remaining))
    return ratio, float(next.alpha - now.alpha * ratio), eta * float(next.sigma) * math.sqrt(-remaining)


def towards(x: Tensor, x_0: Tensor, now: Point, next: Point, eta: float = 0.0) -> Transition:
    """The move from x at `now` to `next` if x_0 is the data, with a share eta of the posterior's noise.

    `std = eta s' sqrt(1 - exp(2 (l - l')))`, `ratio = sqrt(s'^2 - std^2) / s`, `mean = ratio x + (a' - a ratio) x_0`,
    where a, s, l = alpha, sigma, log(a / s) now and a', s', l' next. eta = 1 is q(x_s | x_t, x_0), eta = 0 the
    probability-flow ODE with a constant x_0; both exact at a = 0 and at s' = 0. Shapes (B, *).
    Source: Song et al. 2021, arXiv 2010.02502, equations 12 and 16.
    """
    ratio, share, std = shares(now, next, eta)
    return Transition(torch.mul(x, ratio).add_(x_0, alpha=share), std)


def forward_kernel(x: Tensor, now: Point, next: Point) -> Transition:
    """q(x_next | x_now) upwards: `N((a'/a) x, s'^2 (1 - exp(2 (l' - l))))`. Source: Ho et al. 2020, equation 2."""
    return Transition(next.alpha / now.alpha * x, next.sigma * math.sqrt(-math.expm1(2 * (next.half - now.half))))


class Sampler(ABC):
    """Draws data from a denoiser along the times of its grid.

    Methods keep nothing between calls: what a multistep method remembers is passed in and out of `step`.
    """

    def __init__(self, time_grid: TimeGrid):
        self.time_grid = time_grid

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        """A down-move: the law of x at `next` given x (B, *) at `now`."""

    def stay(self, denoise: Denoise, x: Tensor, now: Point, noise: Draw) -> Transition:
        """A correction at one time, where the method has one."""
        raise AssertionError("a grid that repeats a time came past `check`")

    def up(self, x: Tensor, now: Point, next: Point) -> Transition:
        """An up-move: the forward kernel."""
        return forward_kernel(x, now, next)

    def check(self, points: Sequence[Point]) -> None:
        """`ValueError` if the method cannot visit these points in this order."""
        repeated = [now.t for now, next in pairwise(points) if now.t == next.t]
        if repeated and type(self).stay is Sampler.stay:
            raise ValueError(f"{type(self).__name__} has no corrector: its time grid must not repeat t = {repeated[0]}")

    def points(self, schedule: Schedule, t_start: float = 1.0) -> list[Point]:
        """The points of a run; `ValueError` for those of which the grid or the method says that it cannot be."""
        if not schedule.t_min <= t_start <= 1:
            raise ValueError(f"t_start={t_start} is not between the smallest trained time, {schedule.t_min:.3g}, and 1")
        points = schedule.points(self.time_grid(schedule, t_start))
        self.check(points)
        return points

    def points_upwards(self, schedule: Schedule, t_end: float = 1.0) -> list[Point]:
        """The points of a run in inverse order; `ValueError` if the method or its grid has no inverse."""
        if not self.deterministic:
            raise ValueError(
                f"{type(self).__name__} draws noise and cannot be inverted: choose sampler=abm, or eta = 0"
            )
        points = self.points(schedule, t_end)
        if again := [next.t for now, next in pairwise(points) if next.t >= now.t]:
            raise ValueError(
                f"the time grid goes up to t = {again[0]:.3g} again, draws noise there and cannot be inverted: choose "
                "another, such as time_grid=centred"
            )
        return points[::-1]

    def path(self, noise: Source) -> Source:
        """Where the noise of the steps comes from: fresh for each, unless the method wants one path for all grids."""
        return noise

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        eps: Tensor,
        cond: Condition,
        noise: Source,
        x_init: Tensor | None = None,
        t_start: float = 1.0,
        constraint: Constraint | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Samples of x_0 (B, *) from eps (B, *), one row per stream of `noise`.

        The run begins at `x = alpha(t_start) x_init + sigma(t_start) eps`, without the first term if there is no
        x_init. `progress(done, total, x)` is called after each move.
        """
        points = self.points(denoiser.schedule, t_start)
        x = points[0].sigma * eps if x_init is None else points[0].alpha * x_init + points[0].sigma * eps
        noise, denoise = self.path(noise), Denoise(denoiser, cond)
        history: History = ()
        loops = 0
        if constraint is not None:
            x = constraint.start(x, points, noise.at(Move(-1, loops, points[0], points[0])))
        for number, (now, next) in enumerate(pairwise(points)):
            draw = noise.at(Move(number, loops, now, next))
            if next.t < now.t:
                transition, history = self.step(denoise, x, now, next, draw, history)
            elif next.t > now.t:
                transition, history, loops = self.up(x, now, next), (), loops + 1
            else:
                transition, history = self.stay(denoise, x, now, draw), ()
            if constraint is None:
                x = transition.draw(draw)
            else:
                x, index = constraint.apply(transition, now, next, draw)
                if index is not None:
                    denoise.select(index)
                    history = tuple((point, remembered[index]) for point, remembered in history)
            if progress is not None:
                progress(number + 1, len(points) - 1, x)
        return x if constraint is None else constraint.finish(x)

    @torch.no_grad()
    def invert(self, denoiser: Denoiser, x_0: Tensor, cond: Condition, t_end: float = 1.0) -> Tensor:
        """The eps (B, *) from which this method, started at `t_end` without x_init, comes back to x_0 (B, *).

        The grid is walked upwards; `ValueError` as in `points_upwards`. The first move, from sigma = 0, solves
        `D(x) = x_0` by two steps of `x = alpha x_0 + (x - alpha D(x))` from x = alpha x_0: two calls more.
        """
        points = self.points_upwards(denoiser.schedule, t_end)
        denoise = Denoise(denoiser, cond)
        history: History = ()
        x = x_0
        if points[0].sigma == 0:
            points = points[1:]
            alpha = points[0].alpha
            x = alpha * x_0
            for _ in range(2):
                x = x + alpha * (x_0 - denoise(x, points[0]).x_0)
        for now, next in pairwise(points):
            transition, history = self.step(denoise, x, now, next, _no_noise, history)
            x = transition.mean
        return x / points[-1].sigma

    @property
    def deterministic(self) -> bool:
        """Whether every step's law has std 0."""
        return True


def _no_noise(like: Tensor, purpose: str, *position: int) -> Tensor:
    raise AssertionError("a deterministic method asked for noise")
