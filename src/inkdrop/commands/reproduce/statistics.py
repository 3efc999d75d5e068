"""Tests of means: against published figures, and against stored values of the same configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

LEVEL, POWER = 0.05, 0.8  # of a test: chance of a false alarm, and of seeing the smallest change that it names
MOST = 1000  # seeds that are named as sufficient


def welch(values: Sequence[float], mean: float, deviation: float, runs: int) -> tuple[float, float]:
    """Compares values with a published mean and deviation of some runs, by Welch's test.

    Returns the p-value of both directions, and half of the 95% interval of the difference. Source: Welch 1947,
    Biometrika 34.
    """
    n, own = len(values), float(np.var(values, ddof=1))
    parts = own / n, deviation**2 / runs
    difference = float(np.mean(values)) - mean
    if not (square := sum(parts)):
        return float(difference == 0), 0.0
    freedom = square**2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (runs - 1))
    scale = math.sqrt(square)
    return _two_sided(difference / scale, freedom), quantile(freedom, 1 - LEVEL / 2) * scale


def student(values: Sequence[float], stored: Sequence[float]) -> float:
    """Returns the p-value of both directions of Student's test of two samples with a common variance; one may be 1."""
    n, m = len(values), len(stored)
    squares = sum(float(np.sum((np.asarray(each) - np.mean(each)) ** 2)) for each in (values, stored))
    scale = math.sqrt(squares / (n + m - 2) * (1 / n + 1 / m))
    difference = float(np.mean(values) - np.mean(stored))
    return _two_sided(difference / scale, n + m - 2) if scale else float(difference == 0)


def chance(change: float, n: int, m: int, level: float = LEVEL) -> float:
    """Returns the chance that `student` sees a change of the mean, in standard deviations, between n and m values."""
    from scipy.stats import nct, t

    freedom, shift = n + m - 2, change / math.sqrt(1 / n + 1 / m)
    critical = float(t.ppf(1 - level / 2, freedom))
    return float(nct.sf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift))


@lru_cache
def smallest_change(n: int, m: int, level: float = LEVEL) -> float:
    """Returns the change of the mean, in standard deviations, that `student` sees with a chance of 80%."""
    from scipy.optimize import brentq

    most = 2 * quantile(n + m - 2, 1 - level / 2) * math.sqrt(1 / n + 1 / m)  # which is seen with a higher chance
    return float(brentq(lambda change: chance(change, n, m, level) - POWER, 0.0, most, xtol=1e-4))


def fewest(first: int, suffices: Callable[[int], bool]) -> int | None:
    """Returns the smallest number of seeds from `first` on that suffices, or None if `MOST` do not."""
    return next((count for count in range(max(first, 2), MOST + 1) if suffices(count)), None)


def half_interval(deviation: float, n: int) -> float:
    """Returns half of the 95% interval of a mean of n values with this deviation."""
    return quantile(n - 1, 1 - LEVEL / 2) * deviation / math.sqrt(n)


def quantile(freedom: float, share: float) -> float:
    """Returns a quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, share))


def _two_sided(t: float, freedom: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))
