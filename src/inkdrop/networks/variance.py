"""A network that also predicts the variance of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn


class LearnedVariance(nn.Module):
    """A network with twice the channels, half of which predict the variance of a step; for the hybrid loss.

    `network(...) -> F (B, C, *), {"variance": v (B, C, *)}`. The network inside is made by `network(out_channels=2 C)`.
    v = -1 means the small deviation of a step, and v = 1 the large one. Source: Nichol and Dhariwal 2021, arXiv
    2102.09672, section 3.1.
    """

    def __init__(self, network: Callable[..., nn.Module], channels: Annotated[int, Ge(1)]):
        super().__init__()
        self.network = network(out_channels=2 * channels)

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        F, variance = self.network(x, c_noise, **cond).chunk(2, dim=1)
        return F, {"variance": variance}
