"""Data sets, one file each."""

from inkdrop.data.arrays import Arrays
from inkdrop.data.digits import Digits
from inkdrop.data.mixture import Mixture
from inkdrop.data.mnist import MNIST
from inkdrop.data.module import DataError, DataModule, Split, collect
from inkdrop.data.toys import Toy
from inkdrop.data.webdataset import WebDataset

__all__ = ["MNIST", "Arrays", "DataError", "DataModule", "Digits", "Mixture", "Split", "Toy", "WebDataset", "collect"]
