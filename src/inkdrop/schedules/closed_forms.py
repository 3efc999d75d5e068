"""Continuous schedules in closed form."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from inkdrop.schedules.base import Schedule


class VP(Schedule):
    """The variance-preserving SDE with `beta(t) = beta_min + t (beta_max - beta_min)`, DDPM in continuous time.

    `alpha = exp(-B/2)`, `sigma = sqrt(1 - exp(-B))`, `B(t) = beta_min t + (beta_max - beta_min) t^2 / 2`. Raises
    `ValueError` if beta_min exceeds beta_max. Source: Song et al. 2021, arXiv 2011.13456, equation 33 (0.1, 20).
    """

    def __init__(
        self,
        beta_min: Annotated[float, Gt(0)] = 0.1,
        beta_max: Annotated[float, Gt(0)] = 20.0,
        t_min: Annotated[float, Gt(0), Lt(1)] = 1e-3,
    ):
        if beta_min > beta_max:
            raise ValueError(f"beta_min={beta_min} must not exceed beta_max={beta_max}: swap the two values")
        self.beta_min, self.beta_max, self.t_min = beta_min, beta_max, t_min

    def _decay(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._decay(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._decay(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        decay = torch.nn.functional.softplus(-log_snr)
        # This form of the quadratic root has no difference of nearly equal numbers.
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * decay).sqrt())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return (self.beta_min + t * (self.beta_max - self.beta_min)) / torch.expm1(-self._decay(t))


class LinearInterpolation(Schedule):
    """The straight path of flow matching and rectified flow: `alpha = 1 - t`, `sigma = t`.

    Source: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003 (there t = 0 is noise).
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


class SubVP(Schedule):
    """The sub-VP SDE, which has the alpha of VP with less noise, `sigma = 1 - exp(-B)`.

    `alpha = exp(-B/2)`, `alpha / sigma = 1 / (2 sinh(B/2))`, `B(t) = beta_min t + (beta_max - beta_min) t^2 / 2`.
    Raises `ValueError` if beta_min exceeds beta_max. Source: Song et al. 2021, arXiv 2011.13456, equation 34.
    """

    def __init__(
        self,
        beta_min: Annotated[float, Gt(0)] = 0.1,
        beta_max: Annotated[float, Gt(0)] = 20.0,
        t_min: Annotated[float, Gt(0), Lt(1)] = 1e-3,
    ):
        self._vp = VP(beta_min, beta_max, t_min)
        self.t_min = t_min

    def alpha(self, t: Tensor) -> Tensor:
        return self._vp.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self._vp.sigma(t) ** 2

    def time(self, log_snr: Tensor) -> Tensor:
        decay = 2 * torch.asinh(torch.exp(-log_snr / 2) / 2)
        return self._vp.time(-decay.expm1().log())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        # d log_snr / dB is -coth(B/2) here and 1 / expm1(-B) for VP; their ratio is 1 + exp(-B).
        return self._vp.log_snr_rate(t) * (1 + self._vp.alpha(t) ** 2)


class VE(Schedule):
    """The variance-exploding SDE: `alpha = 1`, `sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^(2t) - 1)`.

    Raises `ValueError` unless sigma_min < sigma_max. Source: Song et al. 2021, arXiv 2011.13456, equations 29 and 30,
    with the exact sigma(0) = 0.
    """

    def __init__(
        self,
        sigma_min: Annotated[float, Gt(0)] = 0.01,
        sigma_max: Annotated[float, Gt(0)] = 50.0,
        t_min: Annotated[float, Gt(0), Lt(1)] = 1e-5,
    ):
        _check_sigmas(sigma_min, sigma_max)
        self.sigma_min, self.t_min = sigma_min, t_min
        self._growth = 2 * math.log(sigma_max / sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(self._growth * t).sqrt()

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-log_snr) / self.sigma_min**2) / self._growth

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return self._growth / torch.expm1(-self._growth * t)


class EDM(Schedule):
    """The schedule of EDM, noise added to unscaled data: `alpha = 1`, `sigma = sigma_max t^rho`.

    The network receives `log(sigma) / 4`. Even times from 1 to `t_min = (sigma_min / sigma_max)^(1 / rho)`, which are
    `time_grid=linspace`, are the published steps. Raises `ValueError` unless sigma_min < sigma_max. Source: Karras et
    al. 2022, arXiv 2206.00364, equation 5, table 1.
    """

    def __init__(
        self,
        sigma_min: Annotated[float, Gt(0)] = 0.002,
        sigma_max: Annotated[float, Gt(0)] = 80.0,
        rho: Annotated[float, Gt(0)] = 7.0,
    ):
        _check_sigmas(sigma_min, sigma_max)
        self.sigma_max, self.rho = sigma_max, rho
        self.t_min = (sigma_min / sigma_max) ** (1 / rho)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t**self.rho

    def time(self, log_snr: Tensor) -> Tensor:
        return (torch.exp(-log_snr / 2) / self.sigma_max) ** (1 / self.rho)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return -2 * self.rho / t

    def c_noise(self, t: Tensor) -> Tensor:
        return self.sigma(t).log() / 4


class Laplace(Schedule):
    """A variance-preserving schedule whose log-SNR has a Laplace density over uniform t, centred at `location`.

    `log_snr = location + scale log(2 - 2t)` for t > 1/2 and `location - scale log(2t)` below. Times near 0 still have
    much noise: sample with `time_grid=log_snr`. Source: Hang et al. 2024, arXiv 2407.03297, table 1 (0, 0.5).
    """

    def __init__(
        self,
        location: float = 0.0,
        scale: Annotated[float, Gt(0)] = 0.5,
        t_min: Annotated[float, Gt(0), Lt(1)] = 1e-8,
    ):
        self.location, self.scale, self.t_min = location, scale, t_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        return self.location + self.scale * torch.where(t > 0.5, (2 - 2 * t).log(), -(2 * t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        distance = (log_snr - self.location) / self.scale
        tail = torch.exp(-distance.abs()) / 2
        return torch.where(distance < 0, 1 - tail, tail)

    def log_snr_rate(self, t: Tensor) -> Tensor:
        return -self.scale / torch.minimum(t, 1 - t)


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if sigma_min >= sigma_max:
        raise ValueError(f"sigma_min={sigma_min} must be below sigma_max={sigma_max}: swap the two values")
