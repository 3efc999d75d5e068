"""Numbers in deviations of their channel or column, as features."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Len
from torch import Tensor

from inkdrop.data.loaders import Column
from inkdrop.metrics.extractors import Extractor

_ITEMS = 4096  # of which statistics are computed at a time


class Standardized(Extractor):
    """Numbers in deviations of their channel or column from its mean over the training data, flattened.

    It is for vectors and series whose columns have unlike units, of which the largest would decide every distance on
    the data themselves. `shape` is that of a sample. A constant column keeps its unit.
    """

    name = "standardized"
    mean: Tensor
    std: Tensor

    def __init__(self, shape: Annotated[list[Annotated[int, Ge(1)]], Len(1)]):
        super().__init__()
        self.dim = math.prod(shape)
        # The data determine them, so that the digest has no part in them.
        self.register_buffer("mean", torch.zeros(shape[0], *(1,) * (len(shape) - 1)), persistent=False)
        self.register_buffer("std", torch.ones(shape[0], *(1,) * (len(shape) - 1)), persistent=False)

    def fit(self, train: Column) -> None:
        count, sums = 0, torch.zeros(2, len(self.mean)).double()
        for items in torch.arange(len(train)).split(_ITEMS):
            values = train[items].double().transpose(0, 1).flatten(1)
            count += values.shape[1]
            sums += torch.stack([values.sum(1), values.square().sum(1)])
        mean, square = sums / count
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.std.copy_(torch.where(deviation > 0, deviation, 1.0).reshape(self.std.shape))

    def forward(self, data: Tensor) -> Tensor:
        return ((data.float() - self.mean) / self.std).flatten(1)
