"""The sampling loop, and the formula that most methods share.

A method is one `step`. The order of the times decides what a move is: a step of the method where t decreases, the
forward kernel where t increases, and a correction where t stays the same.
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
from inkdrop.noises import Draw, Move, Noise, Source
from inkdrop.noises.kernels import forward_kernel
from inkdrop.randomness import Generators
from inkdrop.schedules import Point, Schedule
from inkdrop.time_grids import TimeGrid

Progress: TypeAlias = Callable[[int, int, Tensor], None]
# Earlier points, newest first, with the estimate or slope (B, *) that the method keeps of each.
History: TypeAlias = tuple[tuple[Point, Tensor], ...]


class Denoise:
    """The denoiser of a run with its condition: `denoise(x (B, *), point) -> Estimate`.

    `aims` says to the denoiser where moves end; a method that asks between the ends needs the ordinary estimate.
    """

    def __init__(self, denoiser: Denoiser, cond: Condition, aims: bool = False):
        self.denoiser, self.cond, self.aims = denoiser, cond, aims
        self.last: Estimate | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, point: Point) -> Estimate:
        self.last = self.denoiser(x, point, self.cond)
        return self.last

    def toward(self, next: Point) -> Denoise:
        """Returns itself for a move that ends at `next`."""
        if self.aims:
            self.denoiser.aim(next)
        return self

    def select(self, index: Tensor) -> None:
        """Applies a permutation or selection of the batch."""
        self.cond = {name: value[index] for name, value in self.cond.items()}
        self.denoiser.select(index)
        if self.last is not None:
            extras = {name: value[index] for name, value in self.last.extras.items()}
            self.last = Estimate(self.last.x_0[index], extras)

    def at(self, half: float) -> Point | None:
        """Returns the point at a half log-SNR, on the steps of the schedule; None outside the trained times."""
        if not math.isfinite(half):
            return None
        t = self.schedule.snap(self.schedule.time(torch.tensor([2 * half], dtype=torch.float64)).item())
        return self.point(t) if self.schedule.t_min * (1 - 1e-9) <= t <= 1 else None

    def point(self, t: float) -> Point:
        """Returns the point at t, on the steps of the schedule."""
        return self.schedule.points([self.schedule.snap(t)])[0]


class Sampler(ABC):
    """Draws data from a denoiser along the times of its grid.

    Methods are stateless: the history of a multistep method is passed in and out of `step`.
    """

    def __init__(self, time_grid: TimeGrid):
        self.time_grid = time_grid

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        """Returns the law of x at `next`, which has less noise, given x at `now`, and the new history.

        - `denoise`: the denoiser with its condition.
        - `x`: the samples at `now` (B, *).
        - `now`, `next`: the points before and after the step.
        - `noise`: draws the noise of this move.
        - `history`: earlier points with their estimates or slopes, newest first.
        """

    def stay(self, denoise: Denoise, x: Tensor, now: Point, noise: Draw) -> Transition:
        """Returns the law of x after a correction at one time, if the method has a corrector."""
        raise AssertionError("`check` must refuse a grid that repeats a time")

    def up(self, x: Tensor, now: Point, next: Point) -> Transition:
        """Returns the law of x after a move to more noise, by default the forward kernel."""
        return forward_kernel(x, now, next)

    def check(self, points: Sequence[Point]) -> None:
        """Raises `ValueError` if the method cannot visit these points in this order."""
        repeated = [now.t for now, next in pairwise(points) if now.t == next.t]
        if repeated and type(self).stay is Sampler.stay:
            raise ValueError(
                f"the time grid repeats t = {repeated[0]}, but {type(self).__name__} has no corrector: remove it"
            )

    def check_noise(self, noise: Noise) -> None:
        """Raises `ValueError` if the steps of the method are no laws of categories, where the noise asks for these."""
        if noise.categorical and not self.posterior:
            raise ValueError(
                f"{type(self).__name__} does not draw categories, as {type(noise).__name__} noise requires: set "
                "sampler=ddim with sampler.eta=0"
            )

    @property
    def posterior(self) -> bool:
        """Whether every step is `towards` the estimate at its start with eta = 0, the only law that categories have."""
        return False

    def points(self, schedule: Schedule, t_start: float = 1.0) -> list[Point]:
        """Returns the points of a run; raises `ValueError` if the grid or the method cannot have them."""
        if not schedule.t_min <= t_start <= 1:
            raise ValueError(f"t_start={t_start} must be from the smallest trained time, {schedule.t_min:.3g}, to 1")
        points = schedule.points(self.time_grid(schedule, t_start))
        self.check(points)
        return points

    def points_upwards(self, schedule: Schedule, t_end: float = 1.0) -> list[Point]:
        """Returns the points of a run in reverse; raises `ValueError` if the method or its grid has no inverse."""
        if not self.deterministic:
            raise ValueError(
                f"{type(self).__name__} draws noise and cannot be inverted: choose sampler=abm, or set eta = 0"
            )
        points = self.points(schedule, t_end)
        if again := [next.t for now, next in pairwise(points) if next.t >= now.t]:
            raise ValueError(
                f"the time grid returns to t = {again[0]:.3g}, draws noise there and cannot be inverted: choose "
                "another, such as time_grid=centred"
            )
        return points[::-1]

    def path(self, noise: Source) -> Source:
        """Returns the source of the noise of steps: fresh for each, unless the method needs one path for all grids."""
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
        """Draws samples of x_0 (B, *), one row per stream of `noise`.

        - `denoiser`: estimates x_0, with all guidance.
        - `eps`: the noise (B, *) to start from.
        - `cond`: the condition of the samples.
        - `noise`: the source of the noise of the moves.
        - `x_init`: data (B, *) to start from, which are noised to `t_start`; None is noise alone.
        - `t_start`: the time at which the run starts.
        - `constraint`: acts on the law of every move.
        - `progress`: `progress(done, total, x)` is called after each move.
        """
        points = self.points(denoiser.schedule, t_start)
        self.check_noise(denoiser.noise)
        noise, denoise = self.path(noise), Denoise(denoiser, cond, aims=self.posterior)
        history: History = ()
        loops = 0
        first = noise.at(Move(-1, loops, points[0], points[0]))
        x = _first(denoiser.noise, eps, x_init, points[0], first)
        if constraint is not None:
            x = constraint.start(x, points, first)
        for number, (now, next) in enumerate(pairwise(points)):
            draw = noise.at(Move(number, loops, now, next))
            if next.t < now.t:
                transition, history = self.step(denoise.toward(next), x, now, next, draw, history)
            elif next.t > now.t:
                transition, history, loops = self.up(x, now, next), (), loops + 1
            else:
                transition, history = self.stay(denoise, x, now, draw), ()
            transition = denoiser.noise.move(*transition)
            if constraint is None:
                x = transition.draw(draw)
            else:
                x, index = constraint.apply(transition, now, next, draw, denoise.last)
                if index is not None:
                    denoise.select(index)
                    history = tuple((point, remembered[index]) for point, remembered in history)
            if progress is not None:
                progress(number + 1, len(points) - 1, x)
        return x if constraint is None else constraint.finish(x)

    @torch.no_grad()
    def invert(self, denoiser: Denoiser, x_0: Tensor, cond: Condition, t_end: float = 1.0) -> Tensor:
        """Returns the eps (B, *) from which this method, started at `t_end` without x_init, reproduces x_0 (B, *).

        The grid is visited in reverse order. Raises `ValueError` as in `points_upwards`. The first move, from sigma =
        0, solves `D(x) = x_0` by two iterations of `x = alpha x_0 + (x - alpha D(x))` from x = alpha x_0, which are two
        further evaluations.
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
            transition, history = self.step(denoise, x, now, next, NoNoise(), history)
            x = transition.mean
        return x / points[-1].sigma

    @property
    def deterministic(self) -> bool:
        """Whether the law of every step has std 0."""
        return True


def _first(noise: Noise, eps: Tensor, x_init: Tensor | None, point: Point, draw: Draw) -> Tensor:
    """Returns the x (B, *) that a run starts from."""
    return point.sigma * eps if x_init is None else noise.mixed(x_init, eps, point, draw.streams("start"))


class NoNoise:
    """What a deterministic method is given in place of noise."""

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor:
        raise AssertionError("a deterministic method asked for noise")

    def streams(self, purpose: str, *position: int) -> Generators:
        raise AssertionError("a deterministic method asked for random streams")
