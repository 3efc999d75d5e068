"""What every codec between raw data and x promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Batches(Protocol):
    """Training data from which statistics are computed: each call iterates once over all items."""

    def __call__(self, size: int, names: Collection[str] | None = None, /) -> Iterable[Mapping[str, Tensor]]:
        """Returns raw batches of this size with these fields, or all; no batches if the data lack these fields."""


class Codec(nn.Module):
    """Encodes raw data to the x that is diffused, and decodes x to raw data.

    Statistics are buffers and are therefore saved in the checkpoint. `discrete` says whether raw data are levels, which
    have probabilities, or real numbers, which have densities.
    """

    discrete: bool = False
    range: tuple[float, float] | None = None  # of x, where the data have one

    def check(self, data: Tensor) -> None:
        """Raises `ValueError` if this codec cannot represent raw data (B, *) of this type and shape."""

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns the further fields of a raw batch that the codec reads, by which a model is tried; most read none."""
        return {}

    def shape(self, raw: Sequence[int]) -> list[int]:
        """Returns the shape of x for raw data of this shape, both without the batch."""
        return list(raw)

    def fit(self, batches: Batches, device: torch.device) -> None:
        """Computes statistics of the training data, on this device if that is expensive; most codecs have none."""

    @abstractmethod
    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        """Encodes a raw batch, whose field "x" is the data (B, *), to x (B, *); random only if generators are given."""

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        """Decodes x (B, *) to raw data (B, *).

        `batch` is the raw batch of conditions, and `extras` are the further outputs of the network's last call.
        """
        return self.reconstruct(x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decodes x (B, *) to real numbers in the unit of the raw data; differentiable, without rounding."""
        raise ValueError(f"{type(self).__name__} has no differentiable decoder")

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        """Returns the log-probability or log-density of raw data (B, *) where x ~ N(mean, deviation^2).

        It is elementwise, (B, *), in nats. The deviation is a float, (B) or (B, *). Raises `ValueError` if x does not
        determine a density of the raw data.
        """
        raise ValueError(self._no_density())

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """Returns x (B, *) of raw data, and log |dx / d data| for each element, which broadcasts to x.

        Levels are first spread uniformly over their bins, and the width of a bin counts as 1. The mean log-density over
        the spread is then at most the log-probability of the level. Raises `ValueError` if x does not determine a
        density of the raw data. Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
        """
        raise ValueError(self._no_density())

    def _no_density(self) -> str:
        return f"{type(self).__name__} has no exact density of raw data: set likelihood=none, or choose another codec"
