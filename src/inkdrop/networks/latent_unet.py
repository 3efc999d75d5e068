"""The UNet of latent diffusion, whose blocks are residual blocks and transformers that attend to tokens.

B batch, C channels, * spatial sizes, N positions, W width, E width of the embedding (4 x base_channels), L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import CONVOLUTION, Attend, doors, resolutions, scaled_dot_product, waves, zeroed
from inkdrop.networks.u_shaped import UShaped, channels, level
from inkdrop.networks.unet import EvenDownsample, Residual, Upsample

_TRANSFORMER_NORM_EPS = 1e-6  # of the normalisation before a transformer, whatever that of the residual blocks is


class _Attention(nn.Module):
    """Attention from each of h (B, N, W) to each of h, or of tokens (B, L, token_dim) if `token_dim` is not 0."""

    def __init__(self, width: int, num_heads: int, attend: Attend, token_dim: int = 0):
        super().__init__()
        self.num_heads, self.attend, self.is_cross = num_heads, attend, token_dim > 0
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(token_dim or width, width, bias=False)
        self.v = nn.Linear(token_dim or width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(y).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, y in ((self.q, h), (self.k, keys), (self.v, keys))
        )
        attended = self.attend(q, k, v, None if mask is None else mask[:, None, None, :])
        return self.out(attended.transpose(1, 2).flatten(2))


class _Gated(nn.Module):
    """GEGLU: half of the features, times the GELU of the other half: (B, N, W) -> (B, N, hidden)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.layer = nn.Linear(width, 2 * hidden)

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.layer(h).chunk(2, dim=2)
        return value * nn.functional.gelu(gate)


class _Layer(nn.Module):
    """Attention to each position, attention to the tokens, and two layers at each position, with shortcuts."""

    def __init__(self, width: int, num_heads: int, attend: Attend, token_dim: int):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = _Attention(width, num_heads, attend)
        self.norm_2 = nn.LayerNorm(width) if token_dim else None
        self.cross_attention = _Attention(width, num_heads, attend, token_dim) if token_dim else None
        self.norm_3 = nn.LayerNorm(width)
        self.layers = nn.Sequential(_Gated(width, 4 * width), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        y = self.norm_1(h)
        h = h + self.attention(y, y)
        if self.norm_2 is not None and self.cross_attention is not None:
            h = h + self.cross_attention(self.norm_2(h), tokens, mask)
        return h + self.layers(self.norm_3(h))


class _Transformer(nn.Module):
    """Transformer layers on the positions of x (B, C, *), between two linear maps, with a shortcut."""

    def __init__(self, width: int, num_heads: int, depth: int, norm_groups: int, attend: Attend, token_dim: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, width, _TRANSFORMER_NORM_EPS)
        self.enter = nn.Linear(width, width)
        # No ModuleList, of which recomputing takes the innermost: a block runs again as a whole.
        self.layers: Any = nn.Sequential(*(_Layer(width, num_heads, attend, token_dim) for _ in range(depth)))
        self.leave = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        h = self.enter(self.norm(x).flatten(2).transpose(1, 2))
        for layer in self.layers:
            h = layer(h, tokens, mask)
        return x + self.leave(h).transpose(1, 2).reshape(x.shape)


class _Block(nn.Module):
    """A residual block, and a transformer at attended resolutions."""

    def __init__(self, residual: Residual, transformer: _Transformer | None):
        super().__init__()
        self.residual, self.transformer = residual, transformer

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.residual(x, embedding)
        return x if self.transformer is None else self.transformer(x, tokens, mask)


class LatentUNet(UShaped):
    """The UNet of latent diffusion, as in Stable Diffusion: a UNet whose attention is a transformer with tokens.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`, where
    `residuals` are tensors that are added to the skips and, last, to the middle. Initially the output is 0.

    - `shape`: [C, *] of x.
    - `base_channels`, `channel_multipliers`: resolution i has `channel_multipliers[i] * base_channels` channels.
    - `num_blocks`: blocks of each resolution, and one more in the second half.
    - `num_heads`: attention heads of a transformer, of any width.
    - `attention_resolutions`: first spatial sizes with transformers; None is all but the lowest; the middle has one.
    - `head_dim`: channels of an attention head, in place of `num_heads`.
    - `depth`: layers of a transformer.
    - `dropout`: dropout in the residual blocks.
    - `norm_groups`, `norm_eps`: groups of the normalisations, and what those of residual blocks add to the variance.
    - `out_channels`: channels of the output; None is C.
    - `vector_dim`, `token_dim`, `concat_channels`: widths of the conditions, 0 for none.
    - `shown_channels`: channels that the denoiser adds to x, such as its last estimate.
    - `attend`: attention function of all layers.

    Multipliers that are None follow the sizes by `layers.resolutions`. Raises `ValueError` if the sizes do not fit each
    other, unless one of `num_heads` and `head_dim` is given, or for a condition that the network was not built for.
    Source: Rombach et al. 2022, arXiv 2112.10752, appendix E.2.1.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        base_channels: Annotated[int, Ge(2)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)] | None,
        num_blocks: Annotated[int, Ge(1)],
        num_heads: Annotated[int, Ge(1)] | None,
        attention_resolutions: list[int] | None = None,
        head_dim: Annotated[int, Ge(1)] | None = None,
        depth: Annotated[int, Ge(1)] = 1,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        norm_groups: Annotated[int, Ge(1)] = 8,
        norm_eps: Annotated[float, Gt(0)] = 1e-5,
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
        widths, attended = resolutions(sizes, base_channels, channel_multipliers, attention_resolutions, head_dim)
        if attention_resolutions is None:
            attended = [i < len(widths) - 1 for i in range(len(widths))]
        if any(width % norm_groups for width in widths):
            raise ValueError(
                f"network.norm_groups={norm_groups} does not divide the channels {widths}: change one of them"
            )
        self.num_heads = _heads(widths, num_heads, head_dim)
        embedding_dim = 4 * base_channels
        self.base_channels, self.widths, self.sizes = base_channels, widths, sizes
        self.doors = doors(vector_dim, token_dim, concat_channels + shown_channels)
        convolution, heads = CONVOLUTION[dims], dict(zip(widths, self.num_heads, strict=True))

        def block(width_in: int, width_out: int, attends: bool) -> _Block:
            residual = Residual(width_in, width_out, embedding_dim, dims, dropout, False, norm_groups, norm_eps)
            if not attends:
                return _Block(residual, None)
            return _Block(residual, _Transformer(width_out, heads[width_out], depth, norm_groups, attend, token_dim))

        def shrink(width: int) -> nn.Module:
            return EvenDownsample(width, dims)

        self.time = nn.Sequential(
            nn.Linear(2 * (base_channels // 2), embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.vector = nn.Linear(vector_dim, embedding_dim) if vector_dim else None
        self.conv_in = convolution(in_channels + self.doors["concat"], widths[0], 3, padding=1)
        down, up = channels(widths[0], widths, num_blocks)
        width, last = widths[-1], len(widths) - 1
        self.down = nn.ModuleList(
            level(
                [block(*each, attended[i]) for each in down[i]], EvenDownsample(widths[i], dims) if i < last else None
            )
            for i in range(len(widths))
        )
        self.middle = nn.ModuleList([block(width, width, True), block(width, width, False)])
        self.up = nn.ModuleList(
            level([block(*each, attended[i]) for each in up[i]], Upsample(widths[i], dims) if i > 0 else None)
            for i in reversed(range(len(widths)))
        )
        self.norm_out = nn.GroupNorm(norm_groups, widths[0], norm_eps)
        self.conv_out = zeroed(convolution(widths[0], out_channels or in_channels, 3, padding=1))

    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.time(waves(c_noise, self.base_channels).to(dtype))
        return embedding if self.vector is None else embedding + self.vector(vector)

    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return self.conv_out(nn.functional.silu(self.norm_out(h)))


def _heads(widths: Sequence[int], num_heads: int | None, head_dim: int | None) -> list[int]:
    """The number of attention heads of each resolution."""
    if (num_heads is None) == (head_dim is None):
        raise ValueError("set one of network.num_heads and network.head_dim, and the other one to null")
    heads = [num_heads or width // (head_dim or width) for width in widths]
    if any(width % each for width, each in zip(widths, heads, strict=True)):
        raise ValueError(
            f"network.num_heads={num_heads} does not divide the channels {list(widths)}: change one of them"
        )
    return heads
