"""Constraints, which act on the moves of a sampler."""

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory, Stepping
from inkdrop.constraints.replacement import Replacement
from inkdrop.noises import Transition

__all__ = ["Constrained", "Constraint", "ConstraintFactory", "Replacement", "Stepping", "Transition"]
