"""Guidance: factories of denoisers around denoisers."""

from inkdrop.guidance.attribute import AttributeGuidance
from inkdrop.guidance.base import Guidance
from inkdrop.guidance.clamp import Clamp
from inkdrop.guidance.clip import Clip
from inkdrop.guidance.contrast import Autoguidance, ClassifierFree
from inkdrop.guidance.distilled import Distilled
from inkdrop.guidance.dynamic_threshold import DynamicThreshold
from inkdrop.guidance.energies import mean_value
from inkdrop.guidance.gradient import ClassifierGuidance, EnergyGuidance
from inkdrop.guidance.mixes import Geometric, Linear, Mix, Projected, Rescaled
from inkdrop.guidance.rescale import Rescale
from inkdrop.guidance.scales import Ramp, Scale
from inkdrop.guidance.similarity import EstimateSimilarity, NoisedSimilarity
from inkdrop.guidance.staged import Staged

__all__ = [
    "AttributeGuidance",
    "Autoguidance",
    "Clamp",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Distilled",
    "DynamicThreshold",
    "EnergyGuidance",
    "EstimateSimilarity",
    "Geometric",
    "Guidance",
    "Linear",
    "Mix",
    "NoisedSimilarity",
    "Projected",
    "Ramp",
    "Rescale",
    "Rescaled",
    "Scale",
    "Staged",
    "mean_value",
]
