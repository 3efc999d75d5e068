"""The codec of data that are diffused as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inkdrop.codecs.base import Codec
from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar
from inkdrop.variational import gaussian


class Unchanged(Codec):
    """Leaves real numbers as they are, `x = data`, for flows between distributions in the unit of the data."""

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].float()

    def reconstruct(self, x: Tensor) -> Tensor:
        return x.float()

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return gaussian(self.encode({"x": data}), mean, deviation)

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        return self.encode({"x": data}), torch.zeros((), dtype=torch.float64)
