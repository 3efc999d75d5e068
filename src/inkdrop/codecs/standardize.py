"""The codec of vectors and other real numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.codecs.base import Batches, Codec
from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar
from inkdrop.variational import gaussian

_SIZE = 4096  # items of a batch of which statistics are taken


class Standardize(Codec):
    """Maps real numbers to `x = (data - mean) / std` with the statistics of the training data.

    `channels`, the first length of a sample, gives each channel or column its own mean and deviation, as numbers of
    different units need. Without it there is one mean and one deviation over all elements, which keeps the shape of a
    distribution. `fit` raises `ValueError` if the data, or one of the channels, do not vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.zeros(() if channels is None else channels))
        self.register_buffer("std", torch.ones(() if channels is None else channels))

    def check(self, data: Tensor) -> None:
        if self.channels not in (None, data.shape[1]):
            raise ValueError(f"codec.channels={self.channels}, but samples have the shape {list(data.shape[1:])}")

    def fit(self, batches: Batches, device: torch.device) -> None:
        count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for batch in batches(_SIZE, ["x"]):
            values = batch["x"].double()
            if self.channels is not None:
                values = values.transpose(0, 1).flatten(1)
            count += values.numel() // (self.channels or 1)
            total = total + _sum(values, self.channels)
            squares = squares + _sum(values.square(), self.channels)
        variance = squares / count - (total / count) ** 2
        if self.channels is None and not variance > 0:
            raise ValueError(
                "the training data do not vary, and codec=standardize divides by their deviation: choose other data"
            )
        if constant := (~(variance > 0)).reshape(-1).nonzero().flatten().tolist():
            raise ValueError(
                f"channel {constant[0]} of the training data does not vary, and codec.channels={self.channels} divides "
                "each channel by its deviation: leave it out of the data, or set codec.channels=null"
            )
        self.mean.copy_(total / count)
        self.std.copy_(variance**0.5)

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        data = batch["x"]
        return (data.float() - self._along(self.mean, data)) / self._along(self.std, data)

    def reconstruct(self, x: Tensor) -> Tensor:
        return x.float() * self._along(self.std, x) + self._along(self.mean, x)

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return gaussian(self.encode({"x": data}), mean, deviation) - self._along(self.std.log(), data)

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        return self.encode({"x": data}), -self._along(self.std.double().log(), data)

    def _along(self, statistic: Tensor, data: Tensor) -> Tensor:
        """A statistic that broadcasts to data (B, *)."""
        return statistic if self.channels is None else statistic.reshape(-1, *(1,) * (data.dim() - 2))


def _sum(values: Tensor, channels: int | None) -> Tensor:
    return values.sum() if channels is None else values.sum(1)
