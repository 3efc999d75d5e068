"""Guidance scales, and the noise levels at which guidance acts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Len

from inkdrop.schedules import Point

# The lower and the upper noise level sigma / alpha.
Interval: TypeAlias = Annotated[list[Annotated[float, Ge(0)]], Len(2, 2)]


class Scale(ABC):
    """A guidance scale that depends on the noise level."""

    @abstractmethod
    def __call__(self, now: Point) -> float | None:
        """Returns the scale at this point; None where guidance does not act."""


class Ramp(Scale):
    """The scale `start + (end - start) (1 - t)^power`, from `start` at noise to `end` at data."""

    def __init__(self, start: float, end: float, power: Annotated[float, Gt(0)] = 1.0):
        self.start, self.end, self.power = start, end, power

    def __call__(self, now: Point) -> float:
        return self.start + (self.end - self.start) * (1 - float(now.t)) ** self.power


class Within(Scale):
    """A scale, a number or an object, at noise levels `low < sigma / alpha <= high`, and no guidance elsewhere.

    A scale of None turns guidance off. Raises `ValueError` unless low < high, and for an interval
    without a scale. Source: Kynkäänniemi et al. 2024, arXiv 2404.07724.
    """

    def __init__(self, scale: float | Scale | None, interval: Interval | None):
        if scale is None and interval is not None:
            raise ValueError(f"guidance.interval={interval} has no effect alone: set guidance.scale too")
        self.scale = scale
        low, high = interval or (0.0, math.inf)
        if not low < high:
            raise ValueError(f"interval={interval} must be two noise levels sigma / alpha: put the lower first")
        self.halves = (-math.log(high), -math.log(low) if low else math.inf)  # of log(alpha / sigma)

    def __call__(self, now: Point) -> float | None:
        if not self.halves[0] <= now.half < self.halves[1]:
            return None
        return self.scale(now) if callable(self.scale) else self.scale
