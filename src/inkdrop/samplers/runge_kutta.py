"""Runge-Kutta methods, which evaluate the network at stages within a step."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.noises.kernels import forward_kernel
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.samplers.coordinates import Coordinate
from inkdrop.samplers.quadrature import Rule, move
from inkdrop.schedules import Point
from inkdrop.time_grids import TimeGrid


class RungeKutta(Sampler):
    """A single-step method with slopes at the start and at stages within the step.

    Each stage, and the step, uses the slopes at the start and at the last stage. A step takes one evaluation more than
    there are stages. Slopes at 0 and 2/3 give order 3 if the second one was reached with order 2. Stages on a discrete
    schedule are rounded to its steps. Where a stage is outside the trained times, as in the move to sigma = 0, the move
    is of order 1.

    - `time_grid`: the times that are visited.
    - `coordinate`: the variables in which the ODE is integrated, and hence the slope.
    - `rule`: how the slope is integrated.
    - `stages`: shares of the step in the variable of the rule, such as [1] for Heun's method, [1/2] for the midpoint.
    - `up_noise`: the factor on the noise of up-moves, S_noise of EDM's churn.

    Raises `ValueError` for a coordinate with noise.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        coordinate: Coordinate,
        rule: Rule,
        stages: list[Annotated[float, Gt(0), Le(1)]],
        up_noise: Annotated[float, Gt(0)] = 1.0,
    ):
        super().__init__(time_grid)
        if not coordinate.deterministic:
            raise ValueError("sampler.coordinate draws noise, but stages must be deterministic: set eta = 0")
        self.coordinate, self.rule, self.stages, self.up_noise = coordinate, rule, stages, up_noise

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0 = denoise(x, now).x_0
        first = now, self.coordinate.slope(x, x_0, now)
        nodes: History = (first,)
        for share in self.stages:
            stage = next if share == 1 else self._stage(denoise, now, next, share)
            if stage is None or stage.sigma == 0 or stage.t == now.t or not self.coordinate.regular(now, stage):
                return self.coordinate.first(x, x_0, now, next), ()
            ahead = move(self.coordinate, self.rule, x, x_0, now, stage, nodes).mean
            nodes = (first, (stage, self.coordinate.slope(ahead, denoise(ahead, stage).x_0, stage)))
        return move(self.coordinate, self.rule, x, x_0, now, next, nodes), ()

    def _stage(self, denoise: Denoise, now: Point, next: Point, share: float) -> Point | None:
        """Returns the point at this share of the step, or None outside the trained times."""
        start, end = (self.rule.abscissa(self.coordinate, float(point.half)) for point in (now, next))
        return denoise.at(self.rule.half(self.coordinate, start + share * (end - start)))

    def up(self, x: Tensor, now: Point, next: Point) -> Transition:
        mean, std = forward_kernel(x, now, next)
        return Transition(mean, self.up_noise * std)
