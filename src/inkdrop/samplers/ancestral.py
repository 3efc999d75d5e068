"""The sampler of DDPM, the reverse Markov chain."""

from __future__ import annotations

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.deviations import Deviation, small
from inkdrop.noises import Draw
from inkdrop.noises.kernels import towards
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.schedules import Point
from inkdrop.time_grids import TimeGrid


class Ancestral(Sampler):
    """Ancestral sampling of DDPM, `x_s ~ N(posterior mean at the estimate of x_0, deviation^2)`.

    `deviation(now, next, extras)` may use further outputs of the network, such as a learned variance. The last step,
    to sigma = 0, adds no noise. Source: Ho et al. 2020, arXiv 2006.11239, algorithm 2 and equation 7; small and large
    deviation in section 3.2.
    """

    def __init__(self, time_grid: TimeGrid, deviation: Deviation = small):
        super().__init__(time_grid)
        self.deviation = deviation

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0, extras = denoise(x, now)
        mean, _ = towards(x, x_0, now, next, eta=1.0)
        return Transition(mean, self.deviation(now, next, extras) if next.sigma > 0 else 0.0), ()

    @property
    def deterministic(self) -> bool:
        return False
