"""Data sets, one file each."""

from inkdrop.data.cifar10 import CIFAR10
from inkdrop.data.digits import Digits
from inkdrop.data.image_folder import ImageFolder
from inkdrop.data.mnist import MNIST
from inkdrop.data.module import DataError, DataModule, Split, collect
from inkdrop.data.toys import Toy

__all__ = ["CIFAR10", "MNIST", "DataError", "DataModule", "Digits", "ImageFolder", "Split", "Toy", "collect"]
