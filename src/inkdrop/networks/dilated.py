"""The network of TimeGrad for vectors.  B batch, D data, W channels, V condition, E embedding."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Len
from torch import Tensor, nn

from inkdrop.networks.layers import check_doors, sinusoidal, zeroed


class _Layer(nn.Module):
    """A gated convolution along the vector, whose neighbours are `dilation` apart; its ends meet."""

    def __init__(self, width: int, embedding: int, dilation: int):
        super().__init__()
        self.time = nn.Linear(embedding, width)
        self.near = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation, padding_mode="circular")
        self.vector = nn.Conv1d(1, 2 * width, 1)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, h: Tensor, embedding: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        gate, values = (self.near(h + self.time(embedding)[:, :, None]) + self.vector(vector)).chunk(2, 1)
        residual, skip = self.out(gate.sigmoid() * values.tanh()).chunk(2, 1)
        return (h + residual) / 2**0.5, skip


class Dilated(nn.Module):
    """The network of TimeGrad: gated convolutions along the vector, dilated in turn, under a condition.

    `network(x (B, D), c_noise (B), vector (B, V)) -> (B, D)`. The output is 0 at first.

    - `shape`: [D]; at least as long as the largest dilation.
    - `width`: number of channels W.
    - `depth`: number of layers.
    - `cycle`: the dilations are 1, 2, 4, ... over so many layers, and again.
    - `embedding_dim`: width E of the embedding of the time.
    - `vector_dim`: width V of the condition, 0 for none.

    Raises `ValueError` for a vector that is shorter than a dilation, and for a condition that it was not built for.
    Sources: Rasul et al. 2021, arXiv 2101.12072, section 4; Kong et al. 2021, arXiv 2009.09761 (the layers).
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(1, 1)],
        width: Annotated[int, Ge(1)] = 8,
        depth: Annotated[int, Ge(1)] = 8,
        cycle: Annotated[int, Ge(1)] = 2,
        embedding_dim: Annotated[int, Ge(4)] = 64,
        vector_dim: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        dilations = [2 ** (layer % cycle) for layer in range(depth)]
        if max(dilations) > shape[0]:
            raise ValueError(
                f"network.cycle={cycle} has the dilation {max(dilations)}, but there are {shape[0]} channels: lower it"
            )
        self.doors, self.embedding_dim = {"vector": vector_dim}, embedding_dim
        self.time = nn.Sequential(
            nn.Linear(embedding_dim, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        between = max(shape[0] // 2, 8)
        layers = nn.Sequential(nn.Linear(vector_dim or 1, between), nn.SiLU(), nn.Linear(between, shape[0]))
        self.spread = layers if vector_dim else None
        self.enter = nn.Conv1d(1, width, 1)
        self.layers: Any = nn.ModuleList(_Layer(width, embedding_dim, dilation) for dilation in dilations)
        self.leave = nn.Sequential(nn.Conv1d(width, width, 1), nn.SiLU(), zeroed(nn.Conv1d(width, 1, 1)))

    def forward(self, x: Tensor, c_noise: Tensor, vector: Tensor | None = None) -> Tensor:
        check_doors(self.doors, vector=vector)
        embedding = nn.functional.silu(self.time(sinusoidal(c_noise, self.embedding_dim).to(x.dtype)))
        spread = torch.zeros_like(x) if self.spread is None else self.spread(vector)
        h, total = nn.functional.silu(self.enter(x[:, None])), torch.zeros((), device=x.device, dtype=x.dtype)
        for layer in self.layers:
            h, skip = layer(h, embedding, spread[:, None])
            total = total + skip
        return self.leave(total / len(self.layers) ** 0.5)[:, 0]
