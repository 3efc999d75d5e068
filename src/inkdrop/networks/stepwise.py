"""A network of vectors at each step of a series.  B batch, C channels, T steps, W width of the condition."""

from __future__ import annotations

from torch import Tensor, nn


class Stepwise(nn.Module):
    """Applies a network of vectors to each step of a series by itself, under its own part of the condition.

    `network(x (B, C, T), c_noise (B), concat (B, W, T)) -> (B, C, T)`; the inner one is called as `network(x (B T, C),
    c_noise (B T), vector (B T, W)) -> (B T, C)`. The number of steps may be any.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, concat: Tensor | None = None) -> Tensor:
        steps = x.shape[-1]
        cond = {} if concat is None else {"vector": concat.transpose(1, 2).flatten(0, 1)}
        out = self.network(x.transpose(1, 2).flatten(0, 1), c_noise.repeat_interleave(steps), **cond)
        return out.unflatten(0, (-1, steps)).transpose(1, 2)
