"""Layers that networks share.  B batch, C channels, L positions, D width, H heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over (B, H, L, D); mask (B, 1, 1, L) is true where a key counts."""
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def sinusoidal(c_noise: Tensor, dim: int) -> Tensor:
    """Sines, then cosines of c_noise (B) at dim / 2 frequencies from 1 to 1e-4, (B, dim) in float32 or better.

    Source: the reference code of Ho et al. 2020, arXiv 2006.11239.
    """
    c_noise = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=c_noise.device, dtype=c_noise.dtype) * (-math.log(1e4) / (half - 1)))
    angles = c_noise[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def initialised(layer: Any) -> nn.Module:
    """A convolution or linear layer with uniform weights of variance 2 / (fan in + fan out) and biases 0.

    Source: Glorot and Bengio 2010, equation 16.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(in_channels: int, out_channels: int, size: int, dims: int) -> nn.Module:
    """A convolution over `dims` dimensions that keeps their sizes, initialised in the same way."""
    return initialised(CONVOLUTION[dims](in_channels, out_channels, size, padding=size // 2))


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all its weights at zero: a residual branch that begins as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def check_doors(doors: Mapping[str, int], **conditions: Tensor | None) -> None:
    """`ValueError` for a condition that a network has no door for (width 0), or a door that gets none.

    `doors` is the width of each condition that a network takes; a mask may be left out.
    """
    for name, value in conditions.items():
        if value is not None and not doors[name]:
            option = {"vector": "vector_dim", "concat": "concat_channels"}.get(name, "token_dim")
            raise ValueError(f"this network takes no {name} condition: set network.{option}")
        if value is None and doors[name] and name != "mask":
            raise ValueError(f"this network was built for a {name} condition and got none: choose a conditioner for it")


def check_sizes(
    sizes: Sequence[int], widths: Sequence[int], attention_resolutions: Sequence[int], head_dim: int | None
) -> None:
    """`ValueError` where a UNet with these channels per resolution does not fit the data's sizes, or its heads."""
    factor = 2 ** (len(widths) - 1)
    if any(size % factor for size in sizes):
        raise ValueError(
            f"data of size {list(sizes)} cannot be halved {len(widths) - 1} times: use fewer "
            f"network.channel_multipliers, or sizes divisible by {factor}"
        )
    if head_dim and any(width % head_dim for width in widths):
        raise ValueError(f"network.head_dim={head_dim} does not divide the channels {list(widths)}")
    resolutions = [sizes[0] >> level for level in range(len(widths))]
    if unknown := set(attention_resolutions) - set(resolutions):
        raise ValueError(f"network.attention_resolutions={sorted(unknown)} never occur: there are {resolutions}")


def add_residuals(outputs: Sequence[Tensor], residuals: Sequence[Tensor]) -> list[Tensor]:
    """Residuals added to the skips of a UNet and, last, to its middle; `ValueError` for another number of them."""
    if len(residuals) != len(outputs):
        raise ValueError(f"{len(residuals)} residuals for {len(outputs) - 1} skips and the middle")
    return [output + residual for output, residual in zip(outputs, residuals, strict=True)]


class Attention(nn.Module):
    """x + attention from each position of x (B, C, *) to x itself, or to tokens (B, L, token_dim) when it has them."""

    def __init__(
        self, channels: int, head_dim: int | None, norm_groups: int, norm_eps: float, attend: Attend, token_dim: int = 0
    ):
        super().__init__()
        self.num_heads = channels // (head_dim or channels)
        self.attend = attend
        self.norm = nn.GroupNorm(norm_groups, channels, norm_eps)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(token_dim or channels, channels)
        self.v = nn.Linear(token_dim or channels, channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        queries = self.norm(x).flatten(2).transpose(1, 2)
        keys = queries if tokens is None else tokens
        q, k, v = (
            layer(y).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, y in ((self.q, queries), (self.k, keys), (self.v, keys))
        )
        h = self.attend(q, k, v, None if mask is None else mask[:, None, None, :])
        return x + self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)
