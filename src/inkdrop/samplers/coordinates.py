"""Variables in which the probability-flow ODE is an integral.

With `y = x / scale` the flow is `dy/dtau = f`, where f is a linear combination of the estimates of x_0 and of eps. A
method is a coordinate, a rule for the integral (`quadrature.py`), and a choice of points at which the network is
evaluated. tau is a function of half the log-SNR, `l = log(alpha / sigma)`, alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.noises.kernels import shares
from inkdrop.schedules import Point


class Coordinate(ABC):
    """The variables y and tau of an ODE, `x = scale y`, `dy/dtau = p x + q x_0`.

    `regular` says whether scale and tau are finite at both ends of a move; elsewhere `constant` is the move of order 1.
    Coordinates and rules are immutable, so that the coefficients of a move are computed once for each pair.
    """

    @abstractmethod
    def scale(self, point: Point) -> float:
        """Returns x / y at this point."""

    @abstractmethod
    def tau(self, half: float) -> float:
        """Returns the variable of integration at a half log-SNR, which may be infinite."""

    @abstractmethod
    def half(self, tau: float) -> float:
        """Returns the half log-SNR at tau, the inverse of `tau`."""

    @abstractmethod
    def rate(self, half: float) -> float:
        """Returns d tau / d half."""

    def rate_of_share(self, share: float) -> float:
        """Returns d tau / d share, where share = sigma / (alpha + sigma) is between 0 and 1."""
        return -self.rate(math.log1p(-share) - math.log(share)) / (share * (1 - share))

    @abstractmethod
    def weights(self, point: Point) -> tuple[float, float]:
        """Returns (p, q) of the slope `p x + q x_0`; sigma must be above 0."""

    def slope(self, x: Tensor, x_0: Tensor, point: Point) -> Tensor:
        """Returns dy/dtau (B, *) at x (B, *) for the estimate x_0 (B, *)."""
        p, q = self.weights(point)
        return torch.mul(x_0, q).add_(x, alpha=p)

    def regular(self, now: Point, next: Point) -> bool:
        """Returns whether scale and tau are finite at both ends."""
        return True

    def constant(self, now: Point, next: Point) -> tuple[float, float]:
        """Returns (ratio, share) of the move `ratio x + share x_0` for a constant x_0, also at alpha or sigma = 0."""
        return shares(now, next)[:2]

    def first(self, x: Tensor, x_0: Tensor, now: Point, next: Point) -> Transition:
        """Returns the law of that move, which is of order 1."""
        ratio, share = self.constant(now, next)
        return Transition(torch.mul(x, ratio).add_(x_0, alpha=share), self.std(now, next))

    def std(self, now: Point, next: Point) -> float:
        """Returns the standard deviation of the noise of the move."""
        return 0.0

    @property
    def deterministic(self) -> bool:
        """Whether moves have no noise."""
        return True


class Noise(Coordinate):
    """The coordinate whose slope is eps, `y = x / alpha`, `tau = sigma / alpha`.

    Source: Song et al. 2021, arXiv 2010.02502, equation 14.
    """

    def scale(self, point: Point) -> float:
        return float(point.alpha)

    def tau(self, half: float) -> float:
        return math.exp(-half)

    def half(self, tau: float) -> float:
        return -math.log(tau) if tau > 0 else math.inf

    def rate(self, half: float) -> float:
        return -math.exp(-half)

    def weights(self, point: Point) -> tuple[float, float]:
        return 1 / float(point.sigma), -float(point.alpha / point.sigma)

    def regular(self, now: Point, next: Point) -> bool:
        return bool(now.alpha > 0 and next.alpha > 0)


@dataclass(frozen=True, eq=False)
class Data(Coordinate):
    """The coordinate whose slope is x_0, `y = x / sigma`, `tau = alpha / sigma`; with eta > 0 that of a reverse SDE.

    `scale = sigma^(1 + eta) / alpha^eta`, `tau = (alpha / sigma)^(1 + eta)`, `std = s' sqrt(1 - exp(-2 eta (l' - l)))`.
    eta scales the noise: at eta = 1 a step of order 1 is q(x_s | x_t, x_0). Source: Lu et al. 2022, arXiv 2211.01095,
    sections 4 and 5.
    """

    eta: Annotated[float, Ge(0)] = 0.0

    def scale(self, point: Point) -> float:
        return float(point.sigma) * (math.exp(-self.eta * point.half) if self.eta else 1.0)

    def tau(self, half: float) -> float:
        return math.exp((1 + self.eta) * half)

    def half(self, tau: float) -> float:
        return math.log(tau) / (1 + self.eta) if tau > 0 else -math.inf

    def rate(self, half: float) -> float:
        return (1 + self.eta) * math.exp((1 + self.eta) * half)

    def weights(self, point: Point) -> tuple[float, float]:
        return 0.0, 1.0

    def slope(self, x: Tensor, x_0: Tensor, point: Point) -> Tensor:
        return x_0

    def regular(self, now: Point, next: Point) -> bool:
        return bool(next.sigma > 0 and (self.eta == 0 or now.alpha > 0))

    def constant(self, now: Point, next: Point) -> tuple[float, float]:
        ratio = next.sigma / now.sigma * (math.exp(self.eta * (now.half - next.half)) if self.eta else 1.0)
        return float(ratio), float(next.alpha - now.alpha * ratio)

    def std(self, now: Point, next: Point) -> float:
        return float(next.sigma) * math.sqrt(-math.expm1(2 * self.eta * (now.half - next.half))) if self.eta else 0.0

    @property
    def deterministic(self) -> bool:
        return self.eta == 0


class Straight(Coordinate):
    """The coordinate whose slope is eps - x_0, `y = x / (alpha + sigma)`, `tau = sigma / (alpha + sigma)`.

    It is finite at both ends of every schedule. On the straight path of flow matching y is x and tau is t. Source: Liu
    et al. 2023, arXiv 2209.03003, section 3.
    """

    def scale(self, point: Point) -> float:
        return float(point.alpha + point.sigma)

    def tau(self, half: float) -> float:
        return 1 / (1 + math.exp(half)) if half < 700 else 0.0

    def half(self, tau: float) -> float:
        if 0 < tau < 1:
            return math.log1p(-tau) - math.log(tau)
        return math.inf if tau <= 0 else -math.inf

    def rate(self, half: float) -> float:
        tau = self.tau(half)
        return -tau * (1 - tau)

    def weights(self, point: Point) -> tuple[float, float]:
        sigma = float(point.sigma)
        return 1 / sigma, -(float(point.alpha) / sigma + 1)


class Angle(Coordinate):
    """The coordinate whose slope is v = (alpha eps - sigma x_0) / r, `y = x / r`, `tau = atan2(sigma, alpha)`.

    `r^2 = alpha^2 + sigma^2`. It is finite at both ends of every schedule. Source: Salimans and Ho 2022, arXiv
    2202.00512, appendix D.
    """

    def scale(self, point: Point) -> float:
        return math.hypot(point.alpha, point.sigma)

    def tau(self, half: float) -> float:
        return math.atan(math.exp(-half)) if half > -700 else math.pi / 2

    def half(self, tau: float) -> float:
        if 0 < tau < math.pi / 2:
            return -math.log(math.tan(tau))
        return math.inf if tau <= 0 else -math.inf

    def rate(self, half: float) -> float:
        return -0.5 / math.cosh(half)

    def weights(self, point: Point) -> tuple[float, float]:
        r, sigma = math.hypot(point.alpha, point.sigma), float(point.sigma)
        return float(point.alpha) / (r * sigma), -r / sigma
