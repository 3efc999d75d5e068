"""The base class of all UNets: the order of blocks over resolutions, and the inputs for conditions.

B batch, C channels, * spatial sizes, E width of the embedding, L tokens, D their width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from inkdrop.networks.layers import check_doors

# Channels in and out of each block, by resolution, the full one first.
Channels: TypeAlias = list[list[tuple[int, int]]]


def channels(width: int, widths: Sequence[int], num_blocks: int) -> tuple[Channels, Channels]:
    """Returns the channels in and out of the blocks of the first half, which `width` channels enter, and of the second.

    The input leaves a skip, and so does each block of the first half and each change to a lower resolution, which keeps
    the channels. A block of the second half receives the latest skip next to the features; each resolution has one more
    block there.
    """
    skips = [width]
    down: Channels = []
    for i, target in enumerate(widths):
        if i > 0:
            skips.append(width)
        down.append([])
        for _ in range(num_blocks):
            down[i].append((width, target))
            width = target
            skips.append(width)
    up: Channels = [[] for _ in widths]
    for i in reversed(range(len(widths))):
        for _ in range(num_blocks + 1):
            up[i].append((width + skips.pop(), widths[i]))
            width = widths[i]
    return down, up


class _Level(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], resample: nn.Module | None, beside: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample, self.beside = resample, beside


def level(blocks: Sequence[nn.Module], resample: nn.Module | None, beside: nn.Module | None = None) -> nn.Module:
    """Returns the blocks of one resolution, the change to the next, and a module next to them for input or output."""
    return _Level(blocks, resample, beside)


class UShaped(nn.Module, ABC):
    """The base class of UNets, which calls the blocks of a network over falling and rising resolutions.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`. A subclass
    sets the attributes below; each block and each change of resolution is `part(h, embedding, tokens, mask)`. In the
    first half `level.beside(input, h) -> input, h` leads the input to the next resolution; in the second half
    `level.beside(h)` is an output of this resolution. `residuals` are added to the skips and, last, to the middle.
    Raises `ValueError` for a condition that the network was not built for, and for another number of residuals.
    """

    doors: dict[str, int]
    conv_in: nn.Module
    down: Any
    middle: Any
    up: Any

    @abstractmethod
    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Returns the embedding (B, E) of the noise level and of the vector."""

    @abstractmethod
    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Returns the output from the features at full resolution and the outputs of resolutions, the lowest first."""

    def input(self, x: Tensor, concat: Tensor | None) -> Tensor:
        """Returns the input of the first convolution."""
        return x if concat is None else torch.cat([x, concat], dim=1)

    def join(self, h: Tensor, skip: Tensor) -> Tensor:
        """Returns the features and a skip, concatenated."""
        return torch.cat([h, skip], dim=1)

    def descent(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """Returns the blocks and resamplings of the first half, each with the module that leads the input, or None."""
        steps: list[tuple[nn.Module, nn.Module | None]] = []
        for each in self.down:
            steps += [(block, None) for block in each.blocks]
            if each.resample is not None:
                steps.append((each.resample, each.beside))
        return steps

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        concat: Tensor | None = None,
        mask: Tensor | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        h, skips, embedding = self.encode(x, c_noise, vector, tokens, concat, mask)
        if residuals is not None:
            if len(residuals) != len(skips) + 1:
                raise ValueError(
                    f"{len(residuals)} residuals were given, but the skips and the middle need {len(skips) + 1}"
                )
            *skips, h = (each + residual for each, residual in zip([*skips, h], residuals, strict=True))
        outputs = []
        for each in self.up:
            for block in each.blocks:
                h = block(self.join(h, skips.pop()), embedding, tokens, mask)
            if each.beside is not None:
                outputs.append(each.beside(h))
            if each.resample is not None:
                h = each.resample(h, embedding, tokens, mask)
        return self.output(h, outputs)

    def encode(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        concat: Tensor | None = None,
        mask: Tensor | None = None,
        hint: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Runs the first half and returns the features of the middle (B, C, *), the skips, and the embedding (B, E).

        `hint` (B, C, *) is added to the features of the first convolution.
        """
        check_doors(self.doors, vector=vector, tokens=tokens, concat=concat, mask=mask)
        embedding = self.embed(c_noise, vector, x.dtype)
        pyramid = self.input(x, concat)
        h = self.conv_in(pyramid)
        h = h if hint is None else h + hint
        skips = [h]
        for step, beside in self.descent():
            h = step(h, embedding, tokens, mask)
            if beside is not None:
                pyramid, h = beside(pyramid, h)
            skips.append(h)
        for block in self.middle:
            h = block(h, embedding, tokens, mask)
        return h, skips, embedding
