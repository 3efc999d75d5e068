"""Data sets, one file each."""

from inkdrop.data.arrays import Arrays
from inkdrop.data.cifar10 import CIFAR10
from inkdrop.data.copied_words import CopiedWords
from inkdrop.data.coupled import CoupledPoints
from inkdrop.data.digits import Digits
from inkdrop.data.image_folder import ImageFolder
from inkdrop.data.loaders import Split, collect
from inkdrop.data.mixture import Mixture
from inkdrop.data.mnist import MNIST
from inkdrop.data.module import DataModule
from inkdrop.data.scenes import Scenes
from inkdrop.data.series_table import SeriesTable
from inkdrop.data.simulated_series import LowRank, VectorAutoregression
from inkdrop.data.subject import Subject
from inkdrop.data.texts import E2E, TextFile, TextPairs
from inkdrop.data.toys import Toy
from inkdrop.data.webdataset import WebDataset
from inkdrop.data.windows import ExchangeRate
from inkdrop.errors import DataError

__all__ = [
    "CIFAR10",
    "E2E",
    "MNIST",
    "Arrays",
    "CopiedWords",
    "CoupledPoints",
    "DataError",
    "DataModule",
    "Digits",
    "ExchangeRate",
    "ImageFolder",
    "LowRank",
    "Mixture",
    "Scenes",
    "SeriesTable",
    "Split",
    "Subject",
    "TextFile",
    "TextPairs",
    "Toy",
    "VectorAutoregression",
    "WebDataset",
    "collect",
]
