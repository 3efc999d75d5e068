"""What every denoiser promises; it is the only part of a trained model that samplers use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from inkdrop.noises import Noise
from inkdrop.schedules import Point, Schedule

Condition = Mapping[str, Tensor]


class Estimate(NamedTuple):
    """The estimate `x_0 = E[x_0 | x_t]` (B, *) from a noised sample, and further outputs of the network by name."""

    x_0: Tensor
    extras: Mapping[str, Tensor]


class Denoiser(nn.Module):
    """An estimator of the data: `denoiser(x_t, now, cond) -> Estimate`. Guidance and other wrappers are denoisers too.

    `now` is a point of tensors (B) in training and of floats in sampling. x_0 has at least float32 precision.
    """

    schedule: Schedule
    noise: Noise
    added: tuple[str, ...] = ()  # parts that change nothing before they are trained; initial weights may lack them

    @abstractmethod
    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        """Estimates x_0 (B, *) from x_t (B, *)."""

    def select(self, index: Tensor) -> None:
        """Applies a permutation or selection of the batch; wrappers that keep state for each sample override this."""

    def aim(self, next: Point) -> None:
        """Receives the point at which the next move of a sampling run ends, if one estimate makes that move."""

    def begin(self) -> Denoiser:
        """Returns the denoiser of one sampling run: itself, unless it keeps state between steps."""
        return self


class Wrapper(Denoiser):
    """A denoiser around another denoiser, with the same schedule and noise; it forwards `select` and `aim`."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser
        self.schedule, self.noise = denoiser.schedule, denoiser.noise

    def select(self, index: Tensor) -> None:
        self.denoiser.select(index)

    def aim(self, next: Point) -> None:
        self.denoiser.aim(next)
