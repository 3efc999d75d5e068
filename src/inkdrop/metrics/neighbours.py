"""Metrics by nearest neighbours among features: precision and recall, density and coverage, and copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.pairwise import evenly, squared_distances


@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """The share of samples near real items and of real items near samples: `precision_`, `recall_{extractor}`.

    A set covers a ball around each of its items, which reaches its `neighbours`-th nearest item. `max_items` items of
    the reference are used, evenly spread (null: all); only values at equal numbers are comparable. Raises `ValueError`
    if the reference is too small. Source: Kynkäänniemi et al. 2019, arXiv 1904.06991.
    """

    neighbours: Annotated[int, Ge(1)] = 3
    max_items: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def fewest(self, extractor: Extractor) -> int:
        return self.neighbours + 1

    def remedy(self, name: str, count: int) -> str:
        return f"take more samples, or set metric.{name}.neighbours={count - 1}"

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real = samples.features_on(extractor.device), reference.features_on(extractor.device)
        precision, recall = precision_recall(x, evenly(real, self.max_items), self.neighbours)
        return {f"precision_{extractor.name}": precision, f"recall_{extractor.name}": recall}


@dataclass(frozen=True)
class DensityCoverage(Metric):
    """How dense samples are around real items, and how many of these they reach: `density_`, `coverage_{extractor}`.

    Both use balls around real items alone, which reach the `neighbours`-th nearest item, and are therefore less
    sensitive to outliers than precision and recall. `max_items` items of the reference are used, evenly spread (null:
    all). Raises `ValueError` if the reference is too small. Source: Naeem et al. 2020, arXiv 2002.09797.
    """

    neighbours: Annotated[int, Ge(1)] = 5
    max_items: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real = samples.features_on(extractor.device), reference.features_on(extractor.device)
        density, coverage = density_coverage(x, evenly(real, self.max_items), self.neighbours)
        return {f"density_{extractor.name}": density, f"coverage_{extractor.name}": coverage}


@dataclass(frozen=True)
class NearestNeighbours(Metric):
    """Whether samples are copies of the reference, by their distances to its nearest items and those of held-out items.

    `nearest_{extractor}` is the mean distance, in the unit of the features. `copies_{extractor}` is the share of
    samples that are no further from the reference than the `quantile` of the distances of held-out items, so that new
    items of the same law score about `quantile`. Source: after Meehan et al. 2020, arXiv 2004.05675.
    """

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.01

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        x, real, new = (each.features_on(extractor.device) for each in (samples, reference, held_out))
        distances, others = nearest(x, real), nearest(new, real)
        copies = (distances <= others.quantile(self.quantile)).double().mean()
        return {f"nearest_{extractor.name}": distances.mean().item(), f"copies_{extractor.name}": copies.item()}


def precision_recall(x: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Returns the share of x (N, D) within the balls of real items (M, D), and of real items within those of x."""

    def covered(points: Tensor, centers: Tensor) -> float:
        radii = ball_radii(centers, neighbours)
        hits = sum(int((block <= radii).any(1).sum()) for block in _distances(points, centers))
        return hits / len(points)

    return covered(x, real), covered(real, x)


def density_coverage(x: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Returns the mean number of balls of real items (M, D) around x (N, D) / `neighbours`, and the share of balls hit.

    Balls are open, as in the authors' code: the density of the real items themselves is 1.
    """
    radii = ball_radii(real, neighbours)
    held = sum(int((block < radii).sum()) for block in _distances(x, real))
    gaps = torch.cat([block.min(1).values for block in _distances(real, x)])
    return held / (neighbours * len(x)), (gaps < radii).double().mean().item()


def ball_radii(x: Tensor, neighbours: int) -> Tensor:
    """Returns the distance (N) of each x (N, D) to its `neighbours`-th nearest other; `ValueError` for too few."""
    if len(x) <= neighbours:
        raise ValueError(f"neighbours={neighbours} must be at most {len(x) - 1} for {len(x)} items: lower it")
    return torch.cat([block.kthvalue(neighbours + 1).values for block in _distances(x, x)])


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance (N), float64, of each x (N, D) to the nearest y (M, D), which is exactly 0 for a copy."""
    items = torch.cat([block.argmin(1) for block in squared_distances(x, y)])
    parts = zip(x.split(1000), items.split(1000), strict=True)
    return torch.cat([(rows.double() - y[part].double()).norm(dim=1) for rows, part in parts])


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Blocks (B, M), rounded so that equal distances are equal however the sums were ordered."""
    return (block.sqrt_().float() for block in squared_distances(x, y))
