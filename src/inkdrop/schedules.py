"""How much signal and how much noise: `x_t = alpha(t) x_0 + sigma(t) eps`, t in [0, 1], 0 = data, 1 = noise.

Times are float64 tensors on the CPU, of shape (B), or Python floats inside a `Point`. They are few, so their arithmetic
is never done in the number format of the network, and a sampling loop never waits for the device to hear of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, NamedTuple, TypeAlias

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

Scalar: TypeAlias = float | Tensor


class Point(NamedTuple):
    """A time with all that follows from it: Python floats in sampling, tensors (B) in training."""

    t: Scalar
    alpha: Scalar
    sigma: Scalar
    half: Scalar  # half of the log-SNR, log(alpha / sigma); infinite at the ends
    c_noise: Scalar  # the time as the network is told it


def over(value: Scalar, x: Tensor) -> Scalar:
    """`value` shaped to multiply `x` (B, *): a tensor (B) becomes (B, 1, ..., 1) of x's type; a float stays."""
    if isinstance(value, Tensor):
        return value.to(x.device, x.dtype, non_blocking=True).reshape(-1, *(1,) * (x.dim() - 1))
    return value


class Schedule(ABC):
    """Signal and noise scales whose log-SNR `2 log(alpha / sigma)` falls strictly with t.

    `t_min` is the smallest time at which a network is trained or called.
    """

    t_min: float = 1e-3

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the signal, (B) -> (B)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise, (B) -> (B)."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which the log-SNR has this value: the inverse of `log_snr`, (B) -> (B)."""

    @abstractmethod
    def log_snr_rate(self, t: Tensor) -> Tensor:
        """Derivative of the log-SNR with respect to t, negative, (B) -> (B)."""

    def log_snr(self, t: Tensor) -> Tensor:
        """`2 log(alpha / sigma)`, +inf where sigma = 0 and -inf where alpha = 0, (B) -> (B)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def c_noise(self, t: Tensor) -> Tensor:
        """The time as the network is told it: `1000 t`, the range that sinusoidal embeddings are made for."""
        return 1000 * t

    def snap(self, t: float) -> float:
        """The nearest time at which the network was trained: any, unless the schedule is a table."""
        return t

    def point(self, t: Tensor) -> Point:
        """All that follows from times (B), as tensors (B)."""
        t = t.to("cpu", torch.float64)
        return Point(t, self.alpha(t), self.sigma(t), self.log_snr(t) / 2, self.c_noise(t))

    def points(self, times: Iterable[float]) -> list[Point]:
        """A point of Python floats for each time."""
        columns = torch.stack([torch.as_tensor(c) for c in self.point(torch.tensor(list(times), dtype=torch.float64))])
        return [Point(*row) for row in columns.T.tolist()]


class Table(Schedule):
    """The discrete chain of DDPM: `alpha_bar_i = prod_{j <= i} (1 - beta_j)`, met at t = i / T.

    `alpha = sqrt(alpha_bar)`, `sigma = sqrt(1 - alpha_bar)`. Between the T steps `-log(alpha_bar)` is linear in t, so
    that a table can be used wherever a continuous schedule can; on the steps it is exact. The network is told the
    published index i - 1 in 0 ... T - 1. `ValueError` if a beta is outside (0, 1). Source: Ho et al. 2020, arXiv
    2006.11239.
    """

    def __init__(self, betas: Tensor | list[float]):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.dim() != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a list of numbers between 0 and 1, both excluded")
        self.num_timesteps = len(betas)
        self.t_min = 1 / self.num_timesteps
        # -log(alpha_bar) at t = 0, 1/T, ..., 1
        self._decay = torch.cat([betas.new_zeros(1), -torch.log1p(-betas).cumsum(0)])

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the interval that ends at or after t, and the value of `-log(alpha_bar)` at t."""
        position = t * self.num_timesteps
        left = (position.ceil() - 1).clamp(0, self.num_timesteps - 1).long()
        return left, torch.lerp(self._decay[left], self._decay[left + 1], position - left)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._interval(t)[1] / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._interval(t)[1]))

    def time(self, log_snr: Tensor) -> Tensor:
        decay = torch.nn.functional.softplus(-log_snr)
        left = (torch.searchsorted(self._decay, decay) - 1).clamp(0, self.num_timesteps - 1)
        return (left + (decay - self._decay[left]) / (self._decay[left + 1] - self._decay[left])) / self.num_timesteps

    def log_snr_rate(self, t: Tensor) -> Tensor:
        left, decay = self._interval(t)
        slope = (self._decay[left + 1] - self._decay[left]) * self.num_timesteps
        return slope / torch.expm1(-decay)

    def c_noise(self, t: Tensor) -> Tensor:
        return t * self.num_timesteps - 1

    def snap(self, t: float) -> float:
        return max(1, round(t * self.num_timesteps)) / self.num_timesteps


def linear_beta(
    num_timesteps: Annotated[int, Ge(1)],
    beta_start: Annotated[float, Gt(0), Lt(1)],
    beta_end: Annotated[float, Gt(0), Lt(1)],
) -> Table:
    """The table with betas evenly spaced from `beta_start` to `beta_end`.

    `ValueError` unless `0 < beta_start <= beta_end < 1`. Source: Ho et al. 2020, section 4 (1000, 1e-4, 0.02).
    """
    if beta_start > beta_end:
        raise ValueError(f"beta_start={beta_start} exceeds beta_end={beta_end}: noise must grow, exchange the two")
    return Table(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))


def cosine(
    num_timesteps: Annotated[int, Ge(1)],
    offset: Annotated[float, Ge(0), Lt(1)] = 0.008,
    max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
) -> Table:
    """The table with `alpha_bar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2)`, betas capped.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17 (offset s = 0.008, cap 0.999).
    """
    t = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return Table((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))


class VP(Schedule):
    """The variance-preserving diffusion with `beta(t) = beta_min + t (beta_max - beta_min)`.

    `alpha = exp(-B/2)`, `sigma = sqrt(1 - exp(-B))`, `B(t) = beta_min t + (beta_max - beta_min) t^2 / 2`. `ValueError`
    if beta_min exceeds beta_max. Source: Song et al. 2021, arXiv 2011.13456, equation 33 (0.1, 20).
    """

    def __init__(
        self,
        beta_min: Annotated[float, Gt(0)] = 0.1,
        beta_max: Annotated[float, Gt(0)] = 20.0,
        t_min: Annotated[float, Gt(0), Lt(1)] = 1e-3,
    ):
        if beta_min > beta_max:
            raise ValueError(f"beta_min={beta_min} exceeds beta_max={beta_max}: noise must grow, exchange the two")
        self.beta_min, self.beta_max, self.t_min = beta_min, beta_max, t_min

    def _decay(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._decay(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._decay(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        decay = torch.nn.functional.softplus(-log_snr)
        # The root of the quadratic written without a difference of nearly equal numbers.
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * decay).sqrt())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return (self.beta_min + t * (self.beta_max - self.beta_min)) / torch.expm1(-self._decay(t))


class LinearInterpolation(Schedule):
    """The straight path of flow matching and rectified flow: `alpha = 1 - t`, `sigma = t`.

    Source: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003 (there t runs the other way).
    """

    def __init__(self, t_min: Annotated[float, Gt(0), Lt(1)] = 1e-3):
        self.t_min = t_min

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return -2 / (t * (1 - t))
