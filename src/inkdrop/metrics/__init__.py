"""Features and distances."""

from inkdrop.metrics.evaluation import Evaluation
from inkdrop.metrics.extractors import Classifier, Extractor, Identity, Inception
from inkdrop.metrics.frechet import GaussianStatistics, Statistics, frechet_distance

__all__ = [
    "Classifier",
    "Evaluation",
    "Extractor",
    "GaussianStatistics",
    "Identity",
    "Inception",
    "Statistics",
    "frechet_distance",
]
