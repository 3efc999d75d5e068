"""Encodings of the positions of patches on a grid.  B batch, N patches, W width, H heads, D width of a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import torch
from annotated_types import Gt
from torch import Tensor, nn


class Positions(nn.Module):
    """An encoding of positions, which adds to the features or rotates queries and keys; the base does nothing."""

    def forward(self, h: Tensor) -> Tensor:
        """Returns h (B, N, W) as it enters the first block."""
        return h

    def rotate(self, q: Tensor) -> Tensor:
        """Returns queries or keys (B, H, N, D) as they are compared."""
        return q


MakePositions: TypeAlias = Callable[[Sequence[int], int, int], Positions]  # (patches per axis, W, D)


def _angles(grid: Sequence[int], num_rates: int, base: float = 1e4) -> Tensor:
    """Position times base^(-i / num_rates) for each patch, axis and i, the last axis first: (N, axes, num_rates)."""
    rates = base ** (-torch.arange(num_rates, dtype=torch.float64) / num_rates)
    places = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    return torch.stack([place.flatten() for place in reversed(places)], dim=1)[:, :, None] * rates


class SineCosine(Positions):
    """A fixed table of sines, then cosines, for each axis; features that do not divide evenly among the axes have none.

    Source: the reference code of Peebles and Xie 2023, arXiv 2212.09748, there for two axes.
    """

    table: Tensor

    def __init__(self, grid: Sequence[int], width: int, head_dim: int):
        super().__init__()
        num_rates = width // (2 * len(grid))
        if not num_rates:
            raise ValueError(
                f"network.width={width} is too small for a sine and a cosine on each of {len(grid)} axes: raise it"
            )
        angles = _angles(grid, num_rates)
        table = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
        table = nn.functional.pad(table, (0, width - table.shape[1]))
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.table


class Learned(Positions):
    """A trained table that is initially the one of `SineCosine`."""

    def __init__(self, grid: Sequence[int], width: int, head_dim: int):
        super().__init__()
        self.table = nn.Parameter(SineCosine(grid, width, head_dim).table)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.table


class Rotary(Positions):
    """Rotary positions: pairs of features are rotated in proportion to the position, so that q k^T sees differences.

    Each axis has its share of the pairs, with rates base^(-i / share); remaining pairs are not rotated. Raises
    `ValueError` for heads without a pair for each axis. Source: Su et al. 2021, arXiv 2104.09864, equations 15 and 34.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: Sequence[int], width: int, head_dim: int, base: Annotated[float, Gt(0)] = 1e4):
        super().__init__()
        share = head_dim // (2 * len(grid))
        if head_dim % 2 or not share:
            raise ValueError(
                f"heads of width {head_dim} cannot be rotated in pairs along {len(grid)} axes: choose "
                f"network.num_heads so that network.width / num_heads is even and at least {2 * len(grid)}"
            )
        angles = _angles(grid, share, base).flatten(1)
        angles = nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[1]))
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    def rotate(self, q: Tensor) -> Tensor:
        a, b = q[..., ::2], q[..., 1::2]
        rotated = torch.stack([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=4)
        return rotated.flatten(3).to(q.dtype)
