"""Codecs between raw data and the x that is diffused."""

from inkdrop.codecs.base import Batches, Codec
from inkdrop.codecs.binary import Binary
from inkdrop.codecs.pixels import Pixels
from inkdrop.codecs.series import Increments, MeanScaled
from inkdrop.codecs.standardize import Standardize

__all__ = ["Batches", "Binary", "Codec", "Increments", "MeanScaled", "Pixels", "Standardize"]
