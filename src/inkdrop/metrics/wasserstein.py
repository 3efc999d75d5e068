"""Wasserstein distances of order 2: over random directions, and by exact assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.randomness import MAX_SEED, Generators

BLOCK = 32  # projections at once
MOST = 20_000  # points of an exact assignment
PART = 1500  # points whose dual solution makes that of all points faster


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
    10,000 points take about a minute and 1.6 GB. Raises `ValueError` if the numbers of items differ.
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
    from scipy.optimize import linear_sum_assignment

    if len(x) != len(y):
        raise ValueError(f"the exact assignment pairs equally many points, not {len(x)} and {len(y)}")
    cost = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square_()
    rows, columns = linear_sum_assignment(_reduced(cost).numpy())
    return float(cost[rows, columns].mean())


def _reduced(cost: Tensor) -> Tensor:
    """Returns costs (N, N) minus numbers of each row and column, which has the same optimal assignments.

    The numbers are the dual solution of a part of the rows and columns, extended to all of them. With them the search
    for the assignment visits few columns, where it otherwise takes many times as long for sets that differ.
    """
    count = len(cost)
    if count <= PART:
        return cost
    generator = torch.Generator().manual_seed(0)
    part, other = (torch.randperm(count, generator=generator)[:PART] for _ in range(2))
    v = _dual(cost[part][:, other])
    u = (cost[:, other] - v).amin(1)
    columns = (cost - u[:, None]).amin(0)
    reduced = cost - columns
    return reduced.sub_(reduced.amin(1, keepdim=True))


def _dual(cost: Tensor) -> Tensor:
    """Returns v (N) of an optimal dual solution of costs (N, N): `u_i + v_j <= cost_ij`, equal in the assignment."""
    from scipy.optimize import linear_sum_assignment

    _, assigned = linear_sum_assignment(cost.numpy())
    order = torch.from_numpy(assigned)
    lengths = cost[:, order]
    lengths = lengths - lengths.diagonal()[:, None]  # v of the column of k is at most v of the column of i plus this
    potential = torch.zeros(len(cost), dtype=cost.dtype)
    for _ in range(len(cost)):  # shortest paths, by Bellman and Ford
        shorter = torch.minimum(potential, (potential[:, None] + lengths).amin(0))
        if torch.equal(shorter, potential):
            break
        potential = shorter
    return torch.empty_like(potential).scatter_(0, order, potential)


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
