"""The denoiser: all that a sampler sees of a trained model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from inkdrop.noises import Noise
from inkdrop.schedules import Point, Schedule

Condition = Mapping[str, Tensor]


class Estimate(NamedTuple):
    """What a denoiser says of a noised sample: `x_0 = E[x_0 | x_t]` (B, *), and what else its network puts out."""

    x_0: Tensor
    extras: Mapping[str, Tensor]


class Denoiser(nn.Module):
    """`denoiser(x_t, now, cond) -> Estimate`; guidance and other wrappers are denoisers too.

    `now` is a point of tensors (B) in training and of floats in sampling. x_0 has at least float32 precision.
    """

    schedule: Schedule
    noise: Noise

    @abstractmethod
    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        """The estimate of x_0, (B, *) -> (B, *)."""

    def select(self, index: Tensor) -> None:
        """Follows a permutation or choice of the batch; a wrapper that remembers samples overrides this."""

    def begin(self) -> Denoiser:
        """The denoiser of one sampling run: itself, unless it remembers something from step to step."""
        return self


class Wrapper(Denoiser):
    """A denoiser around a denoiser: keeps its schedule and noise, and passes `select` on."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser
        self.schedule, self.noise = denoiser.schedule, denoiser.noise

    def select(self, index: Tensor) -> None:
        self.denoiser.select(index)
