"""Constraints, which act on the steps of a sampler."""

from inkdrop.constraints.base import Constraint, Transition

__all__ = ["Constraint", "Transition"]
