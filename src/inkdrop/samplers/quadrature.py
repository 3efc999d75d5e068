"""Quadrature rules, which approximate the integral of the slope over a move from the slopes at a few points."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import takewhile, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inkdrop.constraints import Transition
from inkdrop.samplers.base import History
from inkdrop.samplers.coordinates import Coordinate
from inkdrop.schedules import Point


class Rule(ABC):
    """Weights of the slopes at given points in the integral of the slope over tau.

    The slope is interpolated by a polynomial in the variable `abscissa`; points where it is infinite are left out.
    `corrects` says whether one of the points may be the end of the move.
    """

    corrects: bool = True

    @abstractmethod
    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        """Returns the variable at a half log-SNR."""

    @abstractmethod
    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        """Returns the half log-SNR at a value of the variable, the inverse of `abscissa`."""

    def covers(self, start: float, end: float) -> bool:
        """Returns whether a move between these values of the variable has weights; otherwise it is of order 1."""
        return math.isfinite(start) and math.isfinite(end)

    @abstractmethod
    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        """Returns the weights in `integral = sum_j weights_j f(nodes_j)`, for distinct values of the variable."""


class InTau(Rule):
    """The exact integral of the polynomial in tau through all points, as in Adams methods for steps of any lengths."""

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return coordinate.tau(half)

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        return coordinate.half(abscissa)

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        return integrals(_constant, start, end, nodes, 1 + len(nodes) // 2)


class InLogSNR(Rule):
    """The exact integral over tau of the polynomial in the log-SNR, as in DEIS and DPM-Solver.

    Sources: Zhang and Chen 2023, arXiv 2204.13902; Lu et al. 2022, arXiv 2206.00927.
    """

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return half

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        return abscissa

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        return integrals(coordinate.rate, start, end, nodes, 12)


class ToTheEnd(Rule):
    """The rule `InLogSNR`, with the polynomial in tau where the move ends at an infinite log-SNR, to keep its order.

    It needs a coordinate whose tau is finite there. From a noise level above `NEAR` the slope of the estimate predicts
    little. The newest estimate is then held constant, which is of order 1 and more accurate.
    """

    NEAR = 3.0  # half the log-SNR: sigma / alpha = 0.05

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return half

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        return abscissa

    def covers(self, start: float, end: float) -> bool:
        return math.isfinite(start)

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        if math.isfinite(end):
            return integrals(coordinate.rate, start, end, nodes, 12)
        nodes = nodes if start >= self.NEAR else nodes[:1]
        start, end, *nodes_in_tau = map(coordinate.tau, (start, end, *nodes))
        return integrals(_constant, start, end, tuple(nodes_in_tau), 1 + len(nodes) // 2)


class InShare(Rule):
    """The exact integral over tau of the polynomial in `sigma / (alpha + sigma)`, finite at both ends of time."""

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return 1 / (1 + math.exp(half)) if half < 700 else 0.0

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        if 0 < abscissa < 1:
            return math.log1p(-abscissa) - math.log(abscissa)
        return math.inf if abscissa <= 0 else -math.inf

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        return integrals(coordinate.rate_of_share, start, end, nodes, 12)


class Middle(Rule):
    """The slope at the middle of the move in the log-SNR, from a line through two slopes; for more, `InLogSNR`.

    It is the rule of DPM-Solver++(2M) and UniPC. Sources: Lu et al. 2022, arXiv 2211.01095, algorithm 2; Zhao et al.
    2023, arXiv 2302.04867, with B(h) = exp(h) - 1.
    """

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return half

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        return abscissa

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        if len(nodes) > 2:
            return integrals(coordinate.rate, start, end, nodes, 12)
        length = coordinate.tau(end) - coordinate.tau(start)
        if len(nodes) == 1:
            return [length]
        share = ((start + end) / 2 - nodes[0]) / (nodes[1] - nodes[0])
        return [length * (1 - share), length * share]


class Even(Rule):
    """The Adams-Bashforth weights for even steps, up to four, also where the steps are not even.

    Source: Liu et al. 2022, arXiv 2202.09778, equation 12; Zhang and Chen 2023, arXiv 2204.13902, for fewer.
    """

    corrects = False
    TABLE = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

    def abscissa(self, coordinate: Coordinate, half: float) -> float:
        return coordinate.tau(half)

    def half(self, coordinate: Coordinate, abscissa: float) -> float:
        return coordinate.half(abscissa)

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        return [(end - start) * weight for weight in self.TABLE[len(nodes) - 1]]


class Coefficients(NamedTuple):
    """The coefficients of `x' = ratio x + share x_0 + sum_j weights_j f_j + std z`, with slopes f at leading nodes."""

    ratio: float
    share: float
    weights: tuple[float, ...]
    std: float

    def transition(self, x: Tensor, x_0: Tensor, slopes: Iterable[Tensor]) -> Transition:
        """Returns the law of x' (B, *)."""
        mean = torch.mul(x, self.ratio)
        if self.share:
            mean.add_(x_0, alpha=self.share)
        for weight, slope in zip(self.weights, slopes, strict=False):
            mean.add_(slope, alpha=weight)
        return Transition(mean, self.std)


def move(
    coordinate: Coordinate, rule: Rule, x: Tensor, x_0: Tensor, now: Point, next: Point, nodes: History
) -> Transition:
    """Returns the law of x at `next`.

    - `coordinate`, `rule`: how the slope is defined and integrated.
    - `x`, `x_0`: the samples and their estimate (B, *) at `now`.
    - `now`, `next`: the points before and after the move.
    - `nodes`: points with their slopes; the first is that at `now`.
    """
    places, slopes = zip(*nodes, strict=True)
    return coefficients(coordinate, rule, now, next, places).transition(x, x_0, slopes)


@lru_cache(maxsize=4096)
def coefficients(coordinate: Coordinate, rule: Rule, now: Point, next: Point, nodes: tuple[Point, ...]) -> Coefficients:
    """Computes the coefficients of a move from the slopes at the leading nodes whose variable is finite.

    Where a variable of coordinate or rule is infinite at one end, the move is of order 1 and has no weights.

    - `coordinate`, `rule`: how the slope is defined and integrated.
    - `now`, `next`: the points before and after the move.
    - `nodes`: the points with known slopes, newest first.
    """
    start, end, *places = (rule.abscissa(coordinate, float(point.half)) for point in (now, next, *nodes))
    std = coordinate.std(now, next)
    if not (coordinate.regular(now, next) and rule.covers(start, end)):
        return Coefficients(*coordinate.constant(now, next), (), std)
    weights = rule.weights(coordinate, start, end, tuple(takewhile(math.isfinite, places)))
    scale = coordinate.scale(next)
    return Coefficients(scale / coordinate.scale(now), 0.0, tuple(scale * weight for weight in weights), std)


@lru_cache(maxsize=4096)
def corrected(
    coordinate: Coordinate, rule: Rule, next: Point, nodes: tuple[Point, ...], order: int, corrector: int
) -> Coefficients:
    """Computes the coefficients of a move from the first node with `order` slopes, after x there was corrected.

    The correction replaces the previous move, which went from the second node with `order` slopes from there on, by
    one with the slopes at the first `corrector` nodes.

    - `coordinate`, `rule`: how the slope is defined and integrated.
    - `next`: the point after the move.
    - `nodes`: the points with known slopes, newest first.
    - `order`: the number of slopes of the predictor.
    - `corrector`: the number of slopes of the corrector, 0 for none.
    """
    forward = coefficients(coordinate, rule, nodes[0], next, nodes[:order])
    if corrector == 0 or len(nodes) == 1:
        return forward
    old = coefficients(coordinate, rule, nodes[1], nodes[0], nodes[1 : 1 + order]).weights
    new = coefficients(coordinate, rule, nodes[1], nodes[0], nodes[:corrector]).weights
    if not old:
        return forward
    numbers = zip_longest(forward.weights, new, (0.0, *old), fillvalue=0.0)
    weights = tuple(weight + forward.ratio * (later - earlier) for weight, later, earlier in numbers)
    return forward._replace(weights=weights)


def _constant(place: float) -> float:
    return 1.0


def integrals(
    density: Callable[[float], float], start: float, end: float, nodes: tuple[float, ...], num_points: int
) -> tuple[float, ...]:
    """Computes `integral of L_j(z) density(z) dz` from start to end, with L_j the Lagrange polynomial of node j.

    The Gauss-Legendre quadrature is exact for a constant density if num_points > len(nodes) / 2 - 1 / 2.

    - `density`: the weight function.
    - `start`, `end`: the limits of the integral.
    - `nodes`: the interpolation nodes.
    - `num_points`: the number of points of the quadrature.
    """
    half, middle = (end - start) / 2, (end + start) / 2
    sums = [0.0] * len(nodes)
    for place, weight in _gauss_legendre(num_points):
        z = middle + half * place
        share = half * weight * density(z)
        for j, node in enumerate(nodes):
            value = share
            for k, other in enumerate(nodes):
                if k != j:
                    value *= (z - other) / (node - other)
            sums[j] += value
    return tuple(sums)


@cache
def _gauss_legendre(num_points: int) -> list[tuple[float, float]]:
    places, weights = np.polynomial.legendre.leggauss(num_points)
    return list(zip(places.tolist(), weights.tolist(), strict=True))
