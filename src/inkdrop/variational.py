"""The terms of the exact variational bound `-log p(x_0) <= prior + sum of steps + decoder`, in nats per sample.

The chain has times t_1 < ... < t_T = 1 and x_t = alpha x_0 + sigma eps with eps ~ N(0, I). Points are of floats, or of
tensors (B) where every sample has its own time. Training and evaluation use the same functions. Source: Ho et al.
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
    """Returns `KL(N(a x_0, s^2) || N(0, s^2)) = a^2 x_0^2 / (2 s^2)` at t = 1, summed over x_0 (B, *) to (B).

    This is the prior of samplers that start at s eps. The published prior is N(0, 1), which has the same value for
    variance-preserving chains, where s differs from 1 by 1e-5.
    """
    return _total((over(last.alpha / last.sigma, x_0) * x_0).square(), weight) / 2


def step_terms(
    x_0: Tensor, estimate: Tensor, now: Point, next: Point, deviation: Scalar, weight: Tensor | None = None
) -> Tensor:
    """Returns `KL(q(x_s | x_t, x_0) || N(posterior mean at the estimate, deviation^2))`, summed over x_0 (B, *) to (B).

    With r = exp(2 (l - l')), q has the mean `a' (1 - r) x_0 + (a / a') (s'^2 / s^2) x_t` and the variance
    `q^2 = s'^2 (1 - r)`. The two means differ by `m = a' (1 - r) (x_0 - estimate)` whatever x_t is, and the term is
    `log(p / q) + (q^2 + m^2) / (2 p^2) - 1/2`. Both times must be above 0.

    - `x_0`: the data (B, *).
    - `estimate`: the estimate of x_0 (B, *).
    - `now`, `next`: the points before and after the step.
    - `deviation`: p, a float, (B), or (B, *).
    - `weight`: weights of the elements in the sum (B, *); None is 1.
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
    """Returns `-log p(data | x at t_1)` summed over data (B, *) to (B), with the estimate of x_0 there as the mean.

    - `data`: the data (B, *).
    - `estimate`: the estimate of x_0 (B, *).
    - `deviation`: the standard deviation of the decoder.
    - `log_probability`: `gaussian`, `discretized`, or that of a codec for its raw data.
    - `weight`: weights of the elements in the sum (B, *); None is 1.
    """
    return -_total(log_probability(data, estimate, deviation), weight)


def gaussian(x: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
    """Returns the log-density of N(mean, deviation^2) at x, elementwise (B, *), in nats."""
    deviation = _shaped(deviation, x)
    return -((x - mean) / deviation).square() / 2 - deviation.log() - math.log(2 * math.pi) / 2


def discretized(
    x: Tensor, mean: Tensor, deviation: Scalar, width: float, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Returns the log-probability of N(mean, deviation^2) in the bin around x, elementwise (B, *), in nats.

    The two outer bins are open, so that the probabilities of all levels add up to 1. The result is finite far in the
    tails too.

    - `x`: levels (B, *).
    - `mean`, `deviation`: the parameters of the normal law; the deviation is a float, (B) or (B, *).
    - `width`: the distance of neighbouring levels.
    - `low`, `high`: the lowest and the highest level.

    Source: Ho et al. 2020, arXiv 2006.11239, equation 13.
    """
    deviation = _shaped(deviation, x)
    left, right = (x - mean - width / 2) / deviation, (x - mean + width / 2) / deviation
    # Mirrored to the lower tail, where the logarithm of the distribution function is precise.
    mirrored = left > 0
    near, far = log_ndtr(torch.where(mirrored, -left, right)), log_ndtr(torch.where(mirrored, -right, left))
    inner = near + torch.log(-torch.expm1(far - near))
    return torch.where(x < low + width / 2, log_ndtr(right), torch.where(x > high - width / 2, log_ndtr(-left), inner))


def _total(values: Tensor, weight: Tensor | None) -> Tensor:
    """Returns the weighted sum (B) over the elements of values (B, *)."""
    return (values if weight is None else weight * values).flatten(1).sum(1)


def _shaped(deviation: Scalar, x: Tensor) -> Tensor:
    """Returns a deviation as a tensor that broadcasts to x (B, *)."""
    if isinstance(deviation, Tensor) and deviation.dim() == x.dim():
        return deviation
    return torch.as_tensor(over(deviation, x), dtype=x.dtype, device=x.device)
