"""Which times a sampler visits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

from inkdrop.schedules import Schedule


class TimeGrid(ABC):
    """Times in any order: down-moves are steps of the method, up-moves add noise, repeated times are corrections."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        """The times from `t_start` to the last, which is 0."""


def descending(times: list[float], schedule: Schedule) -> list[float]:
    """The times on the schedule's own steps, then 0.

    A table is met on its own steps, so that its network is called at times it was trained at; where two times have the
    same nearest step, one takes the next that is free. `ValueError` if there are not as many steps, or if a time lies
    below those that a network is trained at.
    """
    snapped = [schedule.snap(t) for t in times]
    if any(a <= b for a, b in pairwise(snapped)):
        snapped = _apart(times, schedule)
    if min(snapped) < schedule.t_min * (1 - 1e-9):
        raise ValueError(
            f"the time grid comes down to t = {min(snapped):.3g}, but {type(schedule).__name__} is trained from t = "
            f"{schedule.t_min:.3g} on: choose time_grid=linspace, or lower time_grid.num_steps={len(times)}"
        )
    return [*snapped, 0.0]


def _apart(times: list[float], schedule: Schedule) -> list[float]:
    """The nearest steps of a table that fall from one to the next."""
    count = schedule.num_timesteps or 0
    places = [round(schedule.snap(t) * count) for t in times]
    highest = places[0]
    for number in range(len(places) - 2, -1, -1):
        places[number] = max(places[number], places[number + 1] + 1)
    places[0] = min(places[0], highest)
    for number in range(1, len(places)):
        places[number] = min(places[number], places[number - 1] - 1)
    if count == 0 or places[-1] < 1:
        raise ValueError(
            f"time_grid.num_steps={len(times)} is more than the schedule has steps in this range: lower it"
        )
    return [place / count for place in places]
