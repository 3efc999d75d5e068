"""Schedules around other schedules."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from inkdrop.schedules.base import Schedule


class ZeroTerminalSNR(Schedule):
    """A variance-preserving schedule rescaled to alpha = 0 at t = 1, so that no signal is left there.

    `alpha' = (alpha(t) - alpha(1)) / (1 - alpha(1))`, `sigma' = sqrt(1 - alpha'^2)`. Raises `ValueError` if the
    schedule does not preserve the variance. Source: Lin et al. 2024, arXiv 2305.08891, algorithm 1, which keeps the
    first step instead of t = 0, a difference below 1e-6 for its tables.
    """

    def __init__(self, schedule: Schedule):
        t = torch.linspace(0, 1, 9, dtype=torch.float64)
        if (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 - 1).abs().max() > 1e-9:
            raise ValueError(f"{type(schedule).__name__} does not preserve the variance: choose a table, vp or laplace")
        self.schedule, self.t_min, self.num_timesteps = schedule, schedule.t_min, schedule.num_timesteps
        self._last = float(schedule.alpha(torch.ones(1, dtype=torch.float64)))

    def _lost(self, t: Tensor) -> Tensor:
        """Returns 1 - alpha' without cancellation near the data."""
        return self.schedule.sigma(t) ** 2 / ((1 + self.schedule.alpha(t)) * (1 - self._last))

    def alpha(self, t: Tensor) -> Tensor:
        alpha = (self.schedule.alpha(t) - self._last) / (1 - self._last)
        return torch.where(t >= 1, 0.0, alpha)  # the last bit of exp depends on the position in memory

    def sigma(self, t: Tensor) -> Tensor:
        return (self._lost(t) * (1 + self.alpha(t))).sqrt()

    def time(self, log_snr: Tensor) -> Tensor:
        alpha, power = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
        lost = power / (1 + alpha) * (1 - self._last)  # 1 - alpha of the inner schedule
        time = self.schedule.time(2 * (1 - lost).log() - (lost * (2 - lost)).log())
        return torch.where(log_snr == -torch.inf, 1.0, time)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        inside = self.schedule.alpha(t) * self.schedule.sigma(t) ** 2
        return self.schedule.log_snr_rate(t) * inside / ((1 - self._last) * self.alpha(t) * self.sigma(t) ** 2)

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        return self.schedule.log_alpha_rate(t) * self.schedule.alpha(t) / ((1 - self._last) * self.alpha(t))

    def c_noise(self, t: Tensor) -> Tensor:
        return self.schedule.c_noise(t)

    def snap(self, t: float) -> float:
        return self.schedule.snap(t)


class Shifted(Schedule):
    """A schedule with sigma / alpha multiplied by `factor` at every t, to add noise for larger images.

    `log_snr'(t) = log_snr(t) - 2 log(factor)`, by a change of time in the inner schedule: the straight path becomes
    `sigma = factor t / (1 + (factor - 1) t)`. Where this needs more noise than at t = 1, the formula of the inner
    schedule is continued. Sources: Hoogeboom et al. 2023, arXiv 2301.11093, section 3.1 (factor = size / 64); Esser et
    al. 2024, arXiv 2403.03206, equation 23.
    """

    def __init__(self, schedule: Schedule, factor: Annotated[float, Gt(0)]):
        self.schedule, self.num_timesteps = schedule, schedule.num_timesteps
        self.t_min = schedule.t_min
        self._change = 2 * math.log(factor)

    def _inside(self, t: Tensor) -> Tensor:
        return self.schedule.time(self.log_snr(t))

    def alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(self._inside(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(self._inside(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t) - self._change

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr + self._change)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr_rate(t)

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        inside = self._inside(t)
        rate = self.schedule.log_alpha_rate(inside) * self.log_snr_rate(t) / self.schedule.log_snr_rate(inside)
        return torch.where(self.log_snr(t) == -torch.inf, -torch.inf, rate)

    def c_noise(self, t: Tensor) -> Tensor:
        return self.schedule.c_noise(self._inside(t))

    def snap(self, t: float) -> float:
        return self.schedule.snap(t)


class Interpolated(Schedule):
    """A variance-preserving schedule between two others, `log_snr(t) = (1 - t) log_snr_start(t) + t log_snr_end(t)`.

    It follows `start` near the data and `end` near the noise, such as one schedule shifted for two resolutions. Where a
    shift needs more noise than at t = 1, it is `end` alone. Raises `ValueError` if the log-SNR does not decrease.
    Source: Hoogeboom et al. 2023, arXiv 2301.11093, section 3.1.
    """

    def __init__(self, start: Schedule, end: Schedule):
        self.start, self.end = start, end
        self.t_min = max(start.t_min, end.t_min)
        if (self.log_snr(torch.linspace(0, 1, 10_001, dtype=torch.float64)).diff() >= 0).any():
            raise ValueError("the interpolated log-SNR does not decrease strictly: choose closer schedules")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        start, end = self.start.log_snr(t), self.end.log_snr(t)
        # At the ends one weight is 0, and the log-SNR that it multiplies may be infinite.
        return torch.where(t <= 0, start, torch.where(t >= 1, end, (1 - t) * start + t * end))

    def time(self, log_snr: Tensor) -> Tensor:
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):  # bisection, to the last bit
            middle = (low + high) / 2
            before = self.log_snr(middle) > log_snr
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        time = torch.where(log_snr == torch.inf, low, high)
        last = self.end.log_snr(torch.ones_like(log_snr))
        return torch.where(log_snr < last, self.end.time(log_snr), time)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        change = self.end.log_snr(t) - self.start.log_snr(t)
        end = self.end.log_snr_rate(t)
        return torch.where((t > 1) | end.isinf(), end, change + (1 - t) * self.start.log_snr_rate(t) + t * end)

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        return self.sigma(t) ** 2 * self.log_snr_rate(t) / 2
