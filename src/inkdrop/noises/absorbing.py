"""Noise that masks categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.noises.laws import Noise
from inkdrop.noises.transitions import Categorical, Transition
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, Schedule, over

_ROUNDING = 1e-5  # of a sum of probabilities


class Absorbing(Noise):
    """Noise that replaces categories x (B, num_categories + 1, *), one-hot, by the mask, which is the last category.

    eps is the mask. Each position of x_t is x_0 with probability alpha(t), and else the mask, where `sigma = 1 -
    alpha`. Given an estimate of x_0, the probabilities of the categories, the reverse kernel is `(s' / s) x_t + (1 - s'
    / s) x_0` with s = sigma now and s' next: a DDIM step with eta = 0. Sources: Austin et al. 2021, arXiv 2107.03006,
    section 3.1; Sahoo et al. 2024, arXiv 2406.07524.

    - `num_categories`: the number of categories without the mask; None is that of x.
    """

    categorical = True

    def __init__(self, num_categories: Annotated[int, Ge(1)] | None = None):
        self.num_categories = num_categories

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = list(shape)
        if self.num_categories not in (None, shape[0] - 1):
            raise ValueError(
                f"noise.num_categories={self.num_categories}, but x has {shape[0] - 1} categories and the mask: set it "
                "to null"
            )
        eps = torch.zeros(len(generators), *shape, dtype=dtype)
        eps[:, -1] = 1
        return eps

    def check(self, schedule: Schedule) -> None:
        points: list[Any] = schedule.points([0.25, 0.5, 1.0])
        if any(abs(point.alpha + point.sigma - 1) > 1e-6 for point in points):
            raise ValueError(
                f"absorbing noise requires alpha + sigma = 1, unlike {type(schedule).__name__}: set schedule=linear"
            )

    def mixed(self, x_0: Tensor, eps: Tensor, now: Point, generators: Generators) -> Tensor:
        u = sent(generators.at("absorb").uniform(x_0.shape[2:]), x_0.device)[:, None]
        return torch.where(u < over(now.sigma, u), eps, x_0)

    def known(self, x_0: Tensor, eps: Tensor, now: Point, generators: Generators) -> Tensor:
        """Returns x_0: what is known need never be masked."""
        return x_0

    def move(self, mean: Tensor, std: Any) -> Transition:
        """Returns the law of the categories; the mask has what the probabilities lack to 1, as in an up-move."""
        remainder = 1 - mean.sum(1, keepdim=True)
        remainder = remainder.where(remainder.abs() > _ROUNDING, 0)  # else a mask may be left at the end
        return Categorical(torch.cat([mean[:, :-1], mean[:, -1:] + remainder], 1), 0.0)
