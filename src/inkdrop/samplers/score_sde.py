"""The discretisations of the reverse SDE in the score-SDE paper, and Langevin corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Brownian, Draw, Source
from inkdrop.noises.kernels import forward_kernel, towards
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.schedules import Point
from inkdrop.time_grids import Repeat, TimeGrid


def _score(x: Tensor, x_0: Tensor, now: Point) -> Tensor:
    """Returns the score `(alpha x_0 - x) / sigma^2`, (B, *)."""
    return (now.alpha * x_0 - x) / now.sigma**2


class EulerMaruyama(Sampler):
    """The Euler-Maruyama method of the reverse SDE, `x' = x - (f x - g^2 score) dt + g sqrt(dt) z`.

    f = d log(alpha) / dt and g^2 = -sigma^2 d log_snr / dt. The last step goes to the estimate of x_0. The method needs
    hundreds of steps. `check` raises `ValueError` at alpha = 0, where f is infinite. Source: Song et al. 2021, arXiv
    2011.13456, section 4.1.
    """

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0 = denoise(x, now).x_0
        if next.sigma == 0:
            return towards(x, x_0, now, next), ()
        t, dt = torch.tensor([now.t], dtype=torch.float64), now.t - next.t
        f = denoise.schedule.log_alpha_rate(t).item()
        power = -(now.sigma**2) * denoise.schedule.log_snr_rate(t).item()
        return Transition(x - dt * (f * x - power * _score(x, x_0, now)), math.sqrt(power * dt)), ()

    def check(self, points: Sequence[Point]) -> None:
        super().check(points)
        if any(now.alpha == 0 and next.sigma > 0 for now, next in pairwise(points)):
            raise ValueError(
                "Euler-Maruyama has an infinite drift at alpha = 0: choose sampler=reverse_diffusion or ddim"
            )

    def path(self, noise: Source) -> Source:
        return Brownian(noise)

    @property
    def deterministic(self) -> bool:
        return False


class ReverseDiffusion(Sampler):
    """The reverse diffusion sampler, `x_s = (2 - r) x + G^2 score + G z` for a forward step `x_t = r x_s + G z`.

    r = alpha_t / alpha_s, and G is the standard deviation of q(x_t | x_s). The last step goes to the estimate of x_0,
    and a step from alpha = 0 is that of the reverse chain. Source: Song et al. 2021, arXiv 2011.13456, appendix E.
    """

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0 = denoise(x, now).x_0
        if next.sigma == 0 or now.alpha == 0:
            return towards(x, x_0, now, next, eta=1.0), ()
        _, G = forward_kernel(x, next, now)
        mean = (2 - now.alpha / next.alpha) * x + G**2 * _score(x, x_0, now)
        return Transition(mean, G), ()

    def path(self, noise: Source) -> Source:
        return Brownian(noise)

    @property
    def deterministic(self) -> bool:
        return False


class PredictorCorrector(Sampler):
    """Steps of another method, each but the last followed by Langevin steps `x + d score + sqrt(2 d) z`.

    `d = 2 (snr sigma)^2` is the step size of the paper with the norm of the score of normal data, so that each sample
    depends only on its own seed.

    - `time_grid`: the times that are visited.
    - `predictor`: a function from a time grid to the other method.
    - `corrections`: the number of Langevin steps after each step.
    - `snr`: the factor in the step size.

    Source: Song et al. 2021, arXiv 2011.13456, algorithms 4 and 5.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        predictor: Callable[[TimeGrid], Sampler],
        corrections: Annotated[int, Ge(0)],
        snr: Annotated[float, Gt(0)],
    ):
        super().__init__(Repeat(time_grid, corrections))
        self.predictor, self.snr = predictor(time_grid), snr

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        return self.predictor.step(denoise, x, now, next, noise, history)

    def stay(self, denoise: Denoise, x: Tensor, now: Point, noise: Draw) -> Transition:
        size = 2 * (self.snr * now.sigma) ** 2
        return Transition(x + size * _score(x, denoise(x, now).x_0, now), math.sqrt(2 * size))

    def check(self, points: Sequence[Point]) -> None:
        self.predictor.check([points[0], *(next for now, next in pairwise(points) if next.t != now.t)])

    def up(self, x: Tensor, now: Point, next: Point) -> Transition:
        return self.predictor.up(x, now, next)

    def path(self, noise: Source) -> Source:
        return self.predictor.path(noise)

    @property
    def deterministic(self) -> bool:
        return False
