"""The magnitude-preserving UNet of EDM2, in one, two or three spatial dimensions.

B batch, C channels, * spatial sizes, E width of the embedding, L tokens, D their width, H heads. The magnitude of a
tensor is the root of its mean square. All layers keep the magnitude 1 if their inputs have it and are not correlated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import POOL, Attend, doors, resolutions, scaled_dot_product
from inkdrop.networks.u_shaped import UShaped, channels, level

_CONVOLVE = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


def normalised(x: Tensor, dim: int | list[int]) -> Tensor:
    """Returns x divided by its magnitude over these dimensions, computed in float32 or better; zeros stay zeros."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return x / (1e-4 + length * math.sqrt(length.numel() / x.numel())).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """Returns SiLU(x), scaled so that normal x results in the magnitude 1, equation 81."""
    return nn.functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Returns `((1 - share) a + share b) / sqrt((1 - share)^2 + share^2)`, equation 88."""
    return ((1 - share) * a + share * b) / math.hypot(1 - share, share)


def mp_cat(a: Tensor, b: Tensor, share: float = 0.5) -> Tensor:
    """Concatenates a and b in dimension 1, weighted so that b contributes `share` to their sum, equation 103."""
    width_a, width_b = a.shape[1], b.shape[1]
    scale = math.sqrt(width_a + width_b) / math.hypot(1 - share, share)
    return torch.cat([scale * (1 - share) / math.sqrt(width_a) * a, scale * share / math.sqrt(width_b) * b], dim=1)


class MPFourier(nn.Module):
    """An embedding (B, channels) of c_noise (B) with the magnitude 1.

    It is `sqrt(2) cos(2 pi (f c_noise + phase))` with random f ~ N(0, scale^2), equation 75.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: Annotated[int, Ge(1)], scale: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(channels))
        self.register_buffer("phases", torch.rand(channels))

    def forward(self, c_noise: Tensor) -> Tensor:
        return math.sqrt(2) * torch.cos(2 * math.pi * (c_noise[:, None] * self.frequencies + self.phases))


class MPLayer(nn.Module):
    """A linear layer, or with `kernel` a convolution that keeps the sizes, without bias and with normalised weights.

    The weights of each output are used with the length 1, equation 47. In training each call first scales the stored
    weights to the magnitude 1, equation 66, so that optimizer steps keep their relative size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int] = ()):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))
        self.inputs = list(range(1, self.weight.dim()))
        self.scale = 1 / math.sqrt(in_channels * math.prod(kernel))
        self.operation: Any = (
            functools.partial(_CONVOLVE[len(kernel)], padding=kernel[0] // 2) if kernel else nn.functional.linear
        )

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight: Tensor = self.weight
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalised(self.weight, self.inputs))
            weight = self.weight.clone()  # a second call must not change the weights in the gradient of the first
        return self.operation(x, normalised(weight, self.inputs) * (gain * self.scale))


class _Attention(nn.Module):
    """Cosine attention from each position of x (B, C, *) to x itself or to tokens (B, L, token_dim), mixed into x."""

    def __init__(self, channels: int, head_dim: int, balance: float, attend: Attend, token_dim: int = 0):
        super().__init__()
        self.num_heads, self.balance = channels // head_dim, balance
        self.attend, self.is_cross = attend, token_dim > 0
        self.q, self.out = MPLayer(channels, channels), MPLayer(channels, channels)
        self.k, self.v = (MPLayer(token_dim or channels, channels) for _ in range(2))

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        queries = x.flatten(2).transpose(1, 2)
        keys = queries if tokens is None else normalised(tokens, 2)
        q, k, v = (
            normalised(layer(y).unflatten(2, (self.num_heads, -1)), 3).transpose(1, 2)
            for layer, y in ((self.q, queries), (self.k, keys), (self.v, keys))
        )
        h = self.attend(q, k, v, None if mask is None else mask[:, None, None, :])
        return mp_sum(x, self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape), self.balance)


class _Block(nn.Module):
    """A residual block, then attention to itself and to the tokens.

    With `downward` x is projected and normalised at each position before the branch; otherwise only the shortcut is
    projected.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        dims: int,
        dropout: float,
        balance: float,
        downward: bool,
        resample: nn.Module | None,
        attention: _Attention | None,
        cross_attention: _Attention | None,
    ):
        super().__init__()
        self.balance, self.downward = balance, downward
        self.resample = resample or nn.Identity()
        projected = in_channels != out_channels
        self.shortcut: Any = MPLayer(in_channels, out_channels, [1] * dims) if projected else nn.Identity()
        self.conv_1 = MPLayer(out_channels if downward else in_channels, out_channels, [3] * dims)
        self.embedding = MPLayer(embedding_dim, out_channels)
        self.gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = MPLayer(out_channels, out_channels, [3] * dims)
        self.attention, self.cross_attention = attention, cross_attention

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.resample(x)
        if self.downward:
            x = normalised(self.shortcut(x), 1)
        h = self.conv_1(mp_silu(x))
        scale = 1 + self.embedding(embedding, self.gain)
        h = self.conv_2(self.dropout(mp_silu(h * scale.reshape(*scale.shape, *(1,) * (x.dim() - 2)))))
        x = mp_sum(x if self.downward else self.shortcut(x), h, self.balance)
        if self.attention is not None:
            x = self.attention(x)
        if self.cross_attention is not None:
            x = self.cross_attention(x, tokens, mask)
        return x


class EDM2UNet(UShaped):
    """The magnitude-preserving UNet of EDM2, made for the EDM schedule; it needs a higher learning rate than others.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`. Weights are
    stored normalised in training; averages of them need not be. A normalised vector and the noise level contribute
    equally to the embedding.

    - `shape`: [C, *] of x.
    - `base_channels`, `channel_multipliers`: resolution i has `channel_multipliers[i] * base_channels` channels.
    - `num_blocks`: residual blocks of each resolution, and one more in the second half.
    - `attention_resolutions`: first spatial sizes at which blocks attend; the middle always does.
    - `embedding`: makes the embedding of c_noise from `base_channels`.
    - `head_dim`: channels of an attention head.
    - `balance`: share of a branch in the sum with its shortcut.
    - `dropout`: dropout in the residual blocks.
    - `out_channels`, `vector_dim`, `token_dim`, `concat_channels`, `shown_channels`, `attend`: as in `UNet`.

    Multipliers and attended resolutions that are None follow the sizes by `layers.resolutions`. Raises `ValueError` if
    the sizes do not fit each other, or for a condition that the network was not built for.
    Source: Karras et al. 2024, arXiv 2312.02696, configuration G.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        base_channels: Annotated[int, Ge(1)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)] | None,
        num_blocks: Annotated[int, Ge(1)],
        attention_resolutions: list[int] | None,
        embedding: Callable[[int], nn.Module] = MPFourier,
        head_dim: Annotated[int, Ge(1)] = 32,
        balance: Annotated[float, Ge(0), Le(1)] = 0.3,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
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
        embedding_dim = max(widths)

        def block(
            width_in: int, width_out: int, downward: bool, attends: bool, resample: nn.Module | None = None
        ) -> _Block:
            def attention(tokens: int) -> _Attention:
                return _Attention(width_out, head_dim, balance, attend, tokens)

            attentions = attention(0) if attends else None, attention(token_dim) if attends and token_dim else None
            return _Block(width_in, width_out, embedding_dim, dims, dropout, balance, downward, resample, *attentions)

        self.embedding = embedding(base_channels)
        self.time = MPLayer(base_channels, embedding_dim)
        self.vector = MPLayer(vector_dim, embedding_dim) if vector_dim else None
        # One more channel, of ones, replaces the biases, which the layers do not have.
        self.conv_in = MPLayer(in_channels + self.doors["concat"] + 1, widths[0], [3] * dims)
        down, up = channels(widths[0], widths, num_blocks)
        width = widths[-1]
        self.down = nn.ModuleList()
        for i in range(len(widths)):
            if i > 0:
                self.down.append(block(widths[i - 1], widths[i - 1], True, False, POOL[dims](2)))
            self.down.extend(block(*each, True, attended[i]) for each in down[i])
        self.middle = nn.ModuleList([block(width, width, False, True), block(width, width, False, False)])
        self.up = nn.ModuleList()
        for i, width in reversed([*enumerate(widths)]):
            blocks = [block(*each, False, attended[i]) for each in up[i]]
            higher = block(width, width, False, False, nn.Upsample(scale_factor=2)) if i > 0 else None
            self.up.append(level(blocks, higher))
        self.conv_out = MPLayer(widths[0], out_channels or in_channels, [3] * dims)
        self.gain = nn.Parameter(torch.zeros(()))

    def embed(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        embedding = self.time(self.embedding(c_noise).to(dtype))
        if self.vector is not None:
            embedding = mp_sum(embedding, self.vector(normalised(vector, 1)), 0.5)  # type: ignore[arg-type]
        return mp_silu(embedding)

    def input(self, x: Tensor, concat: Tensor | None) -> Tensor:
        return torch.cat([x, *([] if concat is None else [concat]), torch.ones_like(x[:, :1])], dim=1)

    def descent(self) -> list[tuple[nn.Module, nn.Module | None]]:
        return [(block, None) for block in self.down]

    def join(self, h: Tensor, skip: Tensor) -> Tensor:
        return mp_cat(h, skip)

    def output(self, h: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        return self.conv_out(h, self.gain)
