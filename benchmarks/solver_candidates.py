"""The proposed defaults as plain functions over points, in float64: what the table of `solvers.py` reports.

Both see a schedule through r = sigma / alpha alone. The grid is even in v where `log-SNR = 1.5 + 3 sinh(v)`: densest
where noise and data are of one size, thinner towards both ends. N calls take N + 1 even values of v from t = 1 to the
schedule's smallest time; the last is replaced by r = 0, so that no call is spent there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from solver_problems import Problem
from torch import Tensor

CENTER, WIDTH, LARGEST = 0.75, 1.5, 1e3  # of half the log-SNR; and the largest r whose v is finite enough to count
_PLACES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def centred(largest: float, smallest: float, calls: int) -> list[float]:
    """The values of r = sigma / alpha, from `largest` (which may be infinite) down, then 0."""
    first, last = (math.asinh((-math.log(r) - CENTER) / WIDTH) for r in (min(largest, LARGEST), smallest))
    even = np.linspace(first, last, calls + 1)[1:-1]
    return [largest, *(math.exp(-CENTER - WIDTH * math.sinh(v)) for v in even), 0.0]


def _share(r: float) -> float:
    """tau = sigma / (alpha + sigma)."""
    return 1.0 if math.isinf(r) else r / (1 + r)


@cache
def _adams(start: float, end: float, nodes: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of slopes at `nodes` in the integral over tau of the polynomial in log r, or in tau if end = 0."""
    tau_start, tau_end = _share(start), _share(end)
    if len(nodes) == 1:
        return (tau_end - tau_start,)
    if end == 0:
        tau = tau_start / 2 * (1 + _PLACES)
        values = _basis([_share(node) for node in nodes], tau)
        return tuple(float(v) for v in -tau_start / 2 * (values @ _WEIGHTS))
    middle, half = (math.log(end) + math.log(start)) / 2, (math.log(end) - math.log(start)) / 2
    place = middle + half * _PLACES
    rate = half * _WEIGHTS / (4 * np.cosh(place / 2) ** 2)  # d tau / d log r = tau (1 - tau)
    return tuple(float(v) for v in _basis([math.log(node) for node in nodes], place) @ rate)


def _basis(nodes: Sequence[float], places: np.ndarray) -> np.ndarray:
    """Values (len(nodes), len(places)) of the polynomials that are 1 at one node and 0 at the others."""
    rows = []
    for j, node in enumerate(nodes):
        rows.append(np.prod([(places - other) / (node - other) for k, other in enumerate(nodes) if k != j], axis=0))
    return np.broadcast_to(np.stack(rows), (len(nodes), len(places)))


def _mix(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    return torch.stack([weight * slope for weight, slope in zip(weights, slopes, strict=True)]).sum(0)


def deterministic(problem: Problem, calls: int) -> Tensor:
    """Adams of order 2 with a corrector of order 3, in y = x / (alpha + sigma) over tau = sigma / (alpha + sigma).

    The slope eps - x_0 is a polynomial in the log-SNR. The call at a point first mends the move that led to it: through
    this slope and two earlier ones. The first move is Euler's and is neither mended nor remembered, since far from the
    data a network's x_0 is rough. The last move, to r = 0, is of order 2 in tau.
    """
    grid = centred(*problem.ends, calls)
    y = problem.start
    before = y
    memory: list[tuple[float, Tensor]] = []  # (r, slope), newest first
    for number, (r, following) in enumerate(pairwise(grid)):
        tau = _share(r)
        slope = (y - problem.mixture.mean(y, 1 - tau, tau)) / tau  # eps - x_0 for y = (1 - tau) x_0 + tau eps
        memory = [(r, slope), *memory[: 2 if number > 1 else 0]]
        if number > 1:
            y = before + _mix(*_weighted(grid[number - 1], r, memory))
        before, y = y, y + _mix(*_weighted(r, following, memory[:2]))
    return y


def _weighted(start: float, end: float, memory: Sequence[tuple[float, Tensor]]) -> tuple[Sequence[float], list[Tensor]]:
    return _adams(start, end, tuple(r for r, _ in memory)), [slope for _, slope in memory]


@cache
def _posterior(start: float, end: float, nodes: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of estimates at `nodes`: the integral of 2 (r' / r)^2 d(-log r) times the polynomial in tau."""
    middle, half = (math.log(end) + math.log(start)) / 2, (math.log(end) - math.log(start)) / 2
    place = middle + half * _PLACES
    rate = -half * _WEIGHTS * 2 * np.exp(2 * (math.log(end) - place))
    values = _basis([_share(node) for node in nodes], 1 / (1 + np.exp(-place)))
    return tuple(float(v) for v in values @ rate)


def stochastic(problem: Problem, calls: int, generator: torch.Generator) -> Tensor:
    """The reverse SDE (eta = 1) with x_0 as a line in tau = sigma / (alpha + sigma) through the last two estimates.

    `x' = (r'/r)^2 x + sum_j w_j D_j + r' sqrt(1 - (r'/r)^2) z` in x = x_0 + r eps; the first estimate is not remembered
    and the last move is to the estimate.
    """
    grid = centred(*problem.ends, calls)
    y = problem.start
    memory: list[tuple[float, Tensor]] = []
    for number, (r, following) in enumerate(pairwise(grid)):
        tau = _share(r)
        estimate = problem.mixture.mean(y, 1 - tau, tau)
        if following == 0:
            return estimate
        noise = following * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        if math.isinf(r):
            y = (estimate + noise) / (1 + following)
            continue
        memory = [(r, estimate), *memory[: 1 if number > 1 else 0]]
        mean = _mix(_posterior(r, following, tuple(node for node, _ in memory)), [D for _, D in memory])
        ratio = (following / r) ** 2
        y = (ratio * (1 + r) * y + mean + math.sqrt(1 - ratio) * noise) / (1 + following)
    return y
