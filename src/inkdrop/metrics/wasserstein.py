"""Wasserstein distances of order 2: over random directions, and by exact assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.data.loaders import Split
from inkdrop.losses.assignment import assigned
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.randomness import MAX_SEED, Generators

BLOCK = 32  # projections at once
MOST = 20_000  # points of an exact assignment


@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """The sliced Wasserstein distance of order 2, in the unit of the features: `swd_{extractor}`; for vectors.

    The mean is over `num_projections` random directions, drawn from `seed`. Source: Bonneel et al. 2015, J. Math.
    Imaging Vis. 51.
    """

    num_projections: Annotated[int, Ge(1)] = 1000
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        first, second = (each.features_on(extractor.device) for each in (samples, reference))
        directions = random_directions(self.num_projections, extractor.dim, self.seed).to(first.device)
        return {f"swd_{extractor.name}": sliced_wasserstein(first, second, directions)}


@dataclass(frozen=True)
class SquaredWasserstein(Metric):
    """The squared Wasserstein distance of order 2, in the squared unit of the features: `w2_squared_{extractor}`.

    `min over permutations s of mean_i |x_i - y_s(i)|^2`, with as many real items as samples, by exact assignment. Two
    sets of the same law are not at 0, as the floor shows. The cost grows with the third power of the number:
    The costs of 10,000 points are 0.8 GB, and for sets that differ much there are three such tables. Raises
    `ValueError` if the numbers of items differ.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        if (count := len(reference["x"])) > MOST:
            raise ValueError(
                f"metric=w2_squared compares at most {MOST} points, but evaluation.reference has {count}: choose "
                " a smaller split, such as evaluation.reference=validation"
            )

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        first, second = (each.features_on(torch.device("cpu")) for each in (samples, reference))
        return {f"w2_squared_{extractor.name}": exact_squared_wasserstein(first, second[: len(first)])}


def exact_squared_wasserstein(x: Tensor, y: Tensor) -> float:
    """Returns `W_2^2` of x (N, D) and y (N, D); raises `ValueError` for sets of different sizes."""
    if len(x) != len(y):
        raise ValueError(f"the exact assignment pairs equally many points, not {len(x)} and {len(y)}")
    cost = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square_()
    return float(cost.gather(1, assigned(cost)[:, None]).mean())


def random_directions(count: int, dim: int, seed: int) -> Tensor:
    """Returns unit vectors (count, dim), float64, uniform over the sphere."""
    normal = Generators.from_positions(seed, range(count)).at("projection").normal((dim,), torch.float64)
    return nn.functional.normalize(normal, eps=0)


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> float:
    """Returns `(E_w W_2^2(w . x, w . y))^(1/2)` of x (N, D) and y (M, D) over directions w (P, D)."""
    x, y = x.double().T, y.double().T
    total = sum(float(squared_wasserstein(part @ x, part @ y).sum()) for part in directions.split(BLOCK))
    return (total / len(directions)) ** 0.5


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Returns `W_2^2 = integral over u in (0, 1) of (F_x^-1(u) - F_y^-1(u))^2` (P) of numbers x (P, N) and y (P, M)."""
    x, y = x.sort(1).values, y.sort(1).values
    n, m = x.shape[1], y.shape[1]
    # Both quantile functions are step functions, at multiples of 1 / n and 1 / m, counted here in units of 1 / (n m).
    starts = torch.cat([torch.arange(n) * m, torch.arange(m) * n]).unique()
    widths = starts.diff(append=torch.tensor([n * m])).to(x.device) / (n * m)
    starts = starts.to(x.device)
    return ((x[:, starts // m] - y[:, starts // n]).square() * widths).sum(1)
