"""How a strong and a weak estimate of x_0 become one that is stronger still.

s strong, u weak, w scale: all of them give s at w = 1.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor


class Mix(ABC):
    """`mix(strong (B, *), weak (B, *), scale) -> x_0 (B, *)`."""

    def begin(self) -> Mix:
        """The mix of one sampling run: itself, unless it remembers something from step to step."""
        return self

    @abstractmethod
    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        """The mixed estimate."""

    def select(self, index: Tensor) -> None:  # noqa: B027
        """Follows a permutation or choice of the batch, if it remembers something."""


class Linear(Mix):
    """`u + w (s - u)`, exactly u at 0 and s at 1. Source: Ho and Salimans 2022, arXiv 2207.12598, with w + 1 as w."""

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        return torch.lerp(weak, strong, scale)


class Rescaled(Mix):
    """`g (1 - share + share std(s) / std(g))` with g = u + w (s - u): strong guidance without its contrast.

    The deviations are over the elements of a sample. Source: Lin et al. 2024, arXiv 2305.08891, section 3.4, on x_0.
    """

    def __init__(self, share: Annotated[float, Ge(0), Le(1)] = 0.7):
        self.share = share

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        mixed = torch.lerp(weak, strong, scale)
        return mixed * torch.lerp(torch.ones_like(_std(mixed)), _std(strong) / _std(mixed), self.share)


class Projected(Mix):
    """`s + (w - 1) (d - (1 - parallel) d_s)`: d is s - u, and d_s the part of it along s.

    d is first `d <- d + momentum d_before` over the run, and then shortened to `radius` where it is longer. The part
    along s is what oversaturates. Source: Sadat et al. 2024, arXiv 2410.02416, algorithm 1.
    """

    def __init__(
        self,
        parallel: Annotated[float, Ge(0), Le(1)] = 0.0,
        momentum: Annotated[float, Gt(-1), Le(0)] = -0.5,
        radius: Annotated[float, Gt(0)] | None = None,
    ):
        self.parallel, self.momentum, self.radius = parallel, momentum, math.inf if radius is None else radius
        self._before: Tensor | None = None

    def begin(self) -> Mix:
        return copy.copy(self)

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        change = strong - weak
        if self._before is not None:
            change = change + self.momentum * self._before
        self._before = change
        if self.radius < math.inf:
            change = change * (self.radius / _norm(change)).clamp(max=1)  # a factor of inf where there is no change
        along = (change * strong).flatten(1).sum(1) / strong.flatten(1).square().sum(1)
        part = along.reshape(-1, *(1,) * (strong.dim() - 1)) * strong
        return strong + (scale - 1) * (change - (1 - self.parallel) * part)

    def select(self, index: Tensor) -> None:
        if self._before is not None:
            self._before = self._before[index]


def _std(x: Tensor) -> Tensor:
    return x.flatten(1).std(1, correction=0).reshape(-1, *(1,) * (x.dim() - 1))


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.dim() - 1))
