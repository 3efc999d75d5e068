"""Constraints, which act on the moves of a sampler."""

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory, Stepping
from inkdrop.constraints.blanks import Blanks
from inkdrop.constraints.gradient import DPS, PiGDM
from inkdrop.constraints.particles import Particles, Resampling, Residual, Systematic
from inkdrop.constraints.prompt_to_prompt import Alignment, PromptToPrompt, Refine, Replace
from inkdrop.constraints.replacement import Replacement
from inkdrop.constraints.source import Source
from inkdrop.noises import Transition

__all__ = [
    "DPS",
    "Alignment",
    "Blanks",
    "Constrained",
    "Constraint",
    "ConstraintFactory",
    "Particles",
    "PiGDM",
    "PromptToPrompt",
    "Refine",
    "Replace",
    "Replacement",
    "Resampling",
    "Residual",
    "Source",
    "Stepping",
    "Systematic",
    "Transition",
]
