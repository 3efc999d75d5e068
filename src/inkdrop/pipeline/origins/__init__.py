"""Origins, where samples start in place of the noise of their seeds."""

from inkdrop.pipeline.origins.base import Origin, Start
from inkdrop.pipeline.origins.edit import Edit
from inkdrop.pipeline.origins.interpolation import Interpolation
from inkdrop.pipeline.origins.inverted import Inverted

__all__ = ["Edit", "Interpolation", "Inverted", "Origin", "Start"]
