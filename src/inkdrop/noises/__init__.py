"""The law of eps, and where a sampling run takes its noise from."""

from inkdrop.noises.brownian import Brownian
from inkdrop.noises.laws import Gaussian, Noise, Offset, slerp
from inkdrop.noises.sources import Draw, Move, NoiseSource, Source

__all__ = ["Brownian", "Draw", "Gaussian", "Move", "Noise", "NoiseSource", "Offset", "Source", "slerp"]
