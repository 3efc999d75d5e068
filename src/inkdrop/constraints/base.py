"""What happens around a step: acts on the law of the next x before it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from inkdrop.noises import Draw
from inkdrop.schedules import Point, Scalar


class Transition(NamedTuple):
    """The law of the next x: N(mean, std^2), where std is a float or a tensor that broadcasts to x (B, *)."""

    mean: Tensor
    std: Scalar

    def draw(self, noise: Draw) -> Tensor:
        """The next x; no noise is made where the law is certain."""
        if isinstance(self.std, float) and self.std == 0:
            return self.mean
        return self.mean + self.std * noise(self.mean, "step")


class Constraint(ABC):
    """One object per sampling call. `copies` is the number of rows (particles) that each sample needs, side by side."""

    copies: int = 1

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        """Sees the first x and all points of the run; may change x."""
        return x

    @abstractmethod
    def apply(self, transition: Transition, now: Point, next: Point, noise: Draw) -> tuple[Tensor, Tensor | None]:
        """Draws the next x, and says which rows (B) it continues, or None when each continues its own."""

    def finish(self, x: Tensor) -> Tensor:
        """From the last rows to the samples."""
        return x
