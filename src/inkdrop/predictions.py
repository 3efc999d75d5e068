"""What the network puts out, written as `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from inkdrop.schedules import Point, Scalar, over


class Coefficients(NamedTuple):
    """The four numbers of `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`, floats or tensors (B)."""

    c_skip: Scalar
    c_out: Scalar
    c_in: Scalar
    c_noise: Scalar


class Prediction(ABC):
    """What F stands for.

    Both directions are closed forms, so that neither divides by a scale that vanishes at one end of time. They use
    `+ - * /` only and serve tensors (B) and floats alike.
    """

    @abstractmethod
    def coefficients(self, point: Point) -> Coefficients:
        """From F to x_0."""

    @abstractmethod
    def target_weights(self, point: Point) -> tuple[Scalar, Scalar]:
        """From x_0 and eps to F: the weights (u, w) of `F* = u x_0 + w eps`."""

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
