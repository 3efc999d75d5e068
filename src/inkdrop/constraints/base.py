"""Constraints act on the law of the next x before it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from inkdrop.noises import Draw
from inkdrop.schedules import Point, Scalar


class Transition(NamedTuple):
    """The law N(mean, std^2) of the next x, where std is a float or a tensor that broadcasts to x (B, *)."""

    mean: Tensor
    std: Scalar

    def draw(self, noise: Draw) -> Tensor:
        """Draws the next x; no noise is drawn if std is 0."""
        if isinstance(self.std, float) and self.std == 0:
            return self.mean
        return self.mean + self.std * noise(self.mean, "step")


class Constraint(ABC):
    """A constraint of one sampling call. `copies` is the number of adjacent rows (particles) that each sample needs."""

    copies: int = 1

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        """Returns the first x of the run, which it may change; `points` are all points of the run."""
        return x

    @abstractmethod
    def apply(self, transition: Transition, now: Point, next: Point, noise: Draw) -> tuple[Tensor, Tensor | None]:
        """Draws the next x, and returns the rows (B) that it continues, or None if every row continues itself."""

    def finish(self, x: Tensor) -> Tensor:
        """Returns the samples from the last rows."""
        return x
