"""Denoisers, the only part of a trained model that samplers use."""

from inkdrop.denoiser.base import Condition, Denoiser, Estimate, Wrapper
from inkdrop.denoiser.mapped import FlowMap, ScaleConditioned
from inkdrop.denoiser.masked import MaskedDenoiser
from inkdrop.denoiser.network import NetworkDenoiser
from inkdrop.denoiser.self_conditioned import SelfConditioned

__all__ = [
    "Condition",
    "Denoiser",
    "Estimate",
    "FlowMap",
    "MaskedDenoiser",
    "NetworkDenoiser",
    "ScaleConditioned",
    "SelfConditioned",
    "Wrapper",
]
