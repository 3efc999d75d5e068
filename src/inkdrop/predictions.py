"""Predictions: the meaning of the output F of a network in `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple

from annotated_types import Gt
from torch import Tensor

from inkdrop.schedules import Point, Scalar, Schedule, over


class Coefficients(NamedTuple):
    """The coefficients of `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`, floats or tensors (B)."""

    c_skip: Scalar
    c_out: Scalar
    c_in: Scalar
    c_noise: Scalar


class Prediction(ABC):
    """The relation between the output F of a network, x_0 and eps.

    Both directions are closed forms, so that neither divides by a scale that vanishes at one end of time. They use only
    `+ - * / **` and therefore work on tensors (B) and on floats.
    """

    @abstractmethod
    def coefficients(self, point: Point) -> Coefficients:
        """Returns the coefficients that convert F to x_0."""

    @abstractmethod
    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        """Returns the weights (u, w) of the target `F* = u x_0 + w eps`."""

    def check(self, schedule: Schedule) -> None:
        """Raises `ValueError` if this prediction cannot recover x_0 at t = 1 of this schedule."""
        try:
            self.coefficients(schedule.points([1.0])[0])
        except ZeroDivisionError:
            raise ValueError(
                f"{type(self).__name__} cannot recover x_0 at t = 1, where {type(schedule).__name__} has alpha = 0: "
                "choose prediction=flow, prediction=v or prediction=data"
            ) from None

    def target(self, x_0: Tensor, eps: Tensor, point: Point) -> Tensor:
        """Returns the target of F, `F* = u x_0 + w eps`, (B, *)."""
        u, w = (over(weight, x_0) for weight in self.target_weights(point))
        return u * x_0 + w * eps


class NoisePrediction(Prediction):
    """Noise prediction, F = eps, which cannot recover x_0 where alpha = 0.

    Source: Ho et al. 2020, arXiv 2006.11239.
    """

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(1 / point.alpha, -point.sigma / point.alpha, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


class DataPrediction(Prediction):
    """Data prediction, F = x_0."""

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(0.0, 1.0, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0


class VPrediction(Prediction):
    """v-prediction, F = alpha eps - sigma x_0, which is stable at both ends of time.

    Source: Salimans and Ho 2022, arXiv 2202.00512, for alpha^2 + sigma^2 = 1.
    """

    def coefficients(self, point: Point) -> Coefficients:
        power = point.alpha * point.alpha + point.sigma * point.sigma
        return Coefficients(point.alpha / power, -point.sigma / power, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return -point.sigma, point.alpha


class FlowPrediction(Prediction):
    """Flow prediction, F = eps - x_0, the velocity dx_t/dt of the straight path.

    Source: Lipman et al. 2023, arXiv 2210.02747.
    """

    def coefficients(self, point: Point) -> Coefficients:
        total = point.alpha + point.sigma
        return Coefficients(1 / total, -point.sigma / total, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


class ScorePrediction(Prediction):
    """Score prediction, F = -eps / sigma, the score of q(x_t | x_0); its mean given x_t is the score of x_t.

    Its target is unbounded near the data: `weighting=simple` is the published loss. Source: Song et al. 2021, arXiv
    2011.13456, equation 7.
    """

    def coefficients(self, point: Point) -> Coefficients:
        return Coefficients(1 / point.alpha, point.sigma * point.sigma / point.alpha, 1.0, point.c_noise)

    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / point.sigma


class KarrasPrediction(Prediction):
    """The preconditioning of EDM: input and target of F have unit variance if the data have the std `sigma_data`.

    With s = sigma_data and `d = sigma^2 + alpha^2 s^2`: `c_skip = alpha s^2 / d`, `c_out = sigma s / sqrt(d)`,
    `c_in = 1 / sqrt(d)`. For alpha = 1 this is that of EDM, and `schedule=edm` has its c_noise. Source: Karras et al.
    2022, arXiv 2206.00364, table 1, for x_t / alpha and sigma / alpha.
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
