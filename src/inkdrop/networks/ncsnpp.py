"""The UNets of score SDEs, DDPM++ and NCSN++, in one, two or three spatial dimensions.

B batch, C channels, * spatial sizes, E width of the embedding (4 x base_channels), L tokens, D their width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import (
    Attend,
    Attention,
    convolution,
    doors,
    initialised,
    resolutions,
    scaled_dot_product,
    sinusoidal,
    zeroed,
)
from inkdrop.networks.resampling import Downsample, Upsample
from inkdrop.networks.u_shaped import UShaped, channels, level


class Positional(nn.Module):
    """An embedding (B, dim) of c_noise (B): sines and cosines at fixed frequencies from 1 to 1e-4, as in DDPM++."""

    def __init__(self, channels: Annotated[int, Ge(4)]):
        super().__init__()
        self.dim = channels

    def forward(self, c_noise: Tensor) -> Tensor:
        return sinusoidal(c_noise, self.dim)


class Fourier(nn.Module):
    """An embedding (B, 2 channels) of c_noise (B) by sines and cosines of random frequencies, as in NCSN++.

    The angles are 2 pi f c_noise with f ~ N(0, scale^2). It is made for c_noise = log(sigma), or a share of it.
    Source: Tancik et al. 2020, arXiv 2006.10739.
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
    """A residual block that may change the resolution, then attention to itself and to the tokens.

    Sums of two terms are divided by sqrt(2), so that the variance does not change with depth.
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


class NCSNpp(UShaped):
    """The UNets of score SDEs: DDPM++ for variance-preserving noise, and NCSN++ for exploding variance.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`. The resolution
    changes inside blocks.

    - `shape`: [C, *] of x.
    - `base_channels`, `channel_multipliers`: resolution i has `channel_multipliers[i] * base_channels` channels.
    - `num_blocks`: residual blocks of each resolution, and one more in the second half.
    - `attention_resolutions`: first spatial sizes at which the blocks of the first half and the last block of the
      second half attend; the middle always does.
    - `resample`: taps of the filter between resolutions; [1, 1] is the mean of two neighbours, [1, 3, 3, 1] that of
      NCSN++.
    - `embedding`: makes the embedding of c_noise from `base_channels`.
    - `progressive_input`: makes, from (in_channels, out_channels, taps, dims), the module that leads the input to each
      lower resolution (`SkipInput`, `ResidualInput`); None is none.
    - `output_levels`: number of the finest resolutions whose outputs are summed.
    - `head_dim`: channels of an attention head; None is one head.
    - `dropout`: dropout in the residual blocks.
    - `norm_eps`: what normalisations add to the variance.
    - `out_channels`, `vector_dim`, `token_dim`, `concat_channels`, `shown_channels`, `attend`: as in `UNet`.

    Multipliers and attended resolutions that are None follow the sizes by `layers.resolutions`. Raises `ValueError` if
    the sizes do not fit each other, or for a condition that the network was not built for.
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
        dims = len(sizes)
        self.doors = doors(vector_dim, token_dim, concat_channels + shown_channels)
        widths, attended = resolutions(sizes, base_channels, channel_multipliers, attention_resolutions, head_dim)
        if output_levels > len(widths):
            raise ValueError(
                f"network.output_levels={output_levels} is more than the {len(widths)} resolutions: lower it"
            )
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
        beside = in_channels + self.doors["concat"]
        self.conv_in = convolution(beside, base_channels, 3, dims)
        down, up = channels(base_channels, widths, num_blocks)
        last = len(widths) - 1
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [block(*each, attended[i]) for each in down[i]]
            lower, pyramid = None, None
            if i < last:
                lower = block(width, width, resampled=Downsample(resample, dims))
                if progressive_input is not None:
                    pyramid = progressive_input(beside, width, resample, dims)
                    beside = pyramid.channels  # type: ignore[assignment]
            self.down.append(level(blocks, lower, pyramid))
        self.middle = nn.ModuleList([block(width, width, True), block(width, width)])
        self.up = nn.ModuleList()
        for i, width in reversed([*enumerate(widths)]):
            blocks = [block(*each, attended[i] and number == num_blocks) for number, each in enumerate(up[i])]
            higher = block(width, width, resampled=Upsample(resample, dims)) if i > 0 else None
            head = _head(width, out_channels or in_channels, norm_eps, dims) if i < output_levels else None
            self.up.append(level(blocks, higher, head))
        self.upsample = Upsample(resample, dims)

    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.embedding(c_noise).to(dtype)
        return self.time(embedding if self.vector is None else embedding + self.vector(vector))

    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return functools.reduce(lambda lower, higher: self.upsample(lower) + higher, outputs)


def _groups(channels: int) -> int:
    groups = min(32, channels // 4)
    if channels % groups:
        raise ValueError(
            f"{channels} channels cannot be divided into {groups} groups: set network.base_channels to a multiple of 32"
        )
    return groups


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(_groups(channels), channels, eps)


def _head(channels: int, out_channels: int, eps: float, dims: int) -> nn.Module:
    return nn.Sequential(_norm(channels, eps), nn.SiLU(), zeroed(convolution(channels, out_channels, 3, dims)))
