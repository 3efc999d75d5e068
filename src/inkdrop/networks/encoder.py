"""The way down of a UNet, as a classifier of noised data."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.networks.layers import zeroed
from inkdrop.networks.unet import UNet


class Encoder(nn.Module):
    """`network(x (B, C, *), c_noise (B), **cond) -> (B, out_dim)`: way down and middle of a UNet, and a linear layer.

    What the UNet has for its way up is taken out of it. The linear layer sees every position of the middle: in strong
    noise only the whole tells. Source: Dhariwal and Nichol 2021, arXiv 2105.05233, appendix H, without its pooling.
    """

    def __init__(self, network: UNet, out_dim: Annotated[int, Ge(1)]):
        super().__init__()
        width, levels = network.widths[-1], len(network.widths)
        self.norm = nn.GroupNorm(network.norm_out.num_groups, width, network.norm_out.eps)
        for part in ("up", "norm_out", "conv_out"):
            delattr(network, part)
        self.network = network
        self.out = zeroed(nn.Linear(width * math.prod(size >> (levels - 1) for size in network.sizes), out_dim))

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> Tensor:
        h, _, _ = self.network.encode(x, c_noise, **cond)
        return self.out(nn.functional.silu(self.norm(h)).flatten(1))
