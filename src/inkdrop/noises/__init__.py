"""The law of eps, and the sources of the noise of a sampling run."""

from inkdrop.noises.brownian import Brownian
from inkdrop.noises.laws import Gaussian, Noise, Offset, slerp
from inkdrop.noises.sources import Draw, Move, NoiseSource, Source

__all__ = ["Brownian", "Draw", "Gaussian", "Move", "Noise", "NoiseSource", "Offset", "Source", "slerp"]
