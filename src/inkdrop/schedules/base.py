"""What every noise schedule promises: `x_t = alpha(t) x_0 + sigma(t) eps`, t in [0, 1], 0 = data, 1 = noise.

Times are float64 tensors on the CPU, of shape (B), or Python floats inside a `Point`. Their arithmetic is therefore
never done in the precision of the network, and a sampling loop never waits for the device to read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from inkdrop.randomness import sent

Scalar: TypeAlias = float | Tensor


class Point(NamedTuple):
    """A time with the values of the schedule there: Python floats in sampling, tensors (B) in training."""

    t: Scalar
    alpha: Scalar
    sigma: Scalar
    half: Scalar  # half of the log-SNR, log(alpha / sigma); infinite at the ends
    c_noise: Scalar  # the time as the network receives it


def over(value: Scalar, x: Tensor) -> Scalar:
    """Reshapes a tensor (B) to (B, 1, ..., 1) of x's type, to multiply `x` (B, *); a float is returned as it is."""
    if isinstance(value, Tensor):
        return sent(value, x.device, x.dtype).reshape(-1, *(1,) * (x.dim() - 1))
    return value


class Schedule(ABC):
    """Scales of signal and noise whose log-SNR `2 log(alpha / sigma)` decreases strictly in t.

    `t_min` is the smallest time at which a network is trained or called. `num_timesteps` is the number of discrete
    steps, or None if time is continuous.
    """

    t_min: float = 1e-3
    num_timesteps: int | None = None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Returns the scale of the signal, (B) -> (B)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Returns the scale of the noise, (B) -> (B)."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the time at which the log-SNR has this value, the inverse of `log_snr`, (B) -> (B)."""

    @abstractmethod
    def log_snr_rate(self, t: Tensor) -> Tensor:
        """Returns the derivative of the log-SNR with respect to t, which is negative, (B) -> (B)."""

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """Computes the derivative of log(alpha) with respect to t by automatic differentiation, (B) -> (B).

        It is -inf where alpha = 0. Raises `ValueError` if alpha is not constant but has no gradient.
        """
        with torch.inference_mode(False), torch.enable_grad():
            t = t.detach().clone().requires_grad_()
            alpha = self.alpha(t)
            if alpha.requires_grad:
                (rate,) = torch.autograd.grad(alpha.log().sum(), t)
                return torch.where(alpha == 0, -torch.inf, rate)
        if self.alpha(torch.linspace(0, 1, 9, dtype=torch.float64)).diff().any():
            raise ValueError(f"the alpha of {type(self).__name__} has no gradient: override its log_alpha_rate")
        return torch.zeros_like(alpha)

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns `2 log(alpha / sigma)`, +inf where sigma = 0 and -inf where alpha = 0, (B) -> (B)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def c_noise(self, t: Tensor) -> Tensor:
        """Returns the time as the network receives it: `1000 t`, the range of sinusoidal embeddings, (B) -> (B)."""
        return 1000 * t

    def snap(self, t: float) -> float:
        """Returns the nearest time at which the network was trained: t itself unless the schedule is discrete."""
        return t

    def point(self, t: Tensor) -> Point:
        """Returns the values of the schedule at times (B), as tensors (B)."""
        t = t.to("cpu", torch.float64)
        return Point(t, self.alpha(t), self.sigma(t), self.log_snr(t) / 2, self.c_noise(t))

    def points(self, times: Iterable[float]) -> list[Point]:
        """Returns a point of Python floats for each time."""
        columns = self.point(torch.tensor(list(times), dtype=torch.float64))
        return [Point(*row) for row in zip(*(torch.as_tensor(column).tolist() for column in columns), strict=True)]
