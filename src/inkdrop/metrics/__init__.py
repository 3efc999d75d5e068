"""Extractors of features, and metrics of them."""

from inkdrop.metrics.accuracy_score import ClassificationAccuracyScore
from inkdrop.metrics.consistency import Consistency
from inkdrop.metrics.contrastive import Contrastive, TextRetrieval, TextSimilarity
from inkdrop.metrics.diversity import Diversity
from inkdrop.metrics.evaluation import Evaluation
from inkdrop.metrics.exact_match import ExactMatch
from inkdrop.metrics.extractors import Classifier, Extractor, Identity, NoFeatures, Thumbnail
from inkdrop.metrics.forecasts import CRPS, EnergyScore, NormalizedDeviation, SummedCRPS
from inkdrop.metrics.frechet import FrechetDistance, frechet_distance
from inkdrop.metrics.inception import Inception
from inkdrop.metrics.inception_score import InceptionScore
from inkdrop.metrics.kernels import KernelDistance, MaximumMeanDiscrepancy
from inkdrop.metrics.moments import GaussianStatistics, Statistics
from inkdrop.metrics.neighbours import DensityCoverage, NearestNeighbours, PrecisionRecall
from inkdrop.metrics.overlap import Dice, GeneralizedEnergyDistance, IntersectionOverUnion
from inkdrop.metrics.perceptual import PerceptualDistance
from inkdrop.metrics.pretrained import CLIP, DINOv2
from inkdrop.metrics.rmse import RootMeanSquareError
from inkdrop.metrics.scene_edit import SceneEdit
from inkdrop.metrics.scene_judge import SceneJudge
from inkdrop.metrics.similarity import PeakSignalNoiseRatio, StructuralSimilarity
from inkdrop.metrics.standardized import Standardized
from inkdrop.metrics.texts import NegativeLogLikelihood, Ruler
from inkdrop.metrics.wasserstein import SlicedWasserstein, SquaredWasserstein

__all__ = [
    "CLIP",
    "CRPS",
    "ClassificationAccuracyScore",
    "Classifier",
    "Consistency",
    "Contrastive",
    "DINOv2",
    "DensityCoverage",
    "Dice",
    "Diversity",
    "EnergyScore",
    "Evaluation",
    "ExactMatch",
    "Extractor",
    "FrechetDistance",
    "GaussianStatistics",
    "GeneralizedEnergyDistance",
    "Identity",
    "Inception",
    "InceptionScore",
    "IntersectionOverUnion",
    "KernelDistance",
    "MaximumMeanDiscrepancy",
    "NearestNeighbours",
    "NegativeLogLikelihood",
    "NoFeatures",
    "NormalizedDeviation",
    "PeakSignalNoiseRatio",
    "PerceptualDistance",
    "PrecisionRecall",
    "RootMeanSquareError",
    "Ruler",
    "SceneEdit",
    "SceneJudge",
    "SlicedWasserstein",
    "SquaredWasserstein",
    "Standardized",
    "Statistics",
    "StructuralSimilarity",
    "SummedCRPS",
    "TextRetrieval",
    "TextSimilarity",
    "Thumbnail",
    "frechet_distance",
]
