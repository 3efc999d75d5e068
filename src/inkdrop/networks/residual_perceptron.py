"""A residual network for vectors, without normalisation.  B batch, D data, W width."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Len
from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResidualPerceptron(nn.Module):
    """Residual blocks of two linear layers, after one linear layer of x and one of the time, whose outputs are added.

    `network(x (B, D), c_noise (B)) -> (B, D)`. The layer of the time has the input `1 - c_noise / 1000`, the share of
    the data on the straight path. Source: the code of Cheng and Schwing 2025, arXiv 2503.10636.

    - `shape`: [D].
    - `width`: width W between the blocks.
    - `num_blocks`: number of residual blocks.
    - `expansion`: width within a block, in units of W.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(1, 1)],
        width: Annotated[int, Ge(1)],
        num_blocks: Annotated[int, Ge(1)],
        expansion: Annotated[int, Ge(1)] = 4,
    ):
        super().__init__()
        self.input, self.time = nn.Linear(shape[0], width), nn.Linear(1, width)
        self.blocks = nn.Sequential(*(_Block(width, expansion) for _ in range(num_blocks)))
        self.output = nn.Linear(width, shape[0])

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        time = (1 - c_noise / 1000)[:, None].to(x.dtype)
        return self.output(self.blocks(self.input(x) + self.time(time)))
