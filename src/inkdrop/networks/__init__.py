"""Architectures: plain functions `network(x (B, *), c_noise (B), **cond) -> F (B, *)`, one file each."""

from inkdrop.networks.dit import DiT
from inkdrop.networks.mlp import MLP
from inkdrop.networks.unet import UNet
from inkdrop.networks.variance import LearnedVariance

__all__ = ["MLP", "DiT", "LearnedVariance", "UNet"]
