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
    CONVOLUTION,
    Attend,
    Attention,
    add_residuals,
    check_doors,
    check_sizes,
    scaled_dot_product,
    sinusoidal,
    zeroed,
)

_FILTER = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
_SPREAD = {
    1: nn.functional.conv_transpose1d,
    2: nn.functional.conv_transpose2d,
    3: nn.functional.conv_transpose3d,
}


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


class Downsample(nn.Module):
    """x (B, C, *) filtered along each dimension and halved, (B, C, * / 2): y_i = sum_k taps_k x_(2 i + k + 1 - K / 2).

    The K taps are scaled to the sum 1; zeros stand beyond the border. `ValueError` if K is odd.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float], dims: int):
        super().__init__()
        self.register_buffer("kernel", _kernel(taps, dims), persistent=False)
        self.filter, self.padding = _FILTER[dims], len(taps) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(x, _each(self.kernel, x), stride=2, padding=self.padding, groups=x.shape[1])


class Upsample(nn.Module):
    """The transpose of `Downsample` times 2 per dimension: (B, C, *) -> (B, C, 2 *)."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float], dims: int):
        super().__init__()
        self.register_buffer("kernel", 2**dims * _kernel(taps, dims), persistent=False)
        self.spread, self.padding = _SPREAD[dims], len(taps) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(x, _each(self.kernel, x), stride=2, padding=self.padding, groups=x.shape[1])


class SkipInput(nn.Module):
    """The input, halved again and again, is added to the features by a 1 x 1 convolution.

    `(pyramid (B, in_channels, *), h (B, out_channels, * / 2)) -> pyramid (B, channels, * / 2), h`.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float], dims: int):
        super().__init__()
        self.channels = in_channels
        self.downsample = Downsample(taps, dims)
        self.conv = _convolution(in_channels, out_channels, 1, dims)

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.downsample(pyramid)
        return pyramid, h + self.conv(pyramid)


class ResidualInput(nn.Module):
    """What stands beside the features, filtered and halved by a 3 x 3 convolution, is added to them, and so goes on.

    `(pyramid (B, in_channels, *), h (B, out_channels, * / 2)) -> pyramid (B, channels, * / 2), h`.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float], dims: int):
        super().__init__()
        self.channels = out_channels
        self.register_buffer("kernel", _kernel(taps, dims), persistent=False)
        self.filter, self.padding = _FILTER[dims], len(taps) // 2
        self.conv = _initialised(CONVOLUTION[dims](in_channels, out_channels, 3, stride=2))

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        smooth = self.filter(pyramid, _each(self.kernel, pyramid), padding=self.padding, groups=pyramid.shape[1])
        h = (h + self.conv(smooth)) * math.sqrt(0.5)
        return h, h


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
        self.conv_1 = _convolution(in_channels, out_channels, 3, dims)
        self.embedding = _initialised(nn.Linear(embedding_dim, out_channels))
        self.norm_2 = _norm(out_channels, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zeroed(_convolution(out_channels, out_channels, 3, dims))
        projected = in_channels != out_channels or resample is not None
        self.shortcut = _convolution(in_channels, out_channels, 1, dims) if projected else nn.Identity()
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

    `ValueError` where the sizes do not fit each other, or where a condition comes that the network was not built for.
    Sources: Song et al. 2021, arXiv 2011.13456, appendix H; Karras et al. 2022, arXiv 2206.00364, table 7.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        base_channels: Annotated[int, Ge(4)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)],
        num_blocks: Annotated[int, Ge(1)],
        attention_resolutions: list[int],
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
        attend: Attend = scaled_dot_product,
    ):
        super().__init__()
        in_channels, *sizes = shape
        dims = len(sizes)
        widths = [base_channels * multiplier for multiplier in channel_multipliers]
        check_sizes(sizes, widths, attention_resolutions, head_dim)
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
        self.vector = _initialised(nn.Linear(vector_dim, embed.dim, bias=False)) if vector_dim else None
        self.time = nn.Sequential(
            _initialised(nn.Linear(embed.dim, embedding_dim)),
            nn.SiLU(),
            _initialised(nn.Linear(embedding_dim, embedding_dim)),
            nn.SiLU(),
        )
        self.conv_in = _convolution(in_channels + concat_channels, base_channels, 3, dims)
        self.doors = {"vector": vector_dim, "tokens": token_dim, "concat": concat_channels, "mask": token_dim}

        attended = [sizes[0] >> level in attention_resolutions for level in range(len(widths))]
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


def _initialised(layer: Any) -> nn.Module:
    """The layer with the published initial weights: uniform, of variance 2 / (inputs + outputs)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _convolution(in_channels: int, out_channels: int, size: int, dims: int) -> nn.Module:
    return _initialised(CONVOLUTION[dims](in_channels, out_channels, size, padding=size // 2))


def _head(channels: int, out_channels: int, eps: float, dims: int) -> nn.Module:
    return nn.Sequential(_norm(channels, eps), nn.SiLU(), zeroed(_convolution(channels, out_channels, 3, dims)))


def _kernel(taps: Sequence[float], dims: int) -> Tensor:
    """The taps along each of the dimensions, (1, 1, K, ...), with the sum 1."""
    if len(taps) % 2 or not sum(taps):
        raise ValueError(f"network.resample={list(taps)} must be an even number of taps whose sum is not 0")
    line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
    return functools.reduce(lambda kernel, line: kernel[..., None] * line, [line] * dims)[None, None]


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel once for each channel of x."""
    return kernel.to(x.dtype).expand(x.shape[1], *kernel.shape[1:])
