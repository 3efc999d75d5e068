"""The UNets of score SDEs, DDPM++ and NCSN++, in one, two or three spatial dimensions.

B batch, C channels, * spatial sizes, E width of the embedding (4 x base_channels), L tokens, D their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import (
    Attend,
    Attention,
    add_residuals,
    check_doors,
    convolution,
    initialised,
    resolutions,
    scaled_dot_product,
    sinusoidal,
    zeroed,
)
from inkdrop.networks.resampling import Downsample, Upsample


class Positional(nn.Module):
    """Sines and cosines of c_noise (B) at fixed frequencies from 1 to 1e-4, (B, dim); that of DDPM++."""

    def __init__(self, channels: Annotated[int, Ge(4)]):
        super().__init__()
        self.dim = channels

    def forward(self, c_noise: Tensor) -> Tensor:
        return sinusoidal(c_noise, self.dim)


class Fourier(nn.Module):
    """Sines and cosines of 2 pi f c_noise (B) with random f ~ N(0, scale^2), (B, 2 channels); that of NCSN++.

    It is made for c_noise = log(sigma), or a share of it. Source: Tancik et al. 2020, arXiv 2006.10739.
    """

    frequencies: Tensor

    def __init__(self, channels: Annotated[int, Ge(1)], scale: Annotated[float, Gt(0)] = 16.0):
        super().__init__()
        self.dim = 2 * channels
        self.register_buffer("frequencies", scale * torch.randn(channels))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = 2 * math.pi * c_noise[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Block(nn.Module):
    """A residual block that may change the resolution within, then attention to itself and to the tokens.

    Sums of two are divided by sqrt(2), so that the variance neither grows nor shrinks with depth.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        dims: int,
        dropout: float,
        norm_eps: float,
        resample: nn.Module | None = None,
        attention: Attention | None = None,
        cross_attention: Attention | None = None,
    ):
        super().__init__()
        self.norm_1 = _norm(in_channels, norm_eps)
        self.resample = resample or nn.Identity()
        self.conv_1 = convolution(in_channels, out_channels, 3, dims)
        self.embedding = initialised(nn.Linear(embedding_dim, out_channels))
        self.norm_2 = _norm(out_channels, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zeroed(convolution(out_channels, out_channels, 3, dims))
        projected = in_channels != out_channels or resample is not None
        self.shortcut = convolution(in_channels, out_channels, 1, dims) if projected else nn.Identity()
        self.attention, self.cross_attention = attention, cross_attention

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        h = self.conv_1(self.resample(nn.functional.silu(self.norm_1(x))))
        embedded = self.embedding(embedding)
        h = self.norm_2(h + embedded.reshape(*embedded.shape, *(1,) * (x.dim() - 2)))
        h = self.conv_2(self.dropout(nn.functional.silu(h)))
        h = (self.shortcut(self.resample(x)) + h) * math.sqrt(0.5)
        if self.attention is not None:
            h = self.attention(h) * math.sqrt(0.5)
        if self.cross_attention is not None:
            h = self.cross_attention(h, tokens, mask) * math.sqrt(0.5)
        return h


class _Level(nn.Module):
    """The blocks of one resolution, the block to the next, and what meets the input or the output there."""

    def __init__(self, blocks: list[_Block], resample: _Block | None, beside: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample, self.beside = resample, beside


class NCSNpp(nn.Module):
    """`network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`.

    Each resolution has `channel_multipliers[i] * base_channels` channels and `num_blocks` residual blocks, one more on
    the way up; at the resolutions (first spatial size) in `attention_resolutions` the blocks on the way down and the
    last one on the way up attend, and so does the middle. Resolutions change inside blocks, by a filter with the taps
    `resample`: [1, 1] is the mean of two neighbours, [1, 3, 3, 1] that of NCSN++. `embedding(base_channels)` makes the
    embedding of c_noise, `progressive_input(in_channels, out_channels, taps, dims)` what leads the input to each lower
    resolution (`SkipInput`, `ResidualInput`); the output is the sum of those of the `output_levels` finest
    resolutions. The doors for conditions and `attend` are those of `UNet`.

    Multipliers and attended resolutions that are None follow the sizes by `layers.resolutions`. `ValueError` where the
    sizes do not fit each other, or where a condition comes that the network was not built for.
    Sources: Song et al. 2021, arXiv 2011.13456, appendix H; Karras et al. 2022, arXiv 2206.00364, table 7.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        base_channels: Annotated[int, Ge(4)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)] | None,
        num_blocks: Annotated[int, Ge(1)],
        attention_resolutions: list[int] | None,
        resample: Annotated[list[float], Len(2)],
        embedding: Callable[[int], nn.Module] = Positional,
        progressive_input: Callable[[int, int, Sequence[float], int], nn.Module] | None = None,
        output_levels: Annotated[int, Ge(1)] = 1,
        head_dim: Annotated[int, Ge(1)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
        out_channels: Annotated[int, Ge(1)] | None = None,
        vector_dim: Annotated[int, Ge(0)] = 0,
        token_dim: Annotated[int, Ge(0)] = 0,
        concat_channels: Annotated[int, Ge(0)] = 0,
        shown_channels: Annotated[int, Ge(0)] = 0,
        attend: Attend = scaled_dot_product,
    ):
        super().__init__()
        in_channels, *sizes = shape
        concat_channels += shown_channels
        dims = len(sizes)
        widths, attended = resolutions(sizes, base_channels, channel_multipliers, attention_resolutions, head_dim)
        if output_levels > len(widths):
            raise ValueError(f"network.output_levels={output_levels}, but there are {len(widths)} resolutions")
        embedding_dim = 4 * base_channels

        def block(width_in: int, width_out: int, attended: bool = False, resampled: nn.Module | None = None) -> _Block:
            def attention(tokens: int) -> Attention:
                return Attention(width_out, head_dim, _groups(width_out), norm_eps, attend, tokens)

            attentions = attention(0) if attended else None, attention(token_dim) if attended and token_dim else None
            return _Block(width_in, width_out, embedding_dim, dims, dropout, norm_eps, resampled, *attentions)

        embed: Any = embedding(base_channels)
        self.embedding = embed
        self.vector = initialised(nn.Linear(vector_dim, embed.dim, bias=False)) if vector_dim else None
        self.time = nn.Sequential(
            initialised(nn.Linear(embed.dim, embedding_dim)),
            nn.SiLU(),
            initialised(nn.Linear(embedding_dim, embedding_dim)),
            nn.SiLU(),
        )
        self.conv_in = convolution(in_channels + concat_channels, base_channels, 3, dims)
        self.doors = {"vector": vector_dim, "tokens": token_dim, "concat": concat_channels, "mask": token_dim}

        width, beside, last = base_channels, in_channels + concat_channels, len(widths) - 1
        skips = [width]
        self.down: Any = nn.ModuleList()
        for level, target in enumerate(widths):
            blocks = [block(width if i == 0 else target, target, attended[level]) for i in range(num_blocks)]
            width = target
            lower, pyramid = None, None
            if level < last:
                lower = block(width, width, resampled=Downsample(resample, dims))
                if progressive_input is not None:
                    pyramid = progressive_input(beside, width, resample, dims)
                    beside = pyramid.channels  # type: ignore[assignment]
            self.down.append(_Level(blocks, lower, pyramid))
            skips += [width] * (num_blocks + (level < last))
        self.middle = nn.ModuleList([block(width, width, True), block(width, width)])
        self.up: Any = nn.ModuleList()
        for level in range(last, -1, -1):
            blocks = []
            for i in range(num_blocks + 1):
                blocks.append(block(width + skips.pop(), widths[level], attended[level] and i == num_blocks))
                width = widths[level]
            higher = block(width, width, resampled=Upsample(resample, dims)) if level > 0 else None
            head = _head(width, out_channels or in_channels, norm_eps, dims) if level < output_levels else None
            self.up.append(_Level(blocks, higher, head))
        self.upsample = Upsample(resample, dims)

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
        check_doors(self.doors, vector=vector, tokens=tokens, concat=concat, mask=mask)
        embedding = self.embedding(c_noise).to(x.dtype)
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        conditions = self.time(embedding), tokens, mask
        pyramid = x if concat is None else torch.cat([x, concat], dim=1)
        h = self.conv_in(pyramid)
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, *conditions)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h, *conditions)
                if level.beside is not None:
                    pyramid, h = level.beside(pyramid, h)
                skips.append(h)
        for block in self.middle:
            h = block(h, *conditions)
        if residuals is not None:
            *skips, h = add_residuals([*skips, h], residuals)
        output: Any = None
        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), *conditions)
            if level.beside is not None:
                head = level.beside(h)
                output = head if output is None else self.upsample(output) + head
            if level.resample is not None:
                h = level.resample(h, *conditions)
        return output


def _groups(channels: int) -> int:
    groups = min(32, channels // 4)
    if channels % groups:
        raise ValueError(f"{channels} channels are no {groups} groups: choose network.base_channels divisible by 32")
    return groups


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(_groups(channels), channels, eps)


def _head(channels: int, out_channels: int, eps: float, dims: int) -> nn.Module:
    return nn.Sequential(_norm(channels, eps), nn.SiLU(), zeroed(convolution(channels, out_channels, 3, dims)))
