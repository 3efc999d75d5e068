"""Extractors of features, and metrics of them."""

from inkdrop.metrics.accuracy_score import ClassificationAccuracyScore
from inkdrop.metrics.evaluation import Evaluation
from inkdrop.metrics.extractors import Classifier, Extractor, Identity, Inception, NoFeatures, Thumbnail
from inkdrop.metrics.frechet import FrechetDistance, frechet_distance
from inkdrop.metrics.inception_score import InceptionScore
from inkdrop.metrics.kernels import KernelDistance, MaximumMeanDiscrepancy
from inkdrop.metrics.moments import GaussianStatistics, Statistics
from inkdrop.metrics.neighbours import DensityCoverage, NearestNeighbours, PrecisionRecall
from inkdrop.metrics.pretrained import CLIP, DINOv2
from inkdrop.metrics.rmse import RootMeanSquareError
from inkdrop.metrics.scene_judge import SceneJudge
from inkdrop.metrics.standardized import Standardized
from inkdrop.metrics.wasserstein import SlicedWasserstein

__all__ = [
    "CLIP",
    "ClassificationAccuracyScore",
    "Classifier",
    "DINOv2",
    "DensityCoverage",
    "Evaluation",
    "Extractor",
    "FrechetDistance",
    "GaussianStatistics",
    "Identity",
    "Inception",
    "InceptionScore",
    "KernelDistance",
    "MaximumMeanDiscrepancy",
    "NearestNeighbours",
    "NoFeatures",
    "PrecisionRecall",
    "RootMeanSquareError",
    "SceneJudge",
    "SlicedWasserstein",
    "Standardized",
    "Statistics",
    "Thumbnail",
    "frechet_distance",
]
