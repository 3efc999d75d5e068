"""The terms of the exact variational bound `-log p(x_0) <= prior + sum of steps + decoder`, in nats per sample.

The chain has times t_1 < ... < t_T = 1 and x_t = alpha x_0 + sigma eps with eps ~ N(0, I). Points are of floats, or of
tensors (B) where every sample has a time of its own. Training and evaluation use the same functions. Source: Ho et al.
2020, arXiv 2006.11239, equation 5; in log-SNR: Kingma et al. 2021, arXiv 2107.00630.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.special import log_ndtr

from inkdrop.deviations import fresh, small
from inkdrop.schedules import Point, Scalar, over

LogProbability: TypeAlias = Callable[[Tensor, Tensor, Scalar], Tensor]  # of data (B, *) given mean and deviation


def prior_term(x_0: Tensor, last: Point, weight: Tensor | None = None) -> Tensor:
    """`KL(N(a x_0, s^2) || N(0, s^2)) = a^2 x_0^2 / (2 s^2)` at t = 1, summed over x_0 (B, *) to (B).

    Samplers here begin at s eps, hence this prior. The published one is N(0, 1), which for the variance-preserving
    chains, with s = 1 but for 1e-5, is the same number.
    """
    return _total((over(last.alpha / last.sigma, x_0) * x_0).square(), weight) / 2


def step_terms(
    x_0: Tensor, estimate: Tensor, now: Point, next: Point, deviation: Scalar, weight: Tensor | None = None
) -> Tensor:
    """`KL(q(x_s | x_t, x_0) || N(posterior mean at the estimate, deviation^2))` summed over x_0 (B, *) to (B).

    With r = exp(2 (l - l')), q has the mean `a' (1 - r) x_0 + (a / a') (s'^2 / s^2) x_t` and the variance
    `q^2 = s'^2 (1 - r)`. The two means differ by `m = a' (1 - r) (x_0 - estimate)` whatever x_t is, and the term is
    `log(p / q) + (q^2 + m^2) / (2 p^2) - 1/2`. The deviation p is a float, (B), or (B, *). Both times are above 0.
    """
    q, p = over(small(now, next, {}), x_0), _shaped(deviation, x_0)
    log_ratio = torch.log(q / p)
    m = over(next.alpha * fresh(now, next), x_0) * (x_0 - estimate)
    # expm1 keeps all digits where p = q
    return _total(torch.expm1(2 * log_ratio) / 2 - log_ratio + (m / p).square() / 2, weight)


def decoder_term(
    data: Tensor,
    estimate: Tensor,
    deviation: Scalar,
    log_probability: LogProbability,
    weight: Tensor | None = None,
) -> Tensor:
    """`-log p(data | x at t_1)` summed over data (B, *) to (B), with the estimate of x_0 there as the mean.

    `log_probability` is `gaussian` or `discretized`, or what a codec knows of its raw data.
    """
    return -_total(log_probability(data, estimate, deviation), weight)


def gaussian(x: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
    """Log-density of N(mean, deviation^2) at x, elementwise (B, *)."""
    deviation = _shaped(deviation, x)
    return -((x - mean) / deviation).square() / 2 - deviation.log() - math.log(2 * math.pi) / 2


def discretized(
    x: Tensor, mean: Tensor, deviation: Scalar, width: float, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Log-probability that N(mean, deviation^2) falls into the bin around x, elementwise (B, *).

    x are levels from `low` to `high` at a distance of `width`; the two outer bins are open, so that the levels'
    probabilities add up to 1. Finite also far in the tails. Source: Ho et al. 2020, equation 13.
    """
    deviation = _shaped(deviation, x)
    left, right = (x - mean - width / 2) / deviation, (x - mean + width / 2) / deviation
    # Mirrored to the lower tail, where the logarithm of the distribution function keeps its digits.
    mirrored = left > 0
    near, far = log_ndtr(torch.where(mirrored, -left, right)), log_ndtr(torch.where(mirrored, -right, left))
    inner = near + torch.log(-torch.expm1(far - near))
    return torch.where(x < low + width / 2, log_ndtr(right), torch.where(x > high - width / 2, log_ndtr(-left), inner))


def _total(values: Tensor, weight: Tensor | None) -> Tensor:
    """The sum (B) over the elements of (B, *), each as often as its weight (B, *) says."""
    return (values if weight is None else weight * values).flatten(1).sum(1)


def _shaped(deviation: Scalar, x: Tensor) -> Tensor:
    """A deviation as a tensor that broadcasts to x (B, *)."""
    if isinstance(deviation, Tensor) and deviation.dim() == x.dim():
        return deviation
    return torch.as_tensor(over(deviation, x), dtype=x.dtype, device=x.device)
