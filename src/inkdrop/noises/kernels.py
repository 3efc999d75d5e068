"""The moves between two noise levels that need no network: towards given data, and to more noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inkdrop.noises.transitions import Transition
from inkdrop.schedules import Point


def shares(now: Point, next: Point, eta: float = 0.0) -> tuple[float, float, float]:
    """Returns the coefficients of `towards`: x' = ratio x + share x_0 + std z."""
    ratio = float(next.sigma / now.sigma)
    if eta == 0:
        return ratio, float(next.alpha - now.alpha * ratio), 0.0
    remaining = math.expm1(2 * (now.half - next.half))  # -(share of s'^2 that is fresh noise)
    ratio *= math.sqrt(max(0.0, 1 + eta * eta * remaining))
    return ratio, float(next.alpha - now.alpha * ratio), eta * float(next.sigma) * math.sqrt(-remaining)


def towards(x: Tensor, x_0: Tensor, now: Point, next: Point, eta: float = 0.0) -> Transition:
    """Returns the move from x at `now` to `next` given the data x_0, with a share eta of the posterior's noise.

    `std = eta s' sqrt(1 - exp(2 (l - l')))`, `ratio = sqrt(s'^2 - std^2) / s`, `mean = ratio x + (a' - a ratio) x_0`,
    where a, s, l = alpha, sigma, log(a / s) now and a', s', l' next. eta = 1 is q(x_s | x_t, x_0), eta = 0 the
    probability-flow ODE with a constant x_0. Both are exact at a = 0 and at s' = 0.

    - `x`, `x_0`: the samples at `now` and their estimate (B, *).
    - `now`, `next`: the points before and after the move.
    - `eta`: the share of the posterior's noise.

    Source: Song et al. 2021, arXiv 2010.02502, equations 12 and 16.
    """
    ratio, share, std = shares(now, next, eta)
    return Transition(torch.mul(x, ratio).add_(x_0, alpha=share), std)


def forward_kernel(x: Tensor, now: Point, next: Point) -> Transition:
    """Returns q(x_next | x_now) of a move to more noise, `N((a'/a) x, s'^2 (1 - exp(2 (l' - l))))`.

    Source: Ho et al. 2020, arXiv 2006.11239, equation 2.
    """
    return Transition(next.alpha / now.alpha * x, next.sigma * math.sqrt(-math.expm1(2 * (next.half - now.half))))
