"""Laws of a move, and how the next x is drawn."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Scalar


class Draw(Protocol):
    """Draws the noise of one move: `draw(like, purpose)` has the shape, type and device of `like` (B, *)."""

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor: ...

    def streams(self, purpose: str, *position: int) -> Generators:
        """Returns the random streams (B) of the move, for numbers that do not have the law of eps."""


class Transition(NamedTuple):
    """The law N(mean, std^2) of the next x, where std is a float or a tensor that broadcasts to x (B, *)."""

    mean: Tensor
    std: Scalar

    def draw(self, noise: Draw) -> Tensor:
        """Draws the next x; no noise is drawn if std is 0."""
        if isinstance(self.std, float) and self.std == 0:
            return self.mean
        return self.mean + self.std * noise(self.mean, "step")


class Categorical(Transition):
    """The law of the next categories, which are one-hot along axis 1: `mean` (B, C, *) are their probabilities."""

    __slots__ = ()

    def draw(self, noise: Draw) -> Tensor:
        """Draws one-hot categories (B, C, *): the first at which the running sum of probabilities exceeds u."""
        u = sent(noise.streams("step").uniform(self.mean.shape[2:]), self.mean.device)
        sums = self.mean.double().cumsum(1)
        index = (sums <= u[:, None] * sums[:, -1:]).sum(1).clamp(max=self.mean.shape[1] - 1)
        return torch.nn.functional.one_hot(index, self.mean.shape[1]).movedim(-1, 1).to(self.mean.dtype)
