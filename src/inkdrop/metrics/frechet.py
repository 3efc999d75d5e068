"""The Fréchet distance between Gaussians fitted to features."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from scipy import linalg
from torch import Tensor

from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.moments import Statistics


@dataclass(frozen=True)
class FrechetDistance(Metric):
    """The Fréchet distance between Gaussians fitted to features: `fid` on Inception, else `fd_{extractor}`.

    `min_samples` is the smallest number of samples that is accepted; null is one more than there are features, because
    the covariance of fewer samples is singular. Source: Heusel et al. 2017, arXiv 1706.08500.
    """

    min_samples: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"statistics"})

    def fewest(self, extractor: Extractor) -> int:
        return self.min_samples or extractor.dim + 1

    def remedy(self, name: str, count: int) -> str:
        return f"take more samples, or set metric=[kernel] metric.kernel.subset_size={count}, which has no bias in n"

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        assert samples.statistics is not None
        assert reference.statistics is not None
        name = "fid" if extractor.name == "inception" else f"fd_{extractor.name}"
        return {name: frechet_distance(samples.statistics, reference.statistics)}


_LARGE = 1536  # features, from which matrix products by blocks are faster than LAPACK's reduction


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Returns `|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`, in the square of the unit of the features.

    The last trace is the sum of the roots of the eigenvalues of C_1 C_2. These are those of the symmetric `L^T C_2 L`
    with `C_1 = L L^T`; L is the Cholesky factor, or a root by eigenvectors where C_1 is singular. Sources: Dowson and
    Landau 1982, J. Multivariate Analysis 12; Heusel et al. 2017, arXiv 1706.08500.
    """
    first, second = first.cpu(), second.cpu()
    traces = first.covariance.trace() + second.covariance.trace()
    roots = _eigenvalues(first.covariance, second.covariance).clamp(min=0).sqrt()
    return float((first.mean - second.mean).square().sum() + traces - 2 * roots.sum())


def _eigenvalues(first: Tensor, second: Tensor) -> Tensor:
    """Returns the eigenvalues (D) of the product of two covariances (D, D)."""
    if len(first) < _LARGE:
        with contextlib.suppress(linalg.LinAlgError):
            return torch.as_tensor(linalg.eigvalsh(second.numpy(), first.numpy(), type=2, driver="gv"))
    else:
        L, failed = torch.linalg.cholesky_ex(first)
        if not failed:
            return torch.linalg.eigvalsh(lower_product(L, second))
    eigenvalues, vectors = torch.linalg.eigh(first)
    L = vectors * eigenvalues.clamp(min=0).sqrt()
    return torch.linalg.eigvalsh(L.T @ second @ L)


def lower_product(L: Tensor, C: Tensor, num_blocks: int = 4) -> Tensor:
    """Returns the lower triangle of `L^T C L` (D, D) for a lower triangular L and a symmetric C.

    It leaves products with zeros out, and above the triangle there is anything: `eigvalsh` does not read it.
    """
    size = -(-len(L) // num_blocks)
    right, product = torch.empty_like(C), torch.empty_like(C)
    for start in range(0, len(L), size):
        columns = slice(start, start + size)
        right[:, columns] = C[:, start:] @ L[start:, columns]
    for start in range(0, len(L), size):
        rows = slice(start, start + size)
        product[rows, : start + size] = L[start:, rows].T @ right[start:, : start + size]
    return product
