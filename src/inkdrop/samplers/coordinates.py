"""Variables in which the probability-flow ODE is an integral.

With `y = x / scale` the flow is `dy/dtau = f`, where f is a mix of the estimates of x_0 and of eps. A method is a
coordinate, a rule for the integral (`quadrature.py`), and where it looks at the network. tau is a function of half the
log-SNR, `l = log(alpha / sigma)`, alone.
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
from inkdrop.samplers.base import shares
from inkdrop.schedules import Point


class Coordinate(ABC):
    """`x = scale y`, `dy/dtau = p x + q x_0`.

    Where scale or tau is not finite at an end of a move, which `regular` tells, `constant` is the move of order 1.
    It never changes, nor does a rule: the numbers of a move are found once for both.
    """

    @abstractmethod
    def scale(self, point: Point) -> float:
        """x / y at this point."""

    @abstractmethod
    def tau(self, half: float) -> float:
        """The variable of integration at half the log-SNR, which may be infinite."""

    @abstractmethod
    def half(self, tau: float) -> float:
        """Half the log-SNR at tau: the inverse."""

    @abstractmethod
    def rate(self, half: float) -> float:
        """d tau / d half."""

    def rate_of_share(self, share: float) -> float:
        """d tau / d share, where share = sigma / (alpha + sigma) lies between 0 and 1."""
        return -self.rate(math.log1p(-share) - math.log(share)) / (share * (1 - share))

    @abstractmethod
    def weights(self, point: Point) -> tuple[float, float]:
        """(p, q) of the slope `p x + q x_0`; needs sigma > 0."""

    def slope(self, x: Tensor, x_0: Tensor, point: Point) -> Tensor:
        """dy/dtau (B, *) at x (B, *), where x_0 is the estimate."""
        p, q = self.weights(point)
        return torch.mul(x_0, q).add_(x, alpha=p)

    def regular(self, now: Point, next: Point) -> bool:
        """Whether scale and tau are finite at both ends."""
        return True

    def constant(self, now: Point, next: Point) -> tuple[float, float]:
        """Ratio and share of the move `ratio x + share x_0` if x_0 is the data, also where alpha = 0 or sigma = 0."""
        return shares(now, next)[:2]

    def first(self, x: Tensor, x_0: Tensor, now: Point, next: Point) -> Transition:
        """That move."""
        ratio, share = self.constant(now, next)
        return Transition(torch.mul(x, ratio).add_(x_0, alpha=share), self.std(now, next))

    def std(self, now: Point, next: Point) -> float:
        """Standard deviation of what is random in the move."""
        return 0.0

    @property
    def deterministic(self) -> bool:
        """Whether that is always 0."""
        return True


class Noise(Coordinate):
    """`y = x / alpha`, `tau = sigma / alpha`, slope eps. Source: Song et al. 2021, arXiv 2010.02502, equation 14."""

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
    """`y = x / sigma`, `tau = alpha / sigma`, slope x_0; with eta > 0 a reverse SDE with more or less noise.

    `scale = sigma^(1 + eta) / alpha^eta`, `tau = (alpha / sigma)^(1 + eta)`, `std = s' sqrt(1 - exp(-2 eta (l' - l)))`.
    At eta = 1 one step of order 1 is q(x_s | x_t, x_0). Source: Lu et al. 2022, arXiv 2211.01095, sections 4 and 5.
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
    """`y = x / (alpha + sigma)`, `tau = sigma / (alpha + sigma)`, slope eps - x_0.

    Finite at both ends of every schedule. On the straight path of flow matching it is x over t itself. Source: Liu et
    al. 2023, arXiv 2209.03003, section 3.
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
    """`y = x / r`, `r^2 = alpha^2 + sigma^2`, `tau = atan2(sigma, alpha)`, slope v = (alpha eps - sigma x_0) / r.

    Finite at both ends of every schedule. Source: Salimans and Ho 2022, arXiv 2202.00512, appendix D.
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
