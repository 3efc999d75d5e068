"""Heun's method, of order 2 with two network calls a step."""

from __future__ import annotations

import math

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.samplers.base import Denoise, History, Sampler, towards
from inkdrop.schedules import Point


class Heun(Sampler):
    """The trapezoid of the slopes at both ends, in x / alpha over sigma / alpha.

    As a mix of estimates: `x_0 = D1 + (D2 - D1) exp(l' - l) / 2`, where D1 is the estimate at `now` and D2 the one at
    `next` after an Euler step. Where exp(l' - l) is infinite, at sigma' = 0 or alpha = 0, the step is Euler's. EDM's
    churn is an up-move of the grid. Source: Karras et al. 2022, arXiv 2206.00364, algorithm 1.
    """

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        first = denoise(x, now).x_0
        euler = towards(x, first, now, next)
        h = next.half - now.half
        if not math.isfinite(h):
            return euler, ()
        second = denoise(euler.mean, next).x_0
        return towards(x, first + math.exp(h) / 2 * (second - first), now, next), ()
