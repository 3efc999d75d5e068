"""DDIM: from the probability-flow ODE (eta = 0) to the reverse chain (eta = 1)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.noises.kernels import towards
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.schedules import Point
from inkdrop.time_grids import TimeGrid


class DDIM(Sampler):
    """DDIM, a step `towards` the estimate of x_0 with a share eta of the posterior's noise.

    With eta = 0 it is deterministic: Euler's method in x / alpha over sigma / alpha, of order 1. Source: Song et al.
    2021, arXiv 2010.02502, equation 12.
    """

    def __init__(self, time_grid: TimeGrid, eta: Annotated[float, Ge(0), Le(1)] = 0.0):
        super().__init__(time_grid)
        self.eta = eta

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        return towards(x, denoise(x, now).x_0, now, next, self.eta), ()

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    @property
    def posterior(self) -> bool:
        return self.eta == 0
