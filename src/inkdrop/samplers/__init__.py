"""Sampling methods, one file each."""

from inkdrop.samplers.ancestral import Ancestral
from inkdrop.samplers.base import Sampler, forward_kernel, towards
from inkdrop.samplers.ddim import DDIM
from inkdrop.samplers.heun import Heun

__all__ = ["DDIM", "Ancestral", "Heun", "Sampler", "forward_kernel", "towards"]
