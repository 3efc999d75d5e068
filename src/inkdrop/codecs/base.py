"""What every codec between raw data and x promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar


class Codec(nn.Module):
    """Encodes raw data to the x that is diffused, and decodes x to raw data.

    Statistics are buffers and are therefore saved in the checkpoint. `discrete` says whether raw data are levels, which
    have probabilities, or real numbers, which have densities.
    """

    discrete: bool = False

    def check(self, data: Tensor) -> None:
        """Raises `ValueError` if this codec cannot represent raw data (B, *) of this type."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Computes statistics of raw training data, batches (B, *); most codecs have none."""

    @abstractmethod
    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        """Encodes raw data (B, *) to x (B, *); the result is random only if generators are given."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Decodes x (B, *) to raw data (B, *)."""

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        """Returns the log-probability or log-density of raw data (B, *) where x ~ N(mean, deviation^2).

        It is elementwise, (B, *), in nats. The deviation is a float, (B) or (B, *). Raises `ValueError` if x does not
        determine a density of the raw data.
        """
        raise ValueError(self._no_density())

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, float]:
        """Returns x (B, *) of raw data, and log |dx / d data| for each element.

        Levels are first spread uniformly over their bins, and the width of a bin counts as 1. The mean log-density over
        the spread is then at most the log-probability of the level. Raises `ValueError` if x does not determine a
        density of the raw data. Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
        """
        raise ValueError(self._no_density())

    def _no_density(self) -> str:
        return f"{type(self).__name__} has no exact density of raw data: set likelihood=none, or choose another codec"
