"""Verdicts on the values of several seeds: against a published figure, and against our own stored points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inkdrop.commands.reproduce.statistics import (
    LEVEL,
    fewest,
    half_interval,
    smallest_change,
    student,
    welch,
)

REPRODUCED, NEAR, MISSED, BETTER, UNDECIDED = "reproduced", "near", "missed", "better", "undecided"
SAME, WORSE = "same", "worse"
MATTERS = 2.0  # published deviations: a difference that a test has to be able to see before it says "reproduced"


@dataclass(frozen=True)
class Target:
    """A published figure: a mean with its deviation over some runs, or a value with a tolerance.

    Without a value, a recipe has only our own points.
    """

    value: float | None = None
    deviation: float | None = None
    runs: int | None = None
    tolerance: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return "none"
        if self.deviation is not None:
            return f"{self.value:g} ± {self.deviation:g} ({self.runs} runs)"
        return f"{self.value:g}" if self.tolerance is None else f"{self.value:g} (within {self.tolerance:g})"


@dataclass(frozen=True)
class Verdict:
    """What is said of one comparison.

    - `word`: the verdict.
    - `text`: the figures that it rests on.
    - `p`: p-value of the test, if there was one.
    """

    word: str
    text: str
    p: float | None = None

    def record(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)


def against_paper(values: Sequence[float], target: Target, higher: bool) -> Verdict | None:
    """Compares values of seeds with a published figure; None without one.

    With a deviation, Welch's test decides at 5%, and a difference of two published deviations must have been visible
    with a chance of 80% before "reproduced" is said. Without one, the 95% interval of the mean is compared with the
    tolerance. `higher` says whether higher values are better.
    """
    if target.value is None:
        return None
    if not all(map(math.isfinite, values)) or not values:
        return Verdict(UNDECIDED, "a value is not finite" if values else "no value")
    if len(values) < 2:
        return Verdict(UNDECIDED, "one seed has no spread: 2 seeds or more may decide")
    compare = _with_tolerance if target.deviation is None else _with_deviation
    return compare(values, target, target.value, higher)


def _with_deviation(values: Sequence[float], target: Target, mean: float, higher: bool) -> Verdict:
    assert target.deviation is not None
    assert target.runs is not None
    runs = target.runs
    p, half = welch(values, mean, target.deviation, runs)
    difference = float(np.mean(values)) - mean
    text = f"difference {difference:+.4g} ± {half:.2g}, p = {p:.2g}"
    if p < LEVEL:
        return Verdict(BETTER if (difference > 0) == higher else MISSED, text, p)
    spread = math.sqrt(
        ((len(values) - 1) * float(np.var(values, ddof=1)) + (target.runs - 1) * target.deviation**2)
        / (len(values) + target.runs - 2)
    )
    matters = (MATTERS * target.deviation) / spread if spread else math.inf

    def suffices(count: int) -> bool:
        return smallest_change(count, runs) <= matters

    if suffices(len(values)):
        return Verdict(REPRODUCED, text, p)
    return Verdict(UNDECIDED, f"{text}; {_would_decide(fewest(len(values) + 1, suffices))}", p)


def _with_tolerance(values: Sequence[float], target: Target, value: float, higher: bool) -> Verdict:
    assert target.tolerance is not None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = half_interval(deviation, len(values))
    low, high = value - target.tolerance, value + target.tolerance
    text = f"95% interval {mean - half:.4g} to {mean + half:.4g}"
    if low <= mean - half and mean + half <= high:
        return Verdict(REPRODUCED, text)
    if mean + half < low or mean - half > high:
        return Verdict(BETTER if (mean > value) == higher else MISSED, text)
    edge = min(abs(mean - low), abs(mean - high))
    enough = fewest(len(values) + 1, lambda count: half_interval(deviation, count) < edge)
    return Verdict(UNDECIDED, f"{text}; {_would_decide(enough)}")


def _would_decide(count: int | None) -> str:
    return "no number of seeds up to 1,000 would decide" if count is None else f"{count} seeds would decide"


def against_ourselves(
    values: Sequence[float], stored: Sequence[float], higher: bool, level: float = LEVEL
) -> Verdict | None:
    """Compares values of seeds with our stored points by Student's test in both directions; None without points.

    All seeds count: with so few, dropping the best and the worst is not affordable. The text has the smallest change
    that would have been seen with a chance of 80%.
    """
    if not stored:
        return None
    if not values or not all(map(math.isfinite, values)):
        return Verdict(UNDECIDED, "a value is not finite" if values else "no value")
    if len(values) + len(stored) < 3:
        return Verdict(UNDECIDED, "two values have no spread")
    p, visible = student(values, stored), smallest_change(len(values), len(stored), level)
    text = (
        f"{np.mean(stored):.4g} ± {np.std(stored, ddof=1) if len(stored) > 1 else 0:.2g} ({len(stored)} seeds), "
        f"p = {p:.2g}; a change of {visible:.1f} deviations would be seen"
    )
    if p >= level:
        return Verdict(SAME, text, p)
    return Verdict(BETTER if (np.mean(values) > np.mean(stored)) == higher else WORSE, text, p)
