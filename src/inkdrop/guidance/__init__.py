"""Denoisers around denoisers."""

from inkdrop.guidance.base import Guidance
from inkdrop.guidance.clip import Clip

__all__ = ["Clip", "Guidance"]
