"""The UNet of DDPM and ADM, in one, two or three spatial dimensions.

B batch, C channels, * spatial sizes, E width of the embedding (4 x base_channels), L tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import (
    CONVOLUTION,
    POOL,
    Attend,
    Attention,
    doors,
    resolutions,
    scaled_dot_product,
    sinusoidal,
    waves,
    zeroed,
)
from inkdrop.networks.u_shaped import UShaped, channels, level

Frequencies: TypeAlias = Callable[[Tensor, int], Tensor]
MakeDownsample: TypeAlias = Callable[[int, int], nn.Module]


class Waves(nn.Module):
    """The cosines and sines of the time in latent diffusion, as `layers.waves`."""

    def forward(self, c_noise: Tensor, dim: int) -> Tensor:
        return waves(c_noise, dim)


class Downsample(nn.Module):
    """A convolution of stride 2 that pads only at the far side, as in DDPM: (B, C, *) -> (B, C, * / 2)."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.padding = (0, 1) * dims
        self.conv = CONVOLUTION[dims](channels, channels, 3, stride=2)

    def forward(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        return self.conv(nn.functional.pad(x, self.padding))


class EvenDownsample(nn.Module):
    """A convolution of stride 2 that pads each side, as in latent diffusion: (B, C, *) -> (B, C, * / 2)."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.conv = CONVOLUTION[dims](channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Repeats each position along each axis, then convolves: (B, C, *) -> (B, C, 2 *)."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.conv = CONVOLUTION[dims](channels, channels, 3, padding=1)

    def forward(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Residual(nn.Module):
    """Two convolutions and a shortcut; the embedding enters between the convolutions, as a shift or as scale and shift.

    `resample` is applied before the first convolution and on the shortcut, which is how ADM changes the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        dims: int,
        dropout: float,
        scale_shift: bool,
        norm_groups: int,
        norm_eps: float,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        convolution = CONVOLUTION[dims]
        self.scale_shift = scale_shift
        self.resample = resample or nn.Identity()
        self.norm_1 = nn.GroupNorm(norm_groups, in_channels, norm_eps)
        self.conv_1 = convolution(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, out_channels * (2 if scale_shift else 1))
        self.norm_2 = nn.GroupNorm(norm_groups, out_channels, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zeroed(convolution(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity() if in_channels == out_channels else convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor, *conditions: Tensor | None) -> Tensor:
        h = self.conv_1(self.resample(nn.functional.silu(self.norm_1(x))))
        embedded = self.embedding(nn.functional.silu(embedding))
        embedded = embedded.reshape(*embedded.shape, *(1,) * (x.dim() - 2))
        if self.scale_shift:
            scale, shift = embedded.chunk(2, dim=1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h + embedded)
        return self.shortcut(self.resample(x)) + self.conv_2(self.dropout(nn.functional.silu(h)))


class _Block(nn.Module):
    """A residual block, and at attended resolutions attention to itself and to the tokens."""

    def __init__(self, residual: Residual, attention: Attention | None, cross_attention: Attention | None):
        super().__init__()
        self.residual, self.attention, self.cross_attention = residual, attention, cross_attention

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.residual(x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        if self.cross_attention is not None:
            x = self.cross_attention(x, tokens, mask)
        return x


class UNet(UShaped):
    """The UNet of DDPM and ADM, for images, series and volumes; a good first choice.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`, where
    `residuals` are tensors that are added to the skips and, last, to the middle.

    - `shape`: [C, *] of x.
    - `base_channels`, `channel_multipliers`: resolution i has `channel_multipliers[i] * base_channels` channels.
    - `num_blocks`: residual blocks of each resolution, and one more in the second half.
    - `attention_resolutions`: first spatial sizes at which blocks attend; the middle always does.
    - `head_dim`: channels of an attention head; None is one head.
    - `scale_shift`: whether the embedding scales and shifts, as in ADM, or only shifts.
    - `resample_in_block`: whether the resolution changes inside a residual block, as in ADM, or by a convolution.
    - `dropout`: dropout in the residual blocks.
    - `norm_groups`, `norm_eps`: groups of the normalisations, and what they add to the variance.
    - `out_channels`: channels of the output; None is C.
    - `vector_dim`, `token_dim`, `concat_channels`: widths of the conditions, 0 for none.
    - `shown_channels`: channels that the denoiser adds to x, such as its last estimate.
    - `attend`: attention function of all layers.
    - `frequencies`: sines and cosines of c_noise (B), as many as the given number: (B, base_channels).
    - `downsample`: makes the convolution to the next resolution from its channels and the number of dimensions.

    Multipliers and attended resolutions that are None follow the sizes by `layers.resolutions`. Raises `ValueError` if
    the sizes do not fit each other, or for a condition that the network was not built for.
    Sources: Ho et al. 2020, arXiv 2006.11239, appendix B; Dhariwal and Nichol 2021, arXiv 2105.05233, section 3.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        base_channels: Annotated[int, Ge(4)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)] | None,
        num_blocks: Annotated[int, Ge(1)],
        attention_resolutions: list[int] | None,
        head_dim: Annotated[int, Ge(1)] | None = None,
        scale_shift: bool = False,
        resample_in_block: bool = False,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        norm_groups: Annotated[int, Ge(1)] = 32,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
        out_channels: Annotated[int, Ge(1)] | None = None,
        vector_dim: Annotated[int, Ge(0)] = 0,
        token_dim: Annotated[int, Ge(0)] = 0,
        concat_channels: Annotated[int, Ge(0)] = 0,
        shown_channels: Annotated[int, Ge(0)] = 0,
        attend: Attend = scaled_dot_product,
        frequencies: Frequencies = sinusoidal,
        downsample: MakeDownsample = Downsample,
    ):
        super().__init__()
        in_channels, *sizes = shape
        dims = len(sizes)
        widths, attended = resolutions(sizes, base_channels, channel_multipliers, attention_resolutions, head_dim)
        if any(width % norm_groups for width in widths):
            raise ValueError(
                f"network.norm_groups={norm_groups} does not divide the channels {widths}: change one of them"
            )
        embedding_dim = 4 * base_channels
        self.base_channels, self.widths, self.sizes, self.frequencies = base_channels, widths, sizes, frequencies
        self.doors = doors(vector_dim, token_dim, concat_channels + shown_channels)
        convolution = CONVOLUTION[dims]

        def residual(width_in: int, width_out: int, resample: nn.Module | None = None) -> Residual:
            return Residual(
                width_in, width_out, embedding_dim, dims, dropout, scale_shift, norm_groups, norm_eps, resample
            )

        def block(width_in: int, width_out: int, attends: bool) -> _Block:
            def attention(tokens: int) -> Attention:
                return Attention(width_out, head_dim, norm_groups, norm_eps, attend, tokens)

            cross_attention = attention(token_dim) if attends and token_dim else None
            return _Block(residual(width_in, width_out), attention(0) if attends else None, cross_attention)

        def shrink(width: int) -> nn.Module:
            return residual(width, width, POOL[dims](2)) if resample_in_block else downsample(width, dims)

        def upsample(width: int) -> nn.Module:
            return residual(width, width, nn.Upsample(scale_factor=2)) if resample_in_block else Upsample(width, dims)

        self.time = nn.Sequential(
            nn.Linear(base_channels, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.vector = nn.Linear(vector_dim, embedding_dim) if vector_dim else None
        self.conv_in = convolution(in_channels + self.doors["concat"], widths[0], 3, padding=1)
        down, up = channels(widths[0], widths, num_blocks)
        width, last = widths[-1], len(widths) - 1
        self.down = nn.ModuleList(
            level([block(*each, attended[i]) for each in down[i]], shrink(widths[i]) if i < last else None)
            for i in range(len(widths))
        )
        self.middle = nn.ModuleList([block(width, width, True), block(width, width, False)])
        self.up = nn.ModuleList(
            level([block(*each, attended[i]) for each in up[i]], upsample(widths[i]) if i > 0 else None)
            for i in reversed(range(len(widths)))
        )
        self.norm_out = nn.GroupNorm(norm_groups, widths[0], norm_eps)
        self.conv_out = zeroed(convolution(widths[0], out_channels or in_channels, 3, padding=1))

    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.time(self.frequencies(c_noise, self.base_channels).to(dtype))
        return embedding if self.vector is None else embedding + self.vector(vector)

    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return self.conv_out(nn.functional.silu(self.norm_out(h)))
