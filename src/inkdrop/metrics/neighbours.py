"""Metrics of nearest neighbours among features: precision and recall, density and coverage, and copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.pairwise import evenly, squared_distances


@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Shares of samples among real items and of real items among samples: `precision_`, `recall_{extractor}`.

    A set covers a ball around each of its items that reaches its `neighbours`-th nearest. Of the reference `max_items`
    items are read (null: all), evenly spread; values are comparable at equal numbers only. `ValueError` if the
    reference is too small. Source: Kynkäänniemi et al. 2019, arXiv 1904.06991.
    """

    neighbours: Annotated[int, Ge(1)] = 3
    max_items: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def fewest(self, extractor: Extractor) -> int:
        return self.neighbours + 1

    def remedy(self, name: str, count: int) -> str:
        return f"more samples, or metric.{name}.neighbours={count - 1}"

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real = samples.features_on(extractor.device), reference.features_on(extractor.device)
        precision, recall = precision_recall(x, evenly(real, self.max_items), self.neighbours)
        return {f"precision_{extractor.name}": precision, f"recall_{extractor.name}": recall}


@dataclass(frozen=True)
class DensityCoverage(Metric):
    """How densely samples lie around real items, and how many of those they reach: `density_`, `coverage_{extractor}`.

    Both count in balls around real items alone, up to their `neighbours`-th nearest, and so heed outliers less than
    precision and recall. Of the reference `max_items` items are read (null: all), evenly spread. `ValueError` if the
    reference is too small. Source: Naeem et al. 2020, arXiv 2002.09797.
    """

    neighbours: Annotated[int, Ge(1)] = 5
    max_items: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real = samples.features_on(extractor.device), reference.features_on(extractor.device)
        density, coverage = density_coverage(x, evenly(real, self.max_items), self.neighbours)
        return {f"density_{extractor.name}": density, f"coverage_{extractor.name}": coverage}


@dataclass(frozen=True)
class NearestNeighbours(Metric):
    """Whether samples are copies: how far they are from the nearest items of the reference, beside held-out items.

    `nearest_{extractor}` is the mean distance, in the unit of the features; `copies_{extractor}` is the share of
    samples that lie no further off than the `quantile` of held-out items nearest to the reference, so that new items of
    the same law have about `quantile`. Source: after Meehan et al. 2020, arXiv 2004.05675.
    """

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.01

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real, new = (each.features_on(extractor.device) for each in (samples, reference, held_out))
        own, others = nearest(x, real), nearest(new, real)
        copies = (own <= others.quantile(self.quantile)).double().mean()
        return {f"nearest_{extractor.name}": own.mean().item(), f"copies_{extractor.name}": copies.item()}


def precision_recall(x: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Share of x (N, D) within the balls of the real items (M, D), and of real items within those of x."""

    def covered(points: Tensor, centers: Tensor) -> float:
        radii = ball_radii(centers, neighbours)
        hits = sum(int((block <= radii).any(1).sum()) for block in _distances(points, centers))
        return hits / len(points)

    return covered(x, real), covered(real, x)


def density_coverage(x: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Mean number of balls of real items (M, D) around x (N, D), divided by `neighbours`, and share of balls hit.

    Balls are open, as in the authors' code: the density of the real items themselves is 1.
    """
    radii = ball_radii(real, neighbours)
    held = sum(int((block < radii).sum()) for block in _distances(x, real))
    gaps = torch.cat([block.min(1).values for block in _distances(real, x)])
    return held / (neighbours * len(x)), (gaps < radii).double().mean().item()


def ball_radii(x: Tensor, neighbours: int) -> Tensor:
    """Distance (N) of each of x (N, D) to the `neighbours`-th nearest other one; `ValueError` if there is none."""
    if len(x) <= neighbours:
        raise ValueError(f"neighbours={neighbours}, but of {len(x)} items each has {len(x) - 1} others")
    return torch.cat([block.kthvalue(neighbours + 1).values for block in _distances(x, x)])


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distance (N), float64, of each of x (N, D) to the nearest of y (M, D), and exactly 0 for a copy."""
    items = torch.cat([block.argmin(1) for block in squared_distances(x, y)])
    parts = zip(x.split(1000), items.split(1000), strict=True)
    return torch.cat([(own.double() - y[part].double()).norm(dim=1) for own, part in parts])


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Blocks (B, M), rounded so that equal distances are equal however the sums were ordered."""
    return (block.sqrt_().float() for block in squared_distances(x, y))
