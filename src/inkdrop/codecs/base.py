"""Between raw data and the x that is diffused."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar


class Codec(nn.Module):
    """Encodes raw data to x and decodes x to raw data; statistics are buffers and travel in the checkpoint.

    `discrete` says whether raw data are levels, which have probabilities, or real numbers, which have densities.
    """

    discrete: bool = False

    def check(self, data: Tensor) -> None:
        """`ValueError` for raw data (B, *) of a type that it cannot hold."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learns statistics from raw training data (B, *); most codecs have none."""

    @abstractmethod
    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        """Raw data (B, *) to x (B, *); random only with generators."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """x (B, *) to raw data (B, *)."""

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        """Log-probability or log-density of raw data (B, *) where x ~ N(mean, deviation^2), elementwise, in nats.

        The deviation is a float, (B) or (B, *). `ValueError` for a codec whose x does not determine a density.
        """
        raise ValueError(self._no_density())

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, float]:
        """x (B, *) of raw data, and log |dx / d data| for each element.

        Levels are spread evenly over their bins first, whose width counts as 1: the mean log-density over the spread is
        then at most the log-probability of the level. `ValueError` for a codec whose x does not determine a density.
        Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
        """
        raise ValueError(self._no_density())

    def _no_density(self) -> str:
        return f"{type(self).__name__} gives raw data no exact density: set likelihood=none, or choose another codec"
