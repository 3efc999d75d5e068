"""Features and distances."""

from inkdrop.metrics.evaluation import Evaluation
from inkdrop.metrics.extractors import DigitsClassifier, Extractor, Identity, Inception
from inkdrop.metrics.frechet import GaussianStatistics, Statistics, frechet_distance

__all__ = [
    "DigitsClassifier",
    "Evaluation",
    "Extractor",
    "GaussianStatistics",
    "Identity",
    "Inception",
    "Statistics",
    "frechet_distance",
]
