"""Distributions of points in the plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.data.loaders import Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.randomness import Generators

Draw: TypeAlias = Callable[[int, torch.Generator], Tensor]


def moons(num_points: int, generator: torch.Generator) -> Tensor:
    """Draws points (N, 2) on two interleaved half circles of radius 1, with normal noise of deviation 0.05."""
    angle = math.pi * torch.rand(num_points, generator=generator)
    upper = torch.rand(num_points, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + 0.05 * torch.randn(num_points, 2, generator=generator)


def ring(num_points: int, generator: torch.Generator) -> Tensor:
    """Draws points (N, 2) of eight normal modes of standard deviation 0.1 on a circle of radius 2."""
    angle = torch.randint(8, (num_points,), generator=generator) * (math.pi / 4)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(num_points, 2, generator=generator)


def checkerboard(num_points: int, generator: torch.Generator) -> Tensor:
    """Draws points (N, 2) uniformly on the dark fields of a 4 x 4 board of side 4."""
    x = 4 * torch.rand(num_points, generator=generator) - 2
    row = 2 * torch.randint(2, (num_points,), generator=generator) - 2 + (x.floor() % 2)
    return torch.stack([x, row + torch.rand(num_points, generator=generator)], 1)


class Toy(DataModule):
    """Points of a distribution in the plane without labels: `num_points` for each split, from its own keyed stream."""

    def __init__(
        self,
        draw: Draw,
        num_points: Annotated[int, Ge(2), Le(100_000_000)],
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(shape, num_classes, batch_size, seed, derive=derive)
        self.draw, self.num_points = draw, num_points

    def load(self) -> dict[str, Split]:
        splits: dict[str, Split] = {}
        for name in ("train", "validation"):
            key = int(Generators.from_seeds([0]).at(f"toy {name}").keys[0])
            splits[name] = {"x": self.draw(self.num_points, torch.Generator().manual_seed(key))}
        return splits
