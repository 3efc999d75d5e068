"""DDPM's own sampler: the reverse Markov chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.samplers.base import Denoise, History, Sampler, towards
from inkdrop.schedules import Point, Scalar
from inkdrop.time_grids import TimeGrid

Deviation: TypeAlias = Callable[[Point, Point, Mapping[str, Tensor]], Scalar]


def small(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """Standard deviation of q(x_s | x_t, x_0), right where x_0 is certain: `s' sqrt(1 - exp(2 (l - l')))`."""
    return next.sigma * math.sqrt(-math.expm1(2 * (now.half - next.half)))


def large(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """Standard deviation of q(x_t | x_s), right where x_0 ~ N(0, I): `s sqrt(1 - exp(2 (l - l')))`; 0 at the end."""
    return now.sigma * math.sqrt(-math.expm1(2 * (now.half - next.half))) if next.sigma > 0 else 0.0


class Ancestral(Sampler):
    """x_s ~ N(posterior mean at the estimate of x_0, deviation^2).

    `deviation(now, next, extras)` may read further outputs of the network, such as a learned variance. Source: Ho et
    al. 2020, arXiv 2006.11239, algorithm 2 and equation 7; both deviations in section 3.2.
    """

    def __init__(self, time_grid: TimeGrid, deviation: Deviation = small):
        super().__init__(time_grid)
        self.deviation = deviation

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0, extras = denoise(x, now)
        mean, _ = towards(x, x_0, now, next, eta=1.0)
        return Transition(mean, self.deviation(now, next, extras)), ()

    @property
    def deterministic(self) -> bool:
        return False
