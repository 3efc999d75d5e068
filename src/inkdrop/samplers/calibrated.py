"""Steps with coefficients fitted to one network."""

from __future__ import annotations

from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises import Draw
from inkdrop.samplers.base import Denoise, History, Sampler
from inkdrop.schedules import Point, Schedule
from inkdrop.time_grids import TimeGrid


class Calibrated(Sampler):
    """A sampler of a few steps fitted to one network, `x' = c_0 x + c_1 D_1 + ... + c_m D_m` in each step.

    D_1 is the newest estimate of x_0, and each step has its own coefficients. `python -m inkdrop calibrate` computes
    times and coefficients. Raises `ValueError` without coefficients, and for a run that does not take all of the steps.
    """

    def __init__(self, time_grid: TimeGrid, coefficients: list[list[float]] | None):
        super().__init__(time_grid)
        if not coefficients:
            raise ValueError("sampler=calibrated needs coefficients: run python -m inkdrop calibrate checkpoint=...")
        if not all(2 <= len(numbers) <= 2 + place for place, numbers in enumerate(coefficients)):
            raise ValueError(
                "sampler.coefficients must have 2 to k + 1 numbers for step k: run python -m inkdrop calibrate"
            )
        self.coefficients = coefficients

    def points_upwards(self, schedule: Schedule, t_end: float = 1.0) -> list[Point]:
        """Raises `ValueError`, because the coefficients were fitted to steps of decreasing noise."""
        raise ValueError("sampler=calibrated was fitted to one direction and cannot be inverted: choose sampler=abm")

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, next: Point, noise: Draw, history: History
    ) -> tuple[Transition, History]:
        history = ((now, denoise(x, now).x_0), *history)
        if len(history) > len(self.coefficients) or (next.sigma == 0) != (len(history) == len(self.coefficients)):
            raise ValueError(
                f"a calibrated sampler must take all of its {len(self.coefficients)} steps: choose another for fewer"
            )
        scale, *shares = self.coefficients[len(history) - 1]
        mean = x * scale
        for share, (_, x_0) in zip(shares, history, strict=False):
            mean.add_(x_0, alpha=share)
        return Transition(mean, 0.0), history
