"""Data sets, one file each."""

from inkdrop.data.digits import Digits
from inkdrop.data.module import DataModule, Split
from inkdrop.data.toys import Toy

__all__ = ["DataModule", "Digits", "Split", "Toy"]
