"""Architectures: plain functions `network(x (B, *), c_noise (B), **cond) -> F (B, *)`, one file each."""

from inkdrop.networks.mlp import MLP
from inkdrop.networks.unet import UNet

__all__ = ["MLP", "UNet"]
