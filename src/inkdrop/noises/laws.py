"""Laws of eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.noises.transitions import Transition
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, Scalar, Schedule, over


class Noise(ABC):
    """A law of eps, drawn for a batch with one random stream per sample.

    `standard` says whether eps ~ N(0, I), which exact likelihoods require.
    """

    standard: bool = False
    categorical: bool = False  # whether x are categories, so that a move draws one of them

    @abstractmethod
    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws noise of shape (B, *shape) on the CPU, where B is the number of streams."""

    def check(self, schedule: Schedule) -> None:  # noqa: B027
        """Raises `ValueError` if this noise cannot be combined with the schedule."""

    def within(self, batch: Mapping[str, Tensor]) -> Noise:
        """Returns the noise of a raw batch, such as one within the mask of each sample; by default that of any."""
        return self

    def example(self, shape: Iterable[int], count: int) -> dict[str, Tensor]:
        """Returns the fields of a raw batch of this many items of this shape that the noise reads, such as noise."""
        return {}

    def corrupt(
        self,
        x_0: Tensor,
        now: Point,
        generators: Generators,
        coupling: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws x_t and eps, both (B, *), for x_0 (B, *) at times `now` (B).

        `coupling(x_0, eps)` may reorder eps within the batch.
        """
        eps = sent(self(x_0.shape[1:], generators, x_0.dtype), x_0.device)
        eps = eps if coupling is None else coupling(x_0, eps)
        return self.mixed(x_0, eps, now, generators), eps

    def mixed(self, x_0: Tensor, eps: Tensor, now: Point, generators: Generators) -> Tensor:
        """Returns x_t (B, *) of x_0 and eps (B, *): `alpha x_0 + sigma eps`, which needs no random numbers."""
        return over(now.alpha, x_0) * x_0 + over(now.sigma, x_0) * eps

    def known(self, x_0: Tensor, eps: Tensor, now: Point, generators: Generators) -> Tensor:
        """Returns what a sampler may see of known data x_0 (B, *) at a time: what `mixed` makes of them by default."""
        return self.mixed(x_0, eps, now, generators)

    def move(self, mean: Tensor, std: Scalar) -> Transition:
        """Returns the law of the next x, of which a sampler has found mean and deviation; Gaussian by default."""
        return Transition(mean, std)


class Gaussian(Noise):
    """Standard normal noise, `eps ~ N(0, I)`."""

    standard = True

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return generators.normal(shape, dtype)


class Offset(Noise):
    """Gaussian noise plus `strength` times one normal number per channel, which shifts the mean of an image.

    `eps ~ N(0, I + strength^2 1 1^T)` within a channel. Sampling draws from the same law as training. Source:
    Guttenberg 2023, "Diffusion with Offset Noise" (0.1).
    """

    def __init__(self, strength: Annotated[float, Ge(0)] = 0.1):
        self.strength = strength

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        channels, *others = shape
        mean = generators.at("offset").normal([channels, *(1 for _ in others)], dtype)
        return generators.normal([channels, *others], dtype) + self.strength * mean


def slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Interpolates from `first` to `second` (B, *) along a great circle, by a share (B) of the angle between them.

    `sin((1 - s) w) / sin(w) first + sin(s w) / sin(w) second`, where s is the share and w the angle. Between draws of
    normal noise this preserves the norm of noise. Parallel tensors are interpolated linearly. Source: Shoemake 1985.
    """
    angle = torch.cosine_similarity(first.flatten(1), second.flatten(1)).clamp(-1, 1).acos()
    sine, share = angle.sin(), share.to(first)
    straight = sine < 1e-6
    weights = [torch.where(straight, part, (part * angle).sin() / sine) for part in (1 - share, share)]
    a, b = (weight.reshape(-1, *(1,) * (first.dim() - 1)) for weight in weights)
    return a * first + b * second
