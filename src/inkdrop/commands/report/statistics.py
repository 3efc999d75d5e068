"""Statistics of a comparison: intervals, paired differences, shares of the variance and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_MOST_LEVELS, _BINS = 6, 4  # numbers with more values are put into so many groups of equal size


@dataclass(frozen=True)
class Summary:
    """The mean of n values, and half of its 95% interval by Student's t, or None for one value."""

    n: int
    mean: float
    half: float | None


@dataclass(frozen=True)
class Importance:
    """What an option explains of a metric.

    - `option`: its name.
    - `levels`: number of its values.
    - `share`: share of the variance of the ranks, or None where it cannot be estimated.
    - `best`: the value with the best mean rank.
    """

    option: str
    levels: int
    share: float | None
    best: str


def summary(values: Sequence[float]) -> Summary:
    """Returns the mean of values and its interval, mean +- t(0.975, n - 1) s / sqrt(n)."""
    array = np.asarray(values, float)
    with np.errstate(all="ignore"):
        mean = float(array.mean()) if array.size else math.nan
        if array.size < 2:
            return Summary(array.size, mean, None)
        half = float(_quantile(array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Summary(array.size, mean, half if math.isfinite(half) else None)


def paired(best: Mapping[int, float], other: Mapping[int, float]) -> Summary:
    """Returns the mean of other - best over the seeds that both have, and its interval.

    Equal seeds share what they draw, so that the interval is narrower than that of two independent means.
    """
    return summary([other[seed] - best[seed] for seed in best.keys() & other.keys()])


def is_apart(difference: Summary) -> bool | None:
    """Returns whether the interval of a difference excludes zero, or None without an interval."""
    return None if difference.half is None else abs(difference.mean) > difference.half


def importance(options: Mapping[str, Sequence[str]], values: Sequence[float], higher: bool) -> list[Importance]:
    """Returns the share of the variance that each option explains by itself, the largest first.

    - `options`: for each option, its value in each run.
    - `values`: the metric of each run.
    - `higher`: whether higher values are better.

    The variance is that of the ranks, so that a run that diverged counts as the worst and not more. The share is
    epsilon squared of a one-way analysis, `(SSB - (k - 1) MSW) / SST`, which does not grow with the number k of values.
    Numbers with more than six values are put into four groups. Shares of options that vary together overlap.
    """
    ranks = _ranks(values, higher)
    found = []
    for option, levels in options.items():
        groups = _groups(levels)
        share = _share(groups, ranks)
        best = min(
            set(groups),
            key=lambda group: (np.mean([r for g, r in zip(groups, ranks, strict=True) if g == group]), str(group)),
        )
        found.append(Importance(option, len(set(levels)), share, _shown(best, groups, levels)))
    return sorted(found, key=lambda each: -(each.share or 0))


def within_settings(settings: Sequence[Hashable], values: Sequence[float]) -> float | None:
    """Returns the share of the variance of the ranks among runs of one setting, which differ in their seed alone."""
    ranks = np.array(_ranks(values, False))
    left, total = len(ranks) - len(set(settings)), ranks.var(ddof=1) if len(ranks) > 1 else 0.0
    if left <= 0 or total <= 0:
        return None
    return min(1.0, float(_inside(settings, ranks) / left / total))


def front(points: Sequence[tuple[float, float]], higher: bool) -> list[int]:
    """Returns the positions of the points (cost, quality) of which no other one is as cheap and better, or cheaper.

    Points that are not finite are left out.
    """
    sign = -1 if higher else 1
    order = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    best, kept = math.inf, []
    for i in sorted(order, key=lambda i: (points[i][0], sign * points[i][1])):
        if sign * points[i][1] < best:
            best = sign * points[i][1]
            kept.append(i)
    return kept


def nondominated(points: Sequence[Sequence[float]], highest: Sequence[bool]) -> list[int]:
    """Returns the positions of the points of which no other one is as good in all values and better in one.

    - `points`: points with a value for each objective; those that are not finite are left out.
    - `highest`: for each objective whether the highest value is best.
    """
    signed = [tuple(-each if high else each for each, high in zip(point, highest, strict=True)) for point in points]
    finite = [i for i, point in enumerate(signed) if all(map(math.isfinite, point))]
    return [
        i
        for i in finite
        if not any(
            signed[j] != signed[i] and all(a <= b for a, b in zip(signed[j], signed[i], strict=True)) for j in finite
        )
    ]


def number(text: object) -> float | None:
    """Returns the finite number that a text shows, or None."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _ranks(values: Sequence[float], higher: bool) -> list[float]:
    """Returns ranks of which 0 is best, ties share their mean, and what is not finite is worst."""
    keys = [(-value if higher else value) if math.isfinite(value) else math.inf for value in values]
    ordered = sorted(keys)
    first = {key: place for place, key in reversed([*enumerate(ordered)])}
    last = {key: place for place, key in enumerate(ordered)}
    return [(first[key] + last[key]) / 2 for key in keys]


def _groups(levels: Sequence[str]) -> list[Hashable]:
    """Returns the group of each run: the value of the option, or for many numbers one of four ranges."""
    numbers = [number(each) for each in levels]
    known = sorted({each for each in numbers if each is not None})
    if len(known) <= _MOST_LEVELS or None in numbers:
        return list(levels)
    edges = [known[len(known) * k // _BINS] for k in range(1, _BINS)]
    return [sum(each >= edge for edge in edges) for each in numbers if each is not None]


def _shown(best: Hashable, groups: Sequence[Hashable], levels: Sequence[str]) -> str:
    inside = [level for group, level in zip(groups, levels, strict=True) if group == best]
    if len(set(inside)) == 1:
        return inside[0]
    ordered = sorted(inside, key=lambda level: number(level) or 0.0)
    return f"{ordered[0]} to {ordered[-1]}"


def _inside(groups: Sequence[Hashable], ranks: np.ndarray) -> float:
    """Returns the sum of squares within groups."""
    parts: dict[Hashable, list[float]] = {}
    for group, rank in zip(groups, ranks, strict=True):
        parts.setdefault(group, []).append(float(rank))
    return sum(float(np.sum((np.array(part) - np.mean(part)) ** 2)) for part in parts.values())


def _share(groups: Sequence[Hashable], ranks: Sequence[float]) -> float | None:
    array, levels = np.array(ranks), len(set(groups))
    left, total = len(array) - levels, float(np.sum((array - array.mean()) ** 2))
    if left <= 0 or levels < 2 or total <= 0:
        return None
    inside = _inside(groups, array)
    return max(0.0, (total - inside - (levels - 1) * inside / left) / total)
