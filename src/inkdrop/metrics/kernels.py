"""Maximum mean discrepancies: the squared distance between the means of kernel features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.pairwise import evenly, squared_distances
from inkdrop.randomness import MAX_SEED


@dataclass(frozen=True)
class KernelDistance(Metric):
    """The kernel distance by a polynomial of degree 3: `kid` on Inception, else `kd_{extractor}`.

    The value is the mean of the unbiased estimate over `num_subsets` pairs of random subsets of `subset_size` items,
    and `_std` is the standard deviation over the pairs. Its expectation does not depend on the number of samples, and
    it may be negative. The subsets are those of torch-fidelity for an equal `seed`. Raises `ValueError` if the
    reference is smaller than a subset. Source: Bińkowski et al. 2018, arXiv 1801.01401.
    """

    num_subsets: Annotated[int, Ge(1)] = 100
    subset_size: Annotated[int, Ge(2)] = 1000
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 2020

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def fewest(self, extractor: Extractor) -> int:
        return self.subset_size

    def remedy(self, name: str, count: int) -> str:
        return f"set metric.{name}.subset_size={count}, or take {self.subset_size} samples and hold out as many items"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        for what, items in (("held out", held_out), ("in the reference", reference)):
            if len(items["x"]) < self.subset_size:
                raise ValueError(
                    f"subset_size={self.subset_size} of the kernel distance is more than the {len(items['x'])} items "
                    f"{what}: set metric.kernel.subset_size={len(items['x'])}"
                )

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        first, second = (each.features_on(extractor.device) for each in (samples, reference))
        values = subset_distances(first, second, self.num_subsets, self.subset_size, self.seed)
        name = "kid" if extractor.name == "inception" else f"kd_{extractor.name}"
        return {name: values.mean().item(), f"{name}_std": values.std(correction=0).item()}


@dataclass(frozen=True)
class MaximumMeanDiscrepancy(Metric):
    """1000 times the squared mean discrepancy by a Gaussian kernel: `cmmd` on CLIP, else `mmd_{extractor}`.

    `bandwidth` is that of the kernel, in the unit of the features; 10, that of CMMD, is for embeddings of length 1.
    `max_items` items of the reference are used, evenly spread (null: all). Source: Jayasumana et al. 2024, arXiv
    2401.09603.
    """

    bandwidth: Annotated[float, Gt(0)] = 10.0
    max_items: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        first, second = (each.features_on(extractor.device) for each in (samples, reference))
        name = "cmmd" if extractor.name == "clip" else f"mmd_{extractor.name}"
        return {name: 1000 * gaussian_mmd(first, evenly(second, self.max_items), self.bandwidth)}


def subset_distances(x: Tensor, y: Tensor, num_subsets: int, subset_size: int, seed: int) -> Tensor:
    """Returns `polynomial_mmd` (num_subsets) of random subsets of x (N, D) and y (M, D), without replacement.

    Raises `ValueError` if N or M is below `subset_size`.
    """
    if min(len(x), len(y)) < subset_size:
        raise ValueError(
            f"subset_size={subset_size} of the kernel distance is more than the {len(x)} samples or the {len(y)} items "
            "of the reference: lower it"
        )
    chance = np.random.RandomState(seed)  # numpy promises that its numbers never change
    values = []
    for _ in range(num_subsets):
        first, second = (each[chance.choice(len(each), subset_size, replace=False)] for each in (x, y))
        values.append(polynomial_mmd(first, second))
    return torch.tensor(values, dtype=torch.float64)


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Returns the unbiased `E k(x, x') + E k(y, y') - 2 E k(x, y)` with `k(x, y) = (x . y / D + 1)^3`.

    x is (N, D) and y is (M, D).
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(among(x) + among(y) - 2 * kernel(x, y).mean())


def gaussian_mmd(x: Tensor, y: Tensor, bandwidth: float) -> float:
    """Returns `E k(x, x') + E k(y, y') - 2 E k(x, y)` with `k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))`.

    x is (N, D) and y is (M, D). Means are over all pairs, with those of an item and itself, and so never negative.
    """

    def mean(a: Tensor, b: Tensor) -> float:
        total = sum(float(block.div_(-2 * bandwidth**2).exp_().sum()) for block in squared_distances(a, b))
        return total / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)
