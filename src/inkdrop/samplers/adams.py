"""Multistep methods, which reuse the slopes at the last points."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Brownian, Draw, Source
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.samplers.coordinates import Coordinate
from inkdrop.samplers.quadrature import Rule, corrected
from inkdrop.schedules import Point
from inkdrop.time_grids import TimeGrid


class Adams(Sampler):
    """A linear multistep method, which integrates an interpolation of the last slopes with one evaluation per step.

    With a corrector, each x is first corrected by the evaluation at it: the last step is repeated with the slope at
    this point too, without a further evaluation.

    - `time_grid`: the times that are visited.
    - `coordinate`: the variables in which the ODE is integrated, and hence the slope.
    - `rule`: how the slope is integrated.
    - `order`: the number of points; the first steps have fewer.
    - `corrector`: the number of points of the corrector, at least 2, or 0 for none.

    Raises `ValueError` for a corrector of 1 point, or of a rule that cannot have one.
    """

    def __init__(
        self,
        time_grid: TimeGrid,
        coordinate: Coordinate,
        rule: Rule,
        order: Annotated[int, Ge(1), Le(4)],
        corrector: Annotated[int, Ge(0), Le(5)] = 0,
    ):
        super().__init__(time_grid)
        if corrector == 1:
            raise ValueError("sampler.corrector=1 is too few points for a corrector: set 2 or more, or 0 for none")
        if corrector and not rule.corrects:
            raise ValueError(f"{type(rule).__name__} has no corrector: set sampler.corrector=0")
        self.coordinate, self.rule, self.order, self.corrector = coordinate, rule, order, corrector

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0 = denoise(x, now).x_0
        nodes = ((now, self.coordinate.slope(x, x_0, now)), *history)
        places, slopes = zip(*nodes, strict=True)
        numbers = corrected(self.coordinate, self.rule, next, places, self.order, self.corrector)
        return numbers.transition(x, x_0, slopes), nodes[: max(self.order, self.corrector - 1)]

    def path(self, noise: Source) -> Source:
        return noise if self.deterministic else Brownian(noise)

    @property
    def deterministic(self) -> bool:
        return self.coordinate.deterministic
