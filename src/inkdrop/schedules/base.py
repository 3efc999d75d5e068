"""How much signal and how much noise: `x_t = alpha(t) x_0 + sigma(t) eps`, t in [0, 1], 0 = data, 1 = noise.

Times are float64 tensors on the CPU, of shape (B), or Python floats inside a `Point`. They are few, so their arithmetic
is never done in the number format of the network, and a sampling loop never waits for the device to hear of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
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

    `t_min` is the smallest time at which a network is trained or called, `num_timesteps` the length of a chain, or
    None where time is continuous.
    """

    t_min: float = 1e-3
    num_timesteps: int | None = None

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

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """Derivative of log(alpha) with respect to t, -inf where alpha = 0, by automatic differentiation, (B) -> (B).

        `ValueError` if alpha changes and yet has no gradient.
        """
        with torch.inference_mode(False), torch.enable_grad():
            t = t.detach().clone().requires_grad_()
            alpha = self.alpha(t)
            if alpha.requires_grad:
                (rate,) = torch.autograd.grad(alpha.log().sum(), t)
                return torch.where(alpha == 0, -torch.inf, rate)
        if self.alpha(torch.linspace(0, 1, 9, dtype=torch.float64)).diff().any():
            raise ValueError(f"{type(self).__name__} has no gradient of alpha: give it a log_alpha_rate of its own")
        return torch.zeros_like(alpha)

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
        columns = self.point(torch.tensor(list(times), dtype=torch.float64))
        return [Point(*row) for row in zip(*(torch.as_tensor(column).tolist() for column in columns), strict=True)]
