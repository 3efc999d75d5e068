"""Standard deviations of the steps of the reverse chain.

A step leads from `now` to the earlier `next`, points of floats or of tensors (B), with a, s, l = alpha, sigma,
log(alpha / sigma) at `now` and a', s', l' at `next`. `extras` are further outputs of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from inkdrop.schedules import Point, Scalar, over

Deviation: TypeAlias = Callable[[Point, Point, Mapping[str, Tensor]], Scalar]


def fresh(now: Point, next: Point) -> Scalar:
    """Returns the share of s'^2 that is random given x_t and x_0, `1 - exp(2 (l - l'))`, also at a = 0."""
    gap = 2 * (now.half - next.half)
    return -torch.expm1(gap) if isinstance(gap, Tensor) else -math.expm1(gap)


def small(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """Returns the standard deviation of q(x_s | x_t, x_0), `s' sqrt(1 - exp(2 (l - l')))`, exact if x_0 is certain."""
    return next.sigma * fresh(now, next) ** 0.5


def large(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """Returns the standard deviation of q(x_t | x_s), `s sqrt(1 - exp(2 (l - l')))`.

    It is exact if x_0 ~ N(0, I) and alpha^2 + sigma^2 = 1.
    """
    return now.sigma * fresh(now, next) ** 0.5


def learned(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """Returns the learned standard deviation (B, *), log-linear from small at v = -1 to large at v = 1.

    v is the extra "variance" (B, *) of the network. s' must be above 0. Raises `ValueError` if there is no variance.
    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 15, where v is from 0 to 1.
    """
    if "variance" not in extras:
        raise ValueError("the network has no output for the variance: choose the deviation small or large")
    return _between(small(now, next, extras), large(now, next, extras), extras["variance"])


def decoder(first: Point, second: Point | None, extras: Mapping[str, Tensor]) -> Scalar:
    """Returns the standard deviation of p(x_0 | x_t) at the first time of the chain, where no q exists.

    It is sigma(t_1), for a discrete schedule the square root of beta_1. A network with a variance interpolates between
    the small deviation of the step from `second` and sigma(t_1). Source: Nichol and Dhariwal 2021, arXiv 2102.09672,
    section 3.1, for the latter.
    """
    if second is None or "variance" not in extras:
        return first.sigma
    return _between(small(second, first, extras), first.sigma, extras["variance"])


def _between(low: Scalar, high: Scalar, v: Tensor) -> Tensor:
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    share = (v + 1) / 2
    return over(low, v) ** (1 - share) * over(high, v) ** share
