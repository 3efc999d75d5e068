"""Steps of adaptive length, by torchdiffeq."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.samplers.coordinates import Straight
from inkdrop.schedules import Point
from inkdrop.time_grids import TimeGrid


class Adaptive(Sampler):
    """An embedded Runge-Kutta method that solves every move of the grid within tolerances, for reference samples.

    It integrates x / (alpha + sigma). The worst sample of a batch determines the length of a step. Samples therefore
    depend on their batch within the tolerances, and are reproducible in batches of the same size. The last move, to
    sigma = 0, is of order 1. A network on a discrete schedule is evaluated between its steps.

    - `time_grid`: the times between which the solver chooses its steps.
    - `rtol`, `atol`: the relative and the absolute tolerance.
    - `solver`: the name of the method in torchdiffeq, which needs `pip install 'inkdrop[ode]'`.

    Raises `ValueError` if torchdiffeq is not installed. Source: Chen et al. 2018, arXiv 1806.07366.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        rtol: Annotated[float, Gt(0)],
        atol: Annotated[float, Gt(0)],
        solver: Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"],
    ):
        super().__init__(time_grid)
        try:
            import torchdiffeq  # noqa: F401
        except ImportError:
            raise ValueError(
                "sampler=adaptive needs torchdiffeq, which is missing: pip install 'inkdrop[ode]'"
            ) from None
        self.rtol, self.atol, self.solver = rtol, atol, solver
        self.coordinate = Straight()

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        from torchdiffeq import odeint

        if next.sigma == 0:
            return self.coordinate.first(x, denoise(x, now).x_0, now, next), ()
        ends = torch.tensor([self.coordinate.tau(float(point.half)) for point in (now, next)], dtype=torch.float64)

        first, last = sorted((float(now.t), float(next.t)))

        def flow(tau: Tensor, y: Tensor) -> Tensor:
            log_snr = torch.tensor([2 * self.coordinate.half(tau.item())], dtype=torch.float64)
            t = min(max(denoise.schedule.time(log_snr).item(), first), last)
            point = denoise.schedule.points([t])[0]
            x_t = (y * self.coordinate.scale(point)).to(x.dtype)
            return self.coordinate.slope(x_t, denoise(x_t, point).x_0, point)

        def worst(error: Tensor) -> Tensor:
            return error.flatten(1).square().mean(1).sqrt().max()

        start = x / self.coordinate.scale(now)
        options = {"norm": worst}
        y = odeint(flow, start, ends, rtol=self.rtol, atol=self.atol, method=self.solver, options=options)[-1]
        return Transition(y * self.coordinate.scale(next), 0.0), ()
