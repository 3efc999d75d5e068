"""Architectures: plain functions `network(x (B, *), c_noise (B), **cond) -> F (B, *)`, one file each."""

from inkdrop.networks.dilated import Dilated
from inkdrop.networks.dit import DiT
from inkdrop.networks.edm2 import EDM2UNet
from inkdrop.networks.encoder import Encoder
from inkdrop.networks.latent_unet import LatentUNet
from inkdrop.networks.mlp import MLP
from inkdrop.networks.mmdit import MMDiT
from inkdrop.networks.ncsnpp import NCSNpp
from inkdrop.networks.pooled import Pooled
from inkdrop.networks.residual_perceptron import ResidualPerceptron
from inkdrop.networks.stepwise import Stepwise
from inkdrop.networks.unet import UNet
from inkdrop.networks.variance import LearnedVariance

__all__ = [
    "MLP",
    "DiT",
    "Dilated",
    "EDM2UNet",
    "Encoder",
    "LatentUNet",
    "LearnedVariance",
    "MMDiT",
    "NCSNpp",
    "Pooled",
    "ResidualPerceptron",
    "Stepwise",
    "UNet",
]
