"""Discrete schedules, given by a list of betas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from inkdrop.schedules.base import Point, Schedule

Length = Annotated[int, Ge(1), Le(1_000_000)]


class Table(Schedule):
    """The discrete chain of DDPM, `alpha_bar_i = prod_{j <= i} (1 - beta_j)` at t = i / T.

    `alpha = sqrt(alpha_bar)`, `sigma = sqrt(1 - alpha_bar)`. Between the T steps `-log(alpha_bar)` is linear in t, so
    that a table can replace a continuous schedule anywhere; on the steps it is exact. The network receives the
    published index i - 1 in 0 ... T - 1. Raises `ValueError` if a beta is outside (0, 1). Source: Ho et al. 2020, arXiv
    2006.11239.
    """

    def __init__(self, betas: Tensor | list[float]):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.dim() != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a list of numbers above 0 and below 1: change them")
        self.betas: Tensor = betas
        self.num_timesteps: int = len(betas)
        self.t_min = 1 / self.num_timesteps
        # -log(alpha_bar) at t = 0, 1/T, ..., 1
        self._decay = torch.cat([betas.new_zeros(1), -torch.log1p(-betas).cumsum(0)])

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the index of the interval that ends at or after t, and `-log(alpha_bar)` at t."""
        position = t * self.num_timesteps
        left = ((position - 1e-9).ceil() - 1).clamp(0, self.num_timesteps - 1).long()
        return left, torch.lerp(self._decay.take(left), self._decay.take(left + 1), position - left)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns alpha, sigma and half the log-SNR from a single lookup in the table."""
        decay = self._interval(t)[1]
        power = -torch.expm1(-decay)
        return torch.exp(-decay / 2), power.sqrt(), -(decay + power.log()) / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self._scales(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        return self._scales(t)[1]

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * self._scales(t)[2]

    def point(self, t: Tensor) -> Point:
        t = t.to("cpu", torch.float64)
        return Point(t, *self._scales(t), self.c_noise(t))

    def time(self, log_snr: Tensor) -> Tensor:
        decay = torch.nn.functional.softplus(-log_snr)
        left = (torch.searchsorted(self._decay, decay) - 1).clamp(0, self.num_timesteps - 1)
        before, after = self._decay.take(left), self._decay.take(left + 1)
        return (left + (decay - before) / (after - before)) / self.num_timesteps

    def log_snr_rate(self, t: Tensor) -> Tensor:
        left, decay = self._interval(t)
        slope = (self._decay[left + 1] - self._decay[left]) * self.num_timesteps
        return slope / torch.expm1(-decay)

    def c_noise(self, t: Tensor) -> Tensor:
        return t * self.num_timesteps - 1

    def snap(self, t: float) -> float:
        return max(1, round(t * self.num_timesteps)) / self.num_timesteps


def linear_beta(
    num_timesteps: Length,
    beta_start: Annotated[float, Gt(0), Lt(1)],
    beta_end: Annotated[float, Gt(0), Lt(1)],
) -> Table:
    """Returns the discrete schedule with betas evenly spaced from `beta_start` to `beta_end`, that of DDPM.

    Raises `ValueError` unless `0 < beta_start <= beta_end < 1`. Source: Ho et al. 2020, arXiv 2006.11239, section 4
    (1000, 1e-4, 0.02).
    """
    _check_order(beta_start, beta_end)
    return Table(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))


def scaled_linear(
    num_timesteps: Length,
    beta_start: Annotated[float, Gt(0), Lt(1)],
    beta_end: Annotated[float, Gt(0), Lt(1)],
) -> Table:
    """Returns the discrete schedule with evenly spaced roots of the betas, as in Stable Diffusion.

    Its values there are (1000, 0.00085, 0.012). Raises `ValueError` unless `0 < beta_start <= beta_end < 1`. Source:
    Rombach et al. 2022, arXiv 2112.10752.
    """
    _check_order(beta_start, beta_end)
    return Table(torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64).square())


def sigmoid_beta(
    num_timesteps: Length,
    beta_start: Annotated[float, Gt(0), Lt(1)],
    beta_end: Annotated[float, Gt(0), Lt(1)],
) -> Table:
    """Returns the discrete schedule with `beta_i = beta_start + sigmoid(z_i) (beta_end - beta_start)`.

    The z are evenly spaced from -6 to 6. Raises `ValueError` unless `0 < beta_start <= beta_end < 1`. Source: Xu et al.
    2022, arXiv 2203.02923 (GeoDiff).
    """
    _check_order(beta_start, beta_end)
    rise = torch.linspace(-6, 6, num_timesteps, dtype=torch.float64).sigmoid()
    return Table(beta_start + rise * (beta_end - beta_start))


def sigmoid(
    num_timesteps: Length,
    start: float = -3.0,
    end: float = 3.0,
    temperature: Annotated[float, Gt(0)] = 1.0,
    max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
) -> Table:
    """Returns the discrete schedule whose alpha_bar falls along a sigmoid, for images of higher resolution.

    `alpha_bar(t) = (S(1) - S(t)) / (S(1) - S(0))`, `S(t) = sigmoid((start + t (end - start)) / tau)`.

    - `num_timesteps`: the number of steps T.
    - `start`, `end`: the arguments of the sigmoid at t = 0 and t = 1.
    - `temperature`: tau.
    - `max_beta`: the largest beta; larger ones are capped.

    Raises `ValueError` unless start < end. Source: Jabri et al. 2022, arXiv 2212.11972, appendix B.
    """
    if start >= end:
        raise ValueError(f"start={start} must be below end={end}: swap the two values")

    def rise(t: Tensor) -> Tensor:
        return torch.sigmoid((start + t * (end - start)) / temperature)

    one = torch.ones((), dtype=torch.float64)
    return _from_alpha_bar(lambda t: rise(one) - rise(t), num_timesteps, max_beta)


def sqrt(
    num_timesteps: Length,
    offset: Annotated[float, Gt(0), Lt(1)] = 1e-4,
    max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
) -> Table:
    """Returns the discrete schedule `alpha_bar(t) = 1 - sqrt(t + s)`, with much noise at the first step, for text.

    Source: Li et al. 2022, arXiv 2205.14217, appendix A (s = 1e-4).
    """
    return _from_alpha_bar(lambda t: (1 - (t + offset).sqrt()).clamp(min=0), num_timesteps, max_beta)


def cosine(
    num_timesteps: Length,
    offset: Annotated[float, Ge(0), Lt(1)] = 0.008,
    max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
) -> Table:
    """Returns the discrete cosine schedule, which removes signal more evenly than evenly spaced betas.

    `alpha_bar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2)`, with betas capped at `max_beta`.
    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17 (offset s = 0.008, cap 0.999).
    """
    return _from_alpha_bar(lambda t: torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2, num_timesteps, max_beta)


def _from_alpha_bar(alpha_bar: Callable[[Tensor], Tensor], num_timesteps: int, max_beta: float) -> Table:
    """Builds a table of betas `1 - alpha_bar(i / T) / alpha_bar((i - 1) / T)`, capped; constant factors cancel."""
    values = alpha_bar(torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64))
    return Table((1 - values[1:] / values[:-1]).clamp(max=max_beta))


def _check_order(beta_start: float, beta_end: float) -> None:
    if beta_start > beta_end:
        raise ValueError(f"beta_start={beta_start} must not exceed beta_end={beta_end}: swap the two values")
