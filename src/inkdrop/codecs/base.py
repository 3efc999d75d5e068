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
    """Training data to learn statistics of: each call goes once over the items, in batches of this size."""

    def __call__(self, size: int, names: Collection[str] | None = None, /) -> Iterable[Mapping[str, Tensor]]:
        """Raw batches with these fields, or all; none where the data have no field of these names."""


class Codec(nn.Module):
    """Encodes raw data to the x that is diffused, and decodes x to raw data.

    Statistics are buffers and are therefore saved in the checkpoint. `discrete` says whether raw data are levels, which
    have probabilities, or real numbers, which have densities.
    """

    discrete: bool = False
    range: tuple[float, float] | None = None  # of x, where the data have one

    def check(self, data: Tensor) -> None:
        """Raises `ValueError` for raw data (B, *) that it cannot hold."""

    def shape(self, raw: Sequence[int]) -> list[int]:
        """The shape of x for raw data of this shape, both without the batch."""
        return list(raw)

    def fit(self, batches: Batches, device: torch.device) -> None:
        """Learns statistics of the training data, on this device where that is much work; most codecs have none."""

    @abstractmethod
    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        """x (B, *) of a raw batch, whose field "x" holds the data (B, *); random only with generators."""

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        """Raw data (B, *) of x (B, *).

        `batch` is the raw batch of conditions, and `extras` are the further outputs of the network in its last call.
        """
        return self.reconstruct(x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The differentiable part of `decode`: x (B, *) to real numbers in the unit of the raw data."""
        raise ValueError(f"{type(self).__name__} has no differentiable decoder")

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        """Returns the log-probability or log-density of raw data (B, *) where x ~ N(mean, deviation^2).

        It is elementwise, (B, *), in nats. The deviation is a float, (B) or (B, *). Raises `ValueError` if x does not
        determine a density of the raw data.
        """
        raise ValueError(self._no_density())

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        """x (B, *) of raw data, and log |dx / d data| for each element, which broadcasts to x.

        Levels are first spread uniformly over their bins, and the width of a bin counts as 1. The mean log-density over
        the spread is then at most the log-probability of the level. Raises `ValueError` if x does not determine a
        density of the raw data. Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
        """
        raise ValueError(self._no_density())

    def _no_density(self) -> str:
        return f"{type(self).__name__} has no exact density of raw data: set likelihood=none, or choose another codec"
