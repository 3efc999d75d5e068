"""What happens around a step of a sampler."""

from inkdrop.constraints.base import Constraint, Transition

__all__ = ["Constraint", "Transition"]
