"""Noise on a part of x."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.noises.laws import Noise
from inkdrop.randomness import Generators
from inkdrop.schedules import Point


class Partial(Noise):
    """Standard normal noise on all but the first `num_clean` places of the last axis, where x_t is x_0 at all times.

    The clean part is a condition that the network sees with what is noised, such as the source of a translation;
    eps is 0 there. Sampling needs a constraint that holds it, such as `constraint=source`, and `prediction=data`.
    Source: Gong et al. 2023, arXiv 2210.08933, section 3.1.
    """

    def __init__(self, num_clean: Annotated[int, Ge(0)]):
        self.num_clean = num_clean

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        *others, length = shape
        if length < self.num_clean:
            raise ValueError(f"noise.num_clean={self.num_clean} is more than the {length} places of x: lower it")
        eps = generators.normal([*others, length - self.num_clean], dtype)
        return torch.nn.functional.pad(eps, (self.num_clean, 0))

    def mixed(self, x_0: Tensor, eps: Tensor, now: Point, generators: Generators) -> Tensor:
        x_t = super().mixed(x_0, eps, now, generators)
        return torch.cat([x_0[..., : self.num_clean], x_t[..., self.num_clean :]], -1)
