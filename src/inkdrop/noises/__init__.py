"""The law of eps, the laws of moves, and the sources of the noise of a sampling run."""

from inkdrop.noises.absorbing import Absorbing
from inkdrop.noises.brownian import Brownian
from inkdrop.noises.laws import Gaussian, Noise, Offset, slerp
from inkdrop.noises.modes import Modes
from inkdrop.noises.paired import Paired
from inkdrop.noises.partial import Partial
from inkdrop.noises.sources import Move, NoiseSource, Source
from inkdrop.noises.transitions import Categorical, Draw, Transition

__all__ = [
    "Absorbing",
    "Brownian",
    "Categorical",
    "Draw",
    "Gaussian",
    "Modes",
    "Move",
    "Noise",
    "NoiseSource",
    "Offset",
    "Paired",
    "Partial",
    "Source",
    "Transition",
    "slerp",
]
