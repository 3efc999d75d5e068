"""A network with one output for a whole sample."""

from __future__ import annotations

from torch import Tensor, nn


class Pooled(nn.Module):
    """The mean over places of a network's output: `network(x (B, C, *), c_noise (B), **cond) -> (B, K)`.

    - `network`: returns K channels (B, K, *).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
        h: Tensor = self.network(x, c_noise, **cond)
        return h.flatten(2).mean(2)
