"""Between raw data and the x that is diffused."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from inkdrop.randomness import Generators


class Codec(nn.Module):
    """Encodes raw data to x and decodes x to raw data; statistics are buffers and travel in the checkpoint."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learns statistics from raw training data (B, *); most codecs have none."""

    @abstractmethod
    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        """Raw data (B, *) to x (B, *); random only with generators."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """x (B, *) to raw data (B, *)."""
