"""What all UNets share: the walk over resolutions, down and up again, and the doors for conditions.

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
    """Those of the blocks on the way down, which `width` channels enter, and of the blocks on the way up.

    What enters leaves a skip, and so does each block on the way down and each change to a lower resolution, which keeps
    the channels. A block on the way up gets the newest skip beside the features; there is one more per resolution.
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
    """The blocks of one resolution, the change to the next, and what meets the input or makes an output beside them."""
    return _Level(blocks, resample, beside)


class UShaped(nn.Module, ABC):
    """`network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`.

    A network makes the parts below; each block and each change of resolution is `part(h, embedding, tokens, mask)`.
    On the way down `level.beside(input, h) -> input, h` leads the input to the next resolution; on the way up
    `level.beside(h)` is an output of its own. `residuals` are added to the skips and, last, to the middle.
    `ValueError` where a condition comes that the network was not built for, and for another number of residuals.
    """

    doors: dict[str, int]
    conv_in: nn.Module
    down: Any
    middle: Any
    up: Any

    @abstractmethod
    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The embedding (B, E) of the noise level and of the vector."""

    @abstractmethod
    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The output, from the features at full resolution and the outputs of resolutions, the lowest first."""

    def input(self, x: Tensor, concat: Tensor | None) -> Tensor:
        """What the first convolution sees."""
        return x if concat is None else torch.cat([x, concat], dim=1)

    def join(self, h: Tensor, skip: Tensor) -> Tensor:
        """The features and a skip, side by side."""
        return torch.cat([h, skip], dim=1)

    def descent(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """Blocks and changes of resolution on the way down, each with what leads the input along, or None."""
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
                raise ValueError(f"{len(residuals)} residuals for {len(skips)} skips and the middle")
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
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """The way down: features of the middle (B, C, *), the skips, and the embedding (B, E)."""
        check_doors(self.doors, vector=vector, tokens=tokens, concat=concat, mask=mask)
        embedding = self.embed(c_noise, vector, x.dtype)
        pyramid = self.input(x, concat)
        h = self.conv_in(pyramid)
        skips = [h]
        for step, beside in self.descent():
            h = step(h, embedding, tokens, mask)
            if beside is not None:
                pyramid, h = beside(pyramid, h)
            skips.append(h)
        for block in self.middle:
            h = block(h, embedding, tokens, mask)
        return h, skips, embedding
