"""Distances between features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.frechet import frechet_distance
from inkdrop.metrics.metric import Extracted, Metric, Results


@dataclass(frozen=True)
class FrechetDistance(Metric):
    """Fréchet distance between Gaussians fitted to features: `fid` on Inception, else `fd_{extractor}`.

    `min_samples` is the fewest samples that it is taken on; null is one more than there are features, as the covariance
    of fewer is singular. Source: Heusel et al. 2017, arXiv 1706.08500.
    """

    min_samples: Annotated[int, Ge(2)] | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"statistics"})

    def fewest(self, extractor: Extractor) -> int:
        return self.min_samples or extractor.dim + 1

    def remedy(self, name: str, count: int) -> str:
        return f"more samples, or metric=[kernel] metric.kernel.subset_size={count}, whose mean does not depend on n"

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        assert samples.statistics is not None
        assert reference.statistics is not None
        name = "fid" if extractor.name == "inception" else f"fd_{extractor.name}"
        return {name: frechet_distance(samples.statistics, reference.statistics)}
