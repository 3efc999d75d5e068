"""Noise that is a mixture of normal laws in the plane."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.noises.laws import Noise
from inkdrop.randomness import Generators


class Modes(Noise):
    """Points (B, 2) of equally likely normal modes, whose means are evenly spaced on a circle around 0.

    It is the start of flows between two distributions. Samplers that add noise on their way assume a normal law: sample
    with the probability flow, such as DDIM or Heun.

    - `num_modes`: number of modes.
    - `radius`: radius of the circle, in the unit of x.
    - `std`: standard deviation of a mode along each coordinate, in the unit of x.

    Raises `ValueError` for x of another shape.
    """

    def __init__(
        self,
        num_modes: Annotated[int, Ge(1)] = 8,
        radius: Annotated[float, Ge(0)] = 5.0,
        std: Annotated[float, Gt(0)] = 0.1**0.25,
    ):
        self.num_modes, self.radius, self.std = num_modes, radius, std

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        if (given := list(shape)) != [2]:
            raise ValueError(f"noise=modes has points in the plane, but x has the shape {given}: choose another noise")
        return self._points(generators.at("mode").uniform(), generators.normal(given, dtype))

    def points(self, num_points: int, generator: torch.Generator) -> Tensor:
        """Draws points (N, 2) of the same law from one stream, which is faster for data that are drawn anew."""
        share = torch.rand(num_points, generator=generator, dtype=torch.float64)
        return self._points(share, torch.randn(num_points, 2, generator=generator))

    def _points(self, share: Tensor, normal: Tensor) -> Tensor:
        angle = (share * self.num_modes).floor() * (2 * math.pi / self.num_modes)
        means = self.radius * torch.stack([angle.cos(), angle.sin()], 1)
        return means.to(normal) + self.std * normal
