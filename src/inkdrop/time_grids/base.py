"""What every time grid promises, and the rounding of times to the steps of a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

from inkdrop.schedules import Schedule


class TimeGrid(ABC):
    """The times that a sampler visits, in any order.

    A move to less noise is a step of the method, a move to more noise adds noise, and a repeated time is a correction.
    """

    @abstractmethod
    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        """Returns the times from `t_start` to the last one, which is 0."""


def descending(times: list[float], schedule: Schedule) -> list[float]:
    """Returns the times rounded to the steps of the schedule, then 0.

    The network of a discrete schedule is thus evaluated at the times of its training. Where two times have the same
    nearest step, one of them takes the next free step. Raises `ValueError` if there are too few steps, or if a time is
    below the smallest trained time.
    """
    snapped = [schedule.snap(t) for t in times]
    if any(a <= b for a, b in pairwise(snapped)):
        snapped = _apart(times, schedule)
    if min(snapped) < schedule.t_min * (1 - 1e-9):
        raise ValueError(
            f"the time grid reaches t = {min(snapped):.3g}, but {type(schedule).__name__} is trained only from t = "
            f"{schedule.t_min:.3g}: choose time_grid=linspace, or lower time_grid.num_steps={len(times)}"
        )
    return [*snapped, 0.0]


def _apart(times: list[float], schedule: Schedule) -> list[float]:
    """Returns the nearest steps of a discrete schedule that decrease strictly."""
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
            f"time_grid.num_steps={len(times)} exceeds the number of steps of the schedule in this range: lower it"
        )
    return [place / count for place in places]
