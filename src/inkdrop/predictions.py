"""What the network puts out, written as `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

from annotated_types import Gt
from torch import Tensor

from inkdrop.schedules import Point, Scalar, Schedule, over


class Coefficients(NamedTuple):
    """The four numbers of `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`, floats or tensors (B)."""

    c_skip: Scalar
    c_out: Scalar
    c_in: Scalar
    c_noise: Scalar


class Prediction(ABC):
    """What F stands for.

    Both directions are closed forms, so that neither divides by a scale that vanishes at one end of time. They use
    `+ - * / **` only and serve tensors (B) and floats alike.
    """

    @abstractmethod
    def coefficients(self, point: Point) -> Coefficients:
        """From F to x_0."""

    @abstractmethod
    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        """From x_0 and eps to F: the weights (u, w) of `F* = u x_0 + w eps`."""

    def check(self, schedule: Schedule) -> None:
        """`ValueError` if it cannot recover x_0 at t = 1 of this schedule."""
        try:
            self.coefficients(schedule.points([1.0])[0])
        except ZeroDivisionError:
            raise ValueError(
                f"{type(self).__name__} cannot tell x_0 at t = 1, where {type(schedule).__name__} has alpha = 0: "
                "choose prediction=flow, prediction=v or prediction=data"
            ) from None

    def target(self, x_0: Tensor, eps: Tensor, point: Point) -> Tensor:
        """What F should have been: `F* = u x_0 + w eps`, (B, *)."""
        u, w = (over(weight, x_0) for weight in self.target_weights(point))
        return u * x_0 + w * eps


class NoisePrediction(Prediction):
    """F = eps. It cannot tell x_0 where alpha = 0. Source: Ho et al. 2020, arXiv 2006.11239."""

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(1 / point.alpha, -point.sigma / point.alpha, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


class DataPrediction(Prediction):
    """F = x_0."""

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(0.0, 1.0, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0


class VPrediction(Prediction):
    """F = alpha eps - sigma x_0. Source: Salimans and Ho 2022, arXiv 2202.00512, for alpha^2 + sigma^2 = 1."""

    def coefficients(self, point: Point) -> Coefficients:
        power = point.alpha * point.alpha + point.sigma * point.sigma
        return Coefficients(point.alpha / power, -point.sigma / power, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return -point.sigma, point.alpha


class FlowPrediction(Prediction):
    """F = eps - x_0, the velocity dx_t/dt of the straight path. Source: Lipman et al. 2023, arXiv 2210.02747."""

    def coefficients(self, point: Point) -> Coefficients:
        total = point.alpha + point.sigma
        return Coefficients(1 / total, -point.sigma / total, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


class ScorePrediction(Prediction):
    """F = -eps / sigma, the score of q(x_t | x_0), whose mean given x_t is the score of x_t.

    It has no bounded target near the data: `weighting=simple` gives the published loss. Source: Song et al. 2021, arXiv
    2011.13456, equation 7.
    """

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(1 / point.alpha, point.sigma * point.sigma / point.alpha, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / point.sigma


class KarrasPrediction(Prediction):
    """F with unit variance of input and target at every noise level, for data of standard deviation `sigma_data`.

    With s = sigma_data and `d = sigma^2 + alpha^2 s^2`: `c_skip = alpha s^2 / d`, `c_out = sigma s / sqrt(d)`,
    `c_in = 1 / sqrt(d)`. For alpha = 1 this is EDM's, and `schedule=edm` gives its c_noise. Source: Karras et al. 2022,
    arXiv 2206.00364, table 1, for x_t / alpha and sigma / alpha.
    """

    def __init__(self, sigma_data: Annotated[float, Gt(0)] = 0.5):
        self.sigma_data = sigma_data

    def _power(self, point: Point) -> Scalar:
        return point.sigma * point.sigma + point.alpha * point.alpha * self.sigma_data**2

    def coefficients(self, point: Point) -> Coefficients:
        power = self._power(point)
        scale: Scalar = power**-0.5
        return Coefficients(
            point.alpha * self.sigma_data**2 / power, point.sigma * self.sigma_data * scale, scale, point.c_noise
        )

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        scale = self._power(point) ** -0.5
        return point.sigma / self.sigma_data * scale, -point.alpha * self.sigma_data * scale
