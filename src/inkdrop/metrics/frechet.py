"""The Fréchet distance between Gaussians fitted to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from scipy import linalg

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


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Returns `|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`, in the square of the unit of the features.

    The last trace is the sum of the roots of the eigenvalues of C_1 C_2. These are those of the symmetric `L^T C_2 L`
    with `C_1 = L L^T`; L is the Cholesky factor, which LAPACK applies without forming the product, or a root by
    eigenvectors where C_1 is singular. Sources: Dowson and Landau 1982, J. Multivariate Analysis 12; Heusel et al.
    2017, arXiv 1706.08500.
    """
    first, second = first.cpu(), second.cpu()
    try:
        values = linalg.eigvalsh(second.covariance.numpy(), first.covariance.numpy(), type=2, driver="gv")
    except linalg.LinAlgError:
        eigenvalues, vectors = torch.linalg.eigh(first.covariance)
        L = vectors * eigenvalues.clamp(min=0).sqrt()
        values = torch.linalg.eigvalsh(L.T @ second.covariance @ L).numpy()
    traces = first.covariance.trace() + second.covariance.trace()
    roots = torch.as_tensor(values).clamp(min=0).sqrt()
    return float((first.mean - second.mean).square().sum() + traces - 2 * roots.sum())
