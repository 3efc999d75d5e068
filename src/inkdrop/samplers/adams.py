"""Multistep methods: the slopes at the last points, put to use again."""

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
    """The integral over a move of the slope through this and the last points, one network call a step.

    `order` is the number of points; the first steps have fewer. With `corrector` points, at least 2, each x is first
    mended by what the call at it says: the last move again, through this point too, without a further call. The
    coordinate says of what the slope is, the rule how it is integrated. `ValueError` for a corrector of 1 point,
    or with a rule that has none.
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
            raise ValueError("sampler.corrector=1 has only the new point to go by: take 2 or more, or 0 for none")
        if corrector and not rule.corrects:
            raise ValueError(f"{type(rule).__name__} cannot look at the end of a move: set sampler.corrector=0")
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
