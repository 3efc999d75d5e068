"""Which times a sampler visits.

The names are those of the field for N of T steps, written for any schedule. A table is met on its own steps, so that
its network is called at times it was trained at; a grid that would visit one of them twice is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Le

from inkdrop.schedules import Schedule


class TimeGrid(ABC):
    """Times in any order: down-moves are steps of the method, up-moves add noise, repeated times are corrections."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        """The times from `t_start` to the last, which is 0."""


def _descending(times: list[float], schedule: Schedule) -> list[float]:
    """The times on the schedule's own steps, then 0.

    `ValueError` if two of them fall together, or if one lies below the times that a network is trained at.
    """
    snapped = [schedule.snap(t) for t in times]
    if len(set(snapped)) < len(snapped):
        raise ValueError(
            f"time_grid.num_steps={len(times)} is more than the schedule has steps in this range: lower it"
        )
    if min(snapped) < schedule.t_min * (1 - 1e-9):
        raise ValueError(
            f"the time grid comes down to t = {min(snapped):.3g}, but {type(schedule).__name__} is trained from t = "
            f"{schedule.t_min:.3g} on: choose time_grid=linspace, or lower time_grid.num_steps={len(times)}"
        )
    return [*snapped, 0.0]


class Trailing(TimeGrid):
    """Even steps that begin exactly at t_start: t_start (1 - k/N), then 0.

    Source: Lin et al. 2024, arXiv 2305.08891, table 2.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return _descending([t_start * (1 - k / self.num_steps) for k in range(self.num_steps)], schedule)


class Leading(TimeGrid):
    """Even steps that end exactly at the smallest trained time: t_start (N - 1 - k)/N + t_min, then 0.

    The first step begins one interval below t_start. Source: Song et al. 2021, arXiv 2010.02502, appendix D.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        steps = range(self.num_steps - 1, -1, -1)
        return _descending([t_start * k / self.num_steps + schedule.t_min for k in steps], schedule)


class Linspace(TimeGrid):
    """Even steps from t_start to the smallest trained time, both visited, then 0.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, section 4.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)]):
        self.num_steps = num_steps

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        step = (t_start - schedule.t_min) / (self.num_steps - 1)
        return _descending([t_start - k * step for k in range(self.num_steps)], schedule)


class LogSNR(TimeGrid):
    """t_start, then even steps in the log-SNR up to `highest`, then 0: for schedules that hurry at their ends.

    The even steps begin at the log-SNR of t_start, or at `lowest` where it has less. Source: Lu et al. 2022, arXiv
    2206.00927, section 3.4.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)], highest: float = 9.0, lowest: float = -12.0):
        if highest <= lowest:
            raise ValueError(f"time_grid.highest={highest} is not above time_grid.lowest={lowest}: exchange the two")
        self.num_steps, self.highest, self.lowest = num_steps, highest, lowest

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, last = schedule.log_snr(torch.tensor([t_start, schedule.t_min], dtype=torch.float64)).tolist()
        values = torch.linspace(max(first, self.lowest), min(last, self.highest), self.num_steps, dtype=torch.float64)
        return _descending([t_start, *schedule.time(values[1:]).tolist()], schedule)
