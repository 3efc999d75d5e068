"""From what a user or a data set says about a sample to what a network is told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators


class Conditioner(nn.Module):
    """Makes some of `vector (B, D)`, `tokens (B, L, D)`, `concat (B, C, *)`, `mask (B, L)` for the network.

    The condition, its dropout in training and its null value come from this one place.
    """

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Condition:
        """The condition of a raw batch; with generators some conditions are dropped, as training wants it."""

    @abstractmethod
    def null(self, cond: Condition) -> Condition:
        """The same condition emptied."""

    @abstractmethod
    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """A raw batch for samples with these seeds from a user's words; `ValueError` for words it does not know."""


class Unconditional(Conditioner):
    """No condition."""

    def forward(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Condition:
        return {}

    def null(self, cond: Condition) -> Condition:
        return {}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        if condition:
            raise ValueError(f"this model takes no condition: remove condition.{next(iter(condition))}")
        return {}
