"""Grids that are even in t, or in a power of it.

They have the names that are usual for N of T discrete steps, and work for any schedule.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from inkdrop.schedules import Schedule
from inkdrop.time_grids.base import TimeGrid, descending


class Trailing(TimeGrid):
    """Even steps that start exactly at t_start: t_start (1 - k/N), then 0.

    Source: Lin et al. 2024, arXiv 2305.08891, table 2.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return descending([t_start * (1 - k / self.num_steps) for k in range(self.num_steps)], schedule)


class Leading(TimeGrid):
    """Even steps that end exactly at the smallest trained time: t_start (N - 1 - k)/N + t_min, then 0.

    The first time is one interval below t_start. Raises `ValueError` if t_min is longer than this interval. Source:
    Song et al. 2021, arXiv 2010.02502, appendix D.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        steps = range(self.num_steps - 1, -1, -1)
        times = [t_start * k / self.num_steps + schedule.t_min for k in steps]
        if times[0] > t_start * (1 + 1e-9):
            raise ValueError(
                f"time_grid=leading starts at t = {times[0]:.4g} with time_grid.num_steps={self.num_steps}, above "
                f"{t_start:.4g}: choose time_grid=linspace, or lower time_grid.num_steps"
            )
        return descending(times, schedule)


class Linspace(TimeGrid):
    """Even steps from t_start to the smallest trained time, both included, then 0.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, section 4.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        shares = [k / (self.num_steps - 1) for k in range(self.num_steps)]
        return descending([t_start * (1 - share) + schedule.t_min * share for share in shares], schedule)


class Quadratic(TimeGrid):
    """Steps even in the square root of t from t_start to the smallest trained time, both included, then 0.

    Source: Song et al. 2021, arXiv 2010.02502, appendix D.2.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, last = t_start**0.5, schedule.t_min**0.5
        step = (first - last) / (self.num_steps - 1)
        return descending([(first - k * step) ** 2 for k in range(self.num_steps)], schedule)
