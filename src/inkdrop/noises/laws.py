"""Laws of eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.randomness import Generators


class Noise(ABC):
    """A law of eps, drawn for a batch with one random stream per sample.

    `standard` says whether eps ~ N(0, I), which exact likelihoods require.
    """

    standard: bool = False

    @abstractmethod
    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws noise of shape (B, *shape) on the CPU, where B is the number of streams."""


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
