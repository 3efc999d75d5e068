"""Layers that networks share.  B batch, C channels, L positions, D width, H heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge
from torch import Tensor, nn

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_MOST_POSITIONS = 1024  # largest number of positions to which the middle of a UNet attends
Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Returns softmax(q k^T / sqrt(D)) v over (B, H, L, D); mask (B, 1, 1, L) is true where a key counts."""
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the same, where each of L features attends to itself and those before it; tokens of a mask are all seen.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.3.
    """
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)


def root_mean_square(dim: int) -> nn.Module:
    """Returns a normalisation of `dim` features by their root mean square, with a learned scale.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    return nn.RMSNorm(dim, eps=1e-6)


def sinusoidal(c_noise: Tensor, dim: int) -> Tensor:
    """Returns sines, then cosines of c_noise (B) at dim / 2 frequencies from 1 to 1e-4, (B, dim), in float32 or better.

    Source: the reference code of Ho et al. 2020, arXiv 2006.11239.
    """
    c_noise = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=c_noise.device, dtype=c_noise.dtype) * (-math.log(1e4) / (half - 1)))
    angles = c_noise[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def waves(c_noise: Tensor, dim: int) -> Tensor:
    """Returns cosines, then sines of c_noise (B) at dim / 2 frequencies from 1 to 1e-4, which is excluded: (B, dim).

    Source: the reference code of Rombach et al. 2022, arXiv 2112.10752.
    """
    c_noise = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=c_noise.device, dtype=c_noise.dtype) * (-math.log(1e4) / half))
    angles = c_noise[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Embedding(nn.Module):
    """Maps numbers (B), such as c_noise, to vectors (B, dim): sines and cosines, two layers, and 0 before training."""

    def __init__(self, dim: Annotated[int, Ge(1)], width: Annotated[int, Ge(4)] = 64):
        super().__init__()
        self.dim, self.width = dim, width
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), zeroed(nn.Linear(width, dim)))

    def forward(self, values: Tensor) -> Tensor:
        weight: Any = self.layers[0].weight
        embedded: Tensor = self.layers(sinusoidal(values, self.width).to(weight.dtype))
        return embedded


def initialised(layer: Any) -> nn.Module:
    """Initialises a convolution or linear layer with uniform weights of variance 2 / (fan in + fan out) and biases 0.

    Source: Glorot and Bengio 2010, equation 16.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(in_channels: int, out_channels: int, size: int, dims: int) -> nn.Module:
    """Returns a convolution over `dims` dimensions that keeps their sizes, initialised by `initialised`."""
    return initialised(CONVOLUTION[dims](in_channels, out_channels, size, padding=size // 2))


def zeroed(module: nn.Module) -> nn.Module:
    """Returns the module with all weights set to zero, so that a residual branch initially adds nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def doors(vector_dim: int, token_dim: int, concat_channels: int) -> dict[str, int]:
    """Returns the width of each condition that a network takes, 0 for none; a mask says which tokens count."""
    return {"vector": vector_dim, "tokens": token_dim, "concat": concat_channels, "mask": token_dim}


def check_doors(doors: Mapping[str, int], **conditions: Tensor | None) -> None:
    """Raises `ValueError` for a condition of width 0 in `doors`, and for a missing one of other width but a mask."""
    for name, value in conditions.items():
        if value is not None and not doors[name]:
            option = {"vector": "vector_dim", "concat": "concat_channels"}.get(name, "token_dim")
            raise ValueError(f"this network does not take a {name} condition: set network.{option}")
        if value is None and doors[name] and name != "mask":
            raise ValueError(f"this network was built for a {name} condition and got none: choose a conditioner for it")


def resolutions(
    sizes: Sequence[int],
    base_channels: int,
    channel_multipliers: Sequence[int] | None,
    attention_resolutions: Sequence[int] | None,
    head_dim: int | None,
) -> tuple[list[int], list[bool]]:
    """Returns the channels of each resolution of a UNet, and whether its blocks attend there.

    - `sizes`: spatial sizes of the data.
    - `base_channels`: channels at full resolution, times the multiplier.
    - `channel_multipliers`: one for each resolution; None is 1, 2, 4, 4, ... while all sizes are even and at least 8.
    - `attention_resolutions`: first spatial sizes at which blocks attend; None is those halved sizes that have at most
      256 positions.
    - `head_dim`: channels of an attention head.

    Raises `ValueError` if explicit choices do not fit the sizes or heads, and if odd sizes would leave more than 1,024
    positions, with the nearest sizes that do not.
    """
    multipliers = channel_multipliers
    if multipliers is None:
        multipliers = [(1, 2, 4)[min(level, 2)] for level in range(_num_levels(sizes))]
    factor = 2 ** (len(multipliers) - 1)
    if any(size % factor for size in sizes):
        nearest = ",".join(str(max(factor, factor * round(size / factor))) for size in sizes)
        raise ValueError(
            f"data of size {list(sizes)} cannot be halved {len(multipliers) - 1} times: set "
            f"network.channel_multipliers=null, which follows the sizes, or data.shape=[C,{nearest}]"
        )
    widths = [base_channels * multiplier for multiplier in multipliers]
    if head_dim and any(width % head_dim for width in widths):
        raise ValueError(f"network.head_dim={head_dim} does not divide the channels {widths}: change one of them")
    first = [sizes[0] >> level for level in range(len(widths))]
    if attention_resolutions is None:
        positions = [math.prod(size >> level for size in sizes) for level in range(len(widths))]
        return widths, [level > 0 and count <= 256 for level, count in enumerate(positions)]
    if unknown := set(attention_resolutions) - set(first):
        raise ValueError(
            f"network.attention_resolutions={sorted(unknown)} never occur: choose among {first}, or null, which "
            "follows the sizes"
        )
    return widths, [size in attention_resolutions for size in first]


def _num_levels(sizes: Sequence[int]) -> int:
    level = 0
    while all(size >> level >= 8 and not (size >> level) % 2 for size in sizes):
        level += 1
    unit = 1
    while math.prod(size / unit for size in sizes) > _MOST_POSITIONS and min(sizes) >= 8 * unit:
        unit *= 2
    if unit > 2**level:
        nearest = ",".join(str(unit * round(size / unit)) for size in sizes)
        raise ValueError(
            f"data of size {list(sizes)} can be halved only {level} times, and the network would attend to "
            f"{math.prod(size >> level for size in sizes):,} positions: set data.shape=[C,{nearest}], "
            "the nearest sizes that fit, or network.channel_multipliers=[1], which takes any size at that cost"
        )
    return level + 1


class Attention(nn.Module):
    """Adds to x (B, C, *) the attention from each position to x itself, or to tokens (B, L, token_dim) if given.

    In all networks the modules that attend have `attend`, which may be replaced, and `is_cross`: whether the keys are
    tokens. The number of queries is that of positions, and so says which resolution a module is of.
    """

    def __init__(
        self, channels: int, head_dim: int | None, norm_groups: int, norm_eps: float, attend: Attend, token_dim: int = 0
    ):
        super().__init__()
        self.num_heads = channels // (head_dim or channels)
        self.attend, self.is_cross = attend, token_dim > 0
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
