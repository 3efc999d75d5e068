"""Mixes, which extrapolate from a weak estimate of x_0 beyond a strong one.

In the formulas s is the strong and u the weak estimate, and w the scale. Every mix returns s at w = 1.
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
    """A combination of two estimates: `mix(strong (B, *), weak (B, *), scale) -> x_0 (B, *)`."""

    def begin(self) -> Mix:
        """Returns the mix of one sampling run: itself, unless it keeps state between steps."""
        return self

    @abstractmethod
    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        """Returns the mixed estimate (B, *)."""

    def select(self, index: Tensor) -> None:  # noqa: B027
        """Applies a permutation or selection of the batch to the state, if there is one."""


class Linear(Mix):
    """The linear mix `u + w (s - u)`, exactly u at 0 and s at 1.

    Source: Ho and Salimans 2022, arXiv 2207.12598, with w + 1 as w.
    """

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        return torch.lerp(weak, strong, scale)


class Geometric(Mix):
    """The geometric mix of probabilities (B, C, *), `u (s / u)^w` with a sum of 1: for categories that are masked.

    What s excludes stays excluded. Source: Schiff et al. 2024, arXiv 2412.10193, section 3.1.
    """

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        least = torch.finfo(strong.dtype).tiny
        mixed = torch.lerp(weak.clamp(min=least).log(), strong.clamp(min=least).log(), scale)
        return mixed.where(strong > 0, -torch.inf).softmax(1)


class Rescaled(Mix):
    """The rescaled mix `g (1 - share + share std(s) / std(g))`, g = u + w (s - u): guidance without excess contrast.

    Standard deviations are over the elements of a sample. Source: Lin et al. 2024, arXiv 2305.08891, section 3.4, on
    x_0.
    """

    def __init__(self, share: Annotated[float, Ge(0), Le(1)] = 0.7):
        self.share = share

    def __call__(self, strong: Tensor, weak: Tensor, scale: float) -> Tensor:
        mixed = torch.lerp(weak, strong, scale)
        return mixed * torch.lerp(torch.ones_like(_std(mixed)), _std(strong) / _std(mixed), self.share)


class Projected(Mix):
    """The projected mix `s + (w - 1) (d - (1 - parallel) d_s)`, where d is s - u and d_s the component of d along s.

    The component along s is what oversaturates.

    - `parallel`: the share of the component along s that is kept.
    - `momentum`: the factor of the previous d in `d <- d + momentum d_before`, over the steps of a run.
    - `radius`: the norm to which d is then shortened where it is longer; None does not shorten it.

    Source: Sadat et al. 2024, arXiv 2410.02416, algorithm 1.
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
            change = change * (self.radius / _norm(change)).clamp(max=1)  # inf is clamped where change is 0
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
