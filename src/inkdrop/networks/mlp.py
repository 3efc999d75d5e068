"""A residual network for vectors.  B batch, D data, W width, V condition, L tokens, T their width."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import Attention, check_doors, scaled_dot_product, sinusoidal, zeroed


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Linear(width, 2 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Linear(width, width))
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.embedding(embedding).chunk(2, dim=1)
        return x + self.layers(self.norm(x) * (1 + scale) + shift)


class MLP(nn.Module):
    """A residual network for vectors, whose blocks are scaled and shifted by the embedding of the time.

    `network(x (B, D), c_noise (B), vector (B, V), tokens (B, L, T), mask (B, L)) -> (B, D)`. The embedding attends to
    the tokens.

    - `shape`: [D].
    - `width`: width W of the hidden layers.
    - `num_blocks`: number of residual blocks.
    - `dropout`: dropout in the blocks.
    - `vector_dim`, `token_dim`: widths V and T of the conditions, 0 for none.

    Raises `ValueError` for a condition that the network was not built for, or for a missing one.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(1, 1)],
        width: Annotated[int, Ge(4)],
        num_blocks: Annotated[int, Ge(1)],
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        vector_dim: Annotated[int, Ge(0)] = 0,
        token_dim: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        self.width, self.doors = width, {"vector": vector_dim, "tokens": token_dim, "mask": token_dim}
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.vector = nn.Linear(vector_dim, width) if vector_dim else None
        self.attention = Attention(width, None, 1, 1e-6, scaled_dot_product, token_dim) if token_dim else None
        self.input = nn.Linear(shape[0], width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(num_blocks))
        self.output = nn.Sequential(nn.LayerNorm(width), zeroed(nn.Linear(width, shape[0])))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        check_doors(self.doors, vector=vector, tokens=tokens, mask=mask)
        embedding = self.time(sinusoidal(c_noise, self.width).to(x.dtype))
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        if self.attention is not None:
            embedding = self.attention(embedding[:, :, None], tokens, mask)[:, :, 0]
        h = self.input(x)
        embedding = nn.functional.silu(embedding)
        for block in self.blocks:
            h = block(h, embedding)
        return self.output(h)
