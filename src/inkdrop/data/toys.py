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


def moons_in_order(num_points: int, generator: torch.Generator) -> Tensor:
    """Returns points (N, 2) along one half circle and then along the other, at equidistant angles.

    `3 (circle + u) - 1`, where u is uniform in [0, 0.2] and the same for both coordinates. Source: the code of Cheng
    and Schwing 2025, arXiv 2503.10636, whose moons are those of torchdyn.
    """
    upper = num_points // 2
    first, second = (torch.linspace(0, math.pi, n, dtype=torch.float64) for n in (upper, num_points - upper))
    circles = torch.cat(
        [torch.stack([first.cos(), first.sin()], 1), torch.stack([1 - second.cos(), 0.5 - second.sin()], 1)]
    )
    shift = 0.2 * torch.rand(num_points, 1, generator=generator, dtype=torch.float64)
    return (3 * (circles + shift) - 1).float()


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
