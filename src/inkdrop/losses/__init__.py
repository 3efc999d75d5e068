"""The objectives that training minimises."""

from inkdrop.losses.adversarial import AdversarialLoss
from inkdrop.losses.adversary import Adversary
from inkdrop.losses.autoencoding import AutoencodingLoss
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.categories import MaskedCrossEntropy
from inkdrop.losses.classification import NoisyCrossEntropy
from inkdrop.losses.consistency import ConsistencyLoss
from inkdrop.losses.contrastive import ContrastiveLoss
from inkdrop.losses.coupling import independent, minibatch_ot
from inkdrop.losses.denoising import DenoisingLoss, Term
from inkdrop.losses.distribution_matching import DistributionMatching
from inkdrop.losses.embedding import FirstStepTerm, PriorTerm, RoundingTerm
from inkdrop.losses.flow_maps import MeanFlow, Shortcut
from inkdrop.losses.next_token import NextToken
from inkdrop.losses.progressive import ProgressiveDistillation
from inkdrop.losses.uncertainty import LearnedUncertainty
from inkdrop.losses.variational import HybridLoss, VariationalLoss

__all__ = [
    "AdversarialLoss",
    "Adversary",
    "AutoencodingLoss",
    "ConsistencyLoss",
    "ContrastiveLoss",
    "DenoisingLoss",
    "DistributionMatching",
    "Example",
    "FirstStepTerm",
    "HybridLoss",
    "LearnedUncertainty",
    "Loss",
    "LossTerms",
    "MaskedCrossEntropy",
    "MeanFlow",
    "NextToken",
    "NoisyCrossEntropy",
    "PriorTerm",
    "ProgressiveDistillation",
    "RoundingTerm",
    "Shortcut",
    "Term",
    "VariationalLoss",
    "independent",
    "minibatch_ot",
]
