"""Steps whose numbers were fitted to one network."""

from __future__ import annotations

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.schedules import Point, Schedule
from inkdrop.time_grids import TimeGrid


class Calibrated(Sampler):
    """`x' = c_0 x + c_1 D_1 + ... + c_m D_m` with numbers of its own for each step, D_1 the newest estimate of x_0.

    Times and numbers come from `python -m inkdrop calibrate`. `ValueError` without them, or for a run that does not
    take all of the steps.
    """

    def __init__(self, time_grid: TimeGrid, coefficients: list[list[float]] | None):
        super().__init__(time_grid)
        if not coefficients:
            raise ValueError("sampler=calibrated has no coefficients yet: python -m inkdrop calibrate checkpoint=...")
        if not all(2 <= len(numbers) <= 2 + place for place, numbers in enumerate(coefficients)):
            raise ValueError(
                "sampler.coefficients has from 2 numbers up to 1 more than there are estimates at each step"
            )
        self.coefficients = coefficients

    def points_upwards(self, schedule: Schedule, t_end: float = 1.0) -> list[Point]:
        """None: the numbers were fitted to the way down."""
        raise ValueError("sampler=calibrated was fitted to the way down and cannot be inverted: choose sampler=abm")

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        history = ((now, denoise(x, now).x_0), *history)
        if len(history) > len(self.coefficients) or (next.sigma == 0) != (len(history) == len(self.coefficients)):
            raise ValueError(
                f"a calibrated sampler makes whole runs of {len(self.coefficients)} steps: choose another for less"
            )
        scale, *shares = self.coefficients[len(history) - 1]
        mean = x * scale
        for share, (_, x_0) in zip(shares, history, strict=False):
            mean.add_(x_0, alpha=share)
        return Transition(mean, 0.0), history
