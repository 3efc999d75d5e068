"""The first half of a UNet as a classifier of noised data."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.networks.layers import zeroed
from inkdrop.networks.unet import UNet


class Encoder(nn.Module):
    """A classifier of noised data: the first half and the middle of a UNet, and a linear layer.

    `network(x (B, C, *), c_noise (B), **cond) -> (B, out_dim)`. The second half of the UNet is removed. The linear
    layer sees every position of the middle, because in strong noise only the whole image shows its class. Source:
    Dhariwal and Nichol 2021, arXiv 2105.05233, appendix H, without its pooling.
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
