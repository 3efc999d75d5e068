"""What is minimised in training."""

from inkdrop.losses.base import Loss, LossTerms
from inkdrop.losses.coupling import independent, minibatch_ot
from inkdrop.losses.denoising import DenoisingLoss
from inkdrop.losses.uncertainty import LearnedUncertainty

__all__ = ["DenoisingLoss", "LearnedUncertainty", "Loss", "LossTerms", "independent", "minibatch_ot"]
