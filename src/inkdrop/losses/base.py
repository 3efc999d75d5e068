"""What is minimised in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from inkdrop.denoiser import Condition, NetworkDenoiser
from inkdrop.randomness import Generators


class LossTerms(NamedTuple):
    """A loss for each sample: what is minimised (B), the times it was taken at (B), and named parts for the log.

    `importance` (B) is the factor that the loss already has so that the law of the times does not change its mean.
    """

    loss: Tensor
    t: Tensor
    parts: Mapping[str, Tensor]
    importance: Tensor | None = None


class Loss(nn.Module):
    """One training objective; what it learns itself is trained and saved beside the model."""

    def check(self, denoiser: NetworkDenoiser) -> None:
        """`ValueError` says why this loss cannot train this denoiser, before anything is trained."""

    @abstractmethod
    def forward(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        generators: Generators,
        t: Tensor | None = None,
    ) -> LossTerms:
        """The loss of x_0 (B, *) at times drawn for it, or at given times t (B)."""
