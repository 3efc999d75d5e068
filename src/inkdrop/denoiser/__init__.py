"""The denoiser: all that a sampler sees of a trained model."""

from inkdrop.denoiser.base import Condition, Denoiser, Estimate, Wrapper
from inkdrop.denoiser.network import NetworkDenoiser
from inkdrop.denoiser.self_conditioned import SelfConditioned

__all__ = ["Condition", "Denoiser", "Estimate", "NetworkDenoiser", "SelfConditioned", "Wrapper"]
