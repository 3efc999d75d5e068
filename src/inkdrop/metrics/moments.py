"""Mean and covariance of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from inkdrop.errors import require_finite


class Statistics(NamedTuple):
    """The mean (D) and covariance (D, D) of features, both float64, and the number of samples."""

    mean: Tensor
    covariance: Tensor
    num_samples: int

    def cpu(self) -> Statistics:
        """Returns the statistics on the CPU, which is fastest for small eigenvalue problems in float64."""
        return Statistics(self.mean.cpu(), self.covariance.cpu(), self.num_samples)


class GaussianStatistics(Metric):
    """Mean and covariance of features (B, D), summed in float64 in constant memory.

    Sums of several ranks are added before they are used, unless `sync_on_compute` is false. Raises `NonFiniteError` for
    features that are not finite, and `ValueError` for fewer than two samples.
    """

    full_state_update = False
    sum: Tensor
    outer: Tensor
    count: Tensor

    def __init__(self, dim: int, sync_on_compute: bool = True):
        super().__init__(sync_on_compute=sync_on_compute)
        self.add_state("sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, what: str = "the features of rows", names: Sequence[int] | None = None) -> None:
        """Adds features (B, D); an error says `what` they are, and the names (B) of those that are not finite."""
        require_finite(features, what, range(len(features)) if names is None else names)
        features = features.double()
        self.sum += features.sum(0)
        self.outer += features.T @ features
        self.count += len(features)

    def compute(self) -> Statistics:
        """Returns the statistics so far; the covariance is divided by n - 1."""
        count = int(self.count)
        if count < 2:
            raise ValueError(f"{count} samples are too few for statistics, which need at least 2: add samples")
        mean = self.sum / count
        return Statistics(mean, (self.outer - count * torch.outer(mean, mean)) / (count - 1), count)
