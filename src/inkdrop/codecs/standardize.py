"""The codec of vectors and other real numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from inkdrop.codecs.base import Codec
from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar
from inkdrop.variational import gaussian


class Standardize(Codec):
    """Maps real numbers to `x = (data - mean) / std`, with one mean and one std over all elements of the training data.

    A single scale keeps the shape of a distribution. `fit` raises `ValueError` if the data do not vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def fit(self, batches: Iterable[Tensor]) -> None:
        count, total, squares = 0, 0.0, 0.0
        for batch in batches:
            values = batch.double()
            count, total, squares = (
                count + values.numel(),
                total + values.sum().item(),
                squares + values.square().sum().item(),
            )
        variance = squares / count - (total / count) ** 2
        if not variance > 0:
            raise ValueError(
                "the training data do not vary, and codec=standardize divides by their deviation: choose other data"
            )
        self.mean.fill_(total / count)
        self.std.fill_(variance**0.5)

    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        return (data.float() - self.mean) / self.std

    def decode(self, x: Tensor) -> Tensor:
        return x.float() * self.std + self.mean

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return gaussian(self.encode(data), mean, deviation) - self.std.log()

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, float]:
        return self.encode(data), -math.log(self.std.item())
