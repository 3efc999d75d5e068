"""Pseudo numerical methods: Runge-Kutta for the first steps, then Adams-Bashforth for even steps."""

from __future__ import annotations

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.noises.kernels import towards
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.samplers.coordinates import Noise
from inkdrop.samplers.quadrature import Even, move
from inkdrop.schedules import Point


class PNDM(Sampler):
    """PNDM: three classical Runge-Kutta steps of four evaluations, then multistep steps with four slopes eps.

    Every step is that of DDIM with a linear combination of eps; the middle of a step is taken in t. Without the first
    steps it is `sampler=ipndm`. Where alpha = 0 or sigma = 0 the step is that of DDIM. Source: Liu et al. 2022, arXiv
    2202.09778, equations 10 to 13.
    """

    coordinate, rule = Noise(), Even()

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        x_0 = denoise(x, now).x_0
        if not self.coordinate.regular(now, next):
            return towards(x, x_0, now, next), ()
        nodes = ((now, self.coordinate.slope(x, x_0, now)), *history)
        middle = denoise.point(float(now.t + next.t) / 2)
        if len(nodes) < 4 and next.sigma > 0 and next.t < middle.t < now.t:
            mixed = now, self._slope(denoise, x, nodes[0], middle, next)
            return move(self.coordinate, self.rule, x, x_0, now, next, (mixed,)), nodes[:3]
        return move(self.coordinate, self.rule, x, x_0, now, next, nodes[:4]), nodes[:3]

    def _slope(self, denoise: Denoise, x: Tensor, first: tuple[Point, Tensor], middle: Point, next: Point) -> Tensor:
        """Returns `(eps_1 + 2 eps_2 + 2 eps_3 + eps_4) / 6`, each but the first reached by the one before."""
        now, slope = first
        total = slope.clone()
        for point, weight in ((middle, 2), (middle, 2), (next, 1)):
            ahead = move(self.coordinate, self.rule, x, x, now, point, ((now, slope),)).mean
            slope = self.coordinate.slope(ahead, denoise(ahead, point).x_0, point)
            total.add_(slope, alpha=weight)
        return total / 6
