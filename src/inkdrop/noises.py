"""The law of eps, and where a sampling run takes its noise from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.randomness import Generators
from inkdrop.schedules import Point


class Noise(ABC):
    """Draws eps for a batch, one stream per sample.

    `standard` says whether eps ~ N(0, I), the law that exact likelihoods are written for.
    """

    standard: bool = False

    @abstractmethod
    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        """Noise of shape (B, *shape) on the CPU, where B is the number of streams."""


class Gaussian(Noise):
    """eps ~ N(0, I)."""

    standard = True

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return generators.normal(shape, dtype)


class Offset(Noise):
    """Gaussian noise plus `strength` times one normal number per channel, which moves the mean of an image.

    `eps ~ N(0, I + strength^2 1 1^T)` within a channel. Sampling draws from the same law, so that training and sampling
    are one process. Source: Guttenberg 2023, "Diffusion with Offset Noise" (0.1).
    """

    def __init__(self, strength: Annotated[float, Ge(0)] = 0.1):
        self.strength = strength

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        channels, *others = shape
        mean = generators.at("offset").normal([channels, *(1 for _ in others)], dtype)
        return generators.normal([channels, *others], dtype) + self.strength * mean


class Move(NamedTuple):
    """One move of a sampling run: its number, how many up-moves came before it, and its two ends."""

    number: int
    loops: int
    now: Point
    next: Point


class Draw(Protocol):
    """Noise of one move: `draw(like, purpose)` has the shape, type and device of `like` (B, *)."""

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor: ...


@dataclass(frozen=True)
class NoiseSource:
    """All noise of one sampling run, a pure function of the sample's seed, the move and the purpose."""

    law: Noise
    generators: Generators

    def at(self, move: Move) -> Draw:
        """The noise of this move."""

        def draw(like: Tensor, purpose: str, *position: int) -> Tensor:
            generators = self.generators.at(purpose, move.number, *position)
            return self.law(like.shape[1:], generators, like.dtype).to(like.device, non_blocking=True)

        return draw
