"""Fields that are derived from the data: what a model is conditioned on, or what a constraint knows."""

from inkdrop.data.degradations.blanks import MiddleBlanks
from inkdrop.data.degradations.chains import Chain, Copy
from inkdrop.data.degradations.colours import ColourJitter, Edges, Grey
from inkdrop.data.degradations.compression import JPEG
from inkdrop.data.degradations.masks import BoxMask, HalfMask, OutpaintingMask, PixelMask, StrokeMask
from inkdrop.data.degradations.resolution import BicubicDownscale, Blur, Downscale
from inkdrop.data.degradations.steps import FutureMask, GapMask

__all__ = [
    "JPEG",
    "BicubicDownscale",
    "Blur",
    "BoxMask",
    "Chain",
    "ColourJitter",
    "Copy",
    "Downscale",
    "Edges",
    "FutureMask",
    "GapMask",
    "Grey",
    "HalfMask",
    "MiddleBlanks",
    "OutpaintingMask",
    "PixelMask",
    "StrokeMask",
]
