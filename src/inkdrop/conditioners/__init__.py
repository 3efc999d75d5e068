"""What a network is told beside x_t and t."""

from inkdrop.conditioners.base import Conditioner, Unconditional
from inkdrop.conditioners.label import Label

__all__ = ["Conditioner", "Label", "Unconditional"]
