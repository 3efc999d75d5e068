"""Distances between all pairs of features, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

BLOCK = 2**22  # distances held at once


def squared_distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yields `|x_i - y_j|^2` in float64 of rows of x (N, D) and y (M, D), in blocks (B, M) of rows of x."""
    x, y = x.double(), y.double()
    center = y.mean(0)  # far from the origin the difference of squares would lose digits
    x, y = x - center, y - center
    norms = y.square().sum(1)
    for rows in x.split(max(1, BLOCK // len(y))):
        yield norms.addmm(rows, y.T, alpha=-2).add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def evenly(features: Tensor, max_items: int | None) -> Tensor:
    """Returns at most `max_items` rows of features (N, D), evenly spread over all; None is all."""
    if max_items is None or max_items >= len(features):
        return features
    return features[[i * len(features) // max_items for i in range(max_items)]]
