"""Codecs between raw data and the x that is diffused."""

from inkdrop.codecs.base import Codec
from inkdrop.codecs.pixels import Pixels
from inkdrop.codecs.standardize import Standardize

__all__ = ["Codec", "Pixels", "Standardize"]
