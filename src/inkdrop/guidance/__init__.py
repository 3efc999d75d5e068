"""Denoisers around denoisers."""

from inkdrop.guidance.base import Guidance
from inkdrop.guidance.clip import Clip
from inkdrop.guidance.dynamic_threshold import DynamicThreshold
from inkdrop.guidance.rescale import Rescale

__all__ = ["Clip", "DynamicThreshold", "Guidance", "Rescale"]
