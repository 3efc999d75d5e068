"""Grids that are defined by the noise level, and hence independent of the time of the schedule."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from inkdrop.schedules import Schedule
from inkdrop.time_grids.base import TimeGrid, descending


class LogSNR(TimeGrid):
    """t_start, then even steps in the log-SNR up to `highest`, then 0, for schedules that are steep at their ends.

    The even steps start at the log-SNR of t_start, or at `lowest` if that is larger. Raises `ValueError` unless
    lowest < highest. Source: Lu et al. 2022, arXiv 2206.00927, section 3.4.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)], highest: float = 9.0, lowest: float = -12.0):
        if highest <= lowest:
            raise ValueError(f"time_grid.highest={highest} must be above lowest={lowest}: swap the two values")
        self.num_steps, self.highest, self.lowest = num_steps, highest, lowest

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, last = schedule.log_snr(torch.tensor([t_start, schedule.t_min], dtype=torch.float64)).tolist()
        values = torch.linspace(max(first, self.lowest), min(last, self.highest), self.num_steps, dtype=torch.float64)
        return descending([t_start, *schedule.time(values[1:]).tolist()], schedule)


class Centred(TimeGrid):
    """t_start, then steps that are shortest around one noise level and lengthen towards both ends, then 0.

    `log(sigma / alpha) = log(centre) + width sinh(v)` with N + 1 even values v from t_start, or from sigma / alpha =
    1000 if there is more noise, to the smallest trained time, which is replaced by 0.

    - `num_steps`: N.
    - `centre`: the noise level sigma / alpha with the shortest steps.
    - `width`: how slowly steps lengthen, in log(sigma / alpha).
    """

    MOST = 1000.0  # sigma / alpha, above which x_t has no visible signal

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)],
        centre: Annotated[float, Gt(0)],
        width: Annotated[float, Gt(0)],
    ):
        self.num_steps, self.centre, self.width = num_steps, centre, width

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        log_snr = schedule.log_snr(torch.tensor([t_start, schedule.t_min], dtype=torch.float64))
        ends = (-log_snr / 2).clamp(max=math.log(self.MOST)) - math.log(self.centre)
        first, last = torch.asinh(ends / self.width).tolist()
        v = torch.linspace(first, last, self.num_steps + 1, dtype=torch.float64)[1:-1]
        inner = schedule.time(-2 * (math.log(self.centre) + self.width * torch.sinh(v))).tolist()
        return descending([t_start, *inner], schedule)


class Karras(TimeGrid):
    """t_start, then steps even in the power 1 / rho of sigma / alpha down to the smallest trained time, then 0.

    `s_i = (s_max^(1/rho) + i / (N - 1) (s_min^(1/rho) - s_max^(1/rho)))^rho`, where s_max and s_min are those of the
    schedule within sigma_min and sigma_max.

    - `num_steps`: N.
    - `rho`: 7 has more steps near the data; rho -> infinity is even in the log-SNR.
    - `sigma_min`, `sigma_max`: the limits of sigma / alpha.

    Raises `ValueError` unless sigma_min < sigma_max. Source: Karras et al. 2022, arXiv 2206.00364, equation 5.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(2), Le(1_000_000)],
        rho: Annotated[float, Gt(0)] = 7.0,
        sigma_min: Annotated[float, Ge(0)] = 0.0,
        sigma_max: Annotated[float, Gt(0)] = 80.0,
    ):
        if sigma_min >= sigma_max:
            raise ValueError(
                f"time_grid.sigma_min={sigma_min} must be below sigma_max={sigma_max}: swap the two values"
            )
        self.num_steps, self.rho, self.sigma_min, self.sigma_max = num_steps, rho, sigma_min, sigma_max

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        ends = schedule.log_snr(torch.tensor([t_start, schedule.t_min], dtype=torch.float64)).tolist()
        highest, lowest = min(math.exp(-ends[0] / 2), self.sigma_max), max(math.exp(-ends[1] / 2), self.sigma_min)
        roots = torch.linspace(highest ** (1 / self.rho), lowest ** (1 / self.rho), self.num_steps, dtype=torch.float64)
        inner = schedule.time(-2 * self.rho * roots[1:].log()).clamp(min=schedule.t_min).tolist()
        return descending([t_start, *inner], schedule)


def edm(
    num_steps: Annotated[int, Ge(2), Le(1_000_000)],
    rho: Annotated[float, Gt(0)] = 7.0,
    sigma_min: Annotated[float, Ge(0)] = 0.002,
    sigma_max: Annotated[float, Gt(0)] = 80.0,
) -> Karras:
    """Returns the published steps of EDM, on any schedule; arguments as in `Karras`.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.
    """
    return Karras(num_steps, rho, sigma_min, sigma_max)
